"""Fixtures for tests that need a Kubernetes API server; what they give is described in tests/cluster.

Listed in `pytest_plugins` of tests/conftest.py, they are there for every test. Programs that have to be built are built
before the first test, since a test has a time limit and the build takes longer.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).with_name("cluster")))  # As pytest does for the tests that stand there.

from cluster_access import Cluster
from cluster_binaries import BuildFailedError, NoControlPlaneError, find_or_build
from cluster_namespaces import own_namespace
from control_plane import KUBECONFIG_VARIABLE, ControlPlane, open_cluster

OPENED = pytest.StashKey[Cluster]()
FAILED_BUILD = pytest.StashKey[Exception]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the control plane now if a test will want it; what goes wrong with it is told by the tests that do."""
    wanted = any("cluster" in getattr(item, "fixturenames", ()) for item in session.items)
    if not wanted or session.config.option.collectonly or os.environ.get(KUBECONFIG_VARIABLE):
        return
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    try:
        find_or_build(os.environ, terminal.write_line if terminal is not None else print)
    except (NoControlPlaneError, BuildFailedError, FileNotFoundError) as error:
        session.config.stash[FAILED_BUILD] = error


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A cluster, and its administrator's rights in it: one for all tests of a session."""
    # Where several conftest.py files import this fixture, pytest takes it for several; the cluster is one all the same.
    if OPENED not in pytestconfig.stash:
        try:
            if FAILED_BUILD in pytestconfig.stash:
                raise pytestconfig.stash[FAILED_BUILD]
            context = open_cluster(os.environ, tmp_path_factory.mktemp("cluster"), print)
        except NoControlPlaneError as error:
            warnings.warn(f"SKIPPED every test that needs Kubernetes: {error}", stacklevel=1)
            pytest.skip(str(error))
        closing = contextlib.ExitStack()
        pytestconfig.stash[OPENED] = closing.enter_context(context)
        pytestconfig.add_cleanup(closing.close)
    return pytestconfig.stash[OPENED]


@pytest.fixture
def own_cluster(cluster: Cluster) -> ControlPlane:
    """The same cluster, where it is one that a test may stop and pause."""
    if not isinstance(cluster, ControlPlane):
        pytest.skip(f"stops the API server, which is not ours to stop in the cluster of {KUBECONFIG_VARIABLE}")
    return cluster


@pytest.fixture
def cluster_with_controllers(cluster: Cluster) -> Cluster:
    """The same cluster, where owned objects are collected and namespaces go away."""
    if not cluster.has_controllers:
        pytest.skip("needs a kube-controller-manager, which KUBEBUILDER_ASSETS lacks: add one to it, or unset it")
    return cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own. It is deleted afterwards; nobody waits for its end."""
    with own_namespace(cluster) as name:
        yield name
