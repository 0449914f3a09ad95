"""Namespaces that tests make for themselves, and that go away with the EvolutionRuns in them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

from cluster_access import Cluster, KubectlError
from crd_objects import CRD_NAME, wait_until_served

LET_GO = '{"metadata":{"finalizers":null}}'


@contextlib.contextmanager
def own_namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace. It is deleted afterwards; nobody waits for its end. No operator may be alive in it by then."""
    name = f"perseid-test-{uuid.uuid4().hex[:10]}"
    cluster.kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")
        _let_go(cluster, name)


def _let_go(cluster: Cluster, namespace: str) -> None:
    """Take the finalizers of EvolutionRuns away: the operator that would is gone, and they would stay for ever, with
    their namespace and their CRD."""
    for run in _runs(cluster, namespace):
        try:
            cluster.kubectl("patch", run, "-n", namespace, "--type=merge", "-p", LET_GO)
        except KubectlError as error:
            if "NotFound" not in str(error):  # what nothing holds goes with its namespace meanwhile
                raise


def _runs(cluster: Cluster, namespace: str) -> list[str]:
    command = ("get", "evolutionruns", "-n", namespace, "-o", "name")
    try:
        return cluster.kubectl(*command).split()
    except KubectlError:
        if not cluster.kubectl("get", "crd", CRD_NAME, "--ignore-not-found"):
            return []  # a cluster without the kind
        wait_until_served(cluster)  # the test has started the API server anew
        return cluster.kubectl(*command).split()
