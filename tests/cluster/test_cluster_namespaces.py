"""A test's namespace goes away whatever the test has left in it."""

from __future__ import annotations

import json

import pytest
from cluster_access import Cluster, KubectlError
from cluster_namespaces import own_namespace
from crd_objects import CRD_NAME, install_crd

from perseid.api.base import API_VERSION, KIND
from perseid_operator.objects import FINALIZER

pytestmark = pytest.mark.slow  # The namespace controller looks a second time, five seconds later.


def apply(cluster: Cluster, namespace: str, *names: str) -> None:
    """EvolutionRuns as an operator leaves them that was killed: the first one held by nothing, the others held."""
    metadata = [
        {"name": name, "namespace": namespace, "finalizers": [FINALIZER] if number else []}
        for number, name in enumerate(names)
    ]
    items = [{"apiVersion": API_VERSION, "kind": KIND, "metadata": each} for each in metadata]
    cluster.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def test_runs_that_no_operator_will_let_go_do_not_hold_it(
    cluster_with_controllers: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, kubectl = cluster_with_controllers, Cluster.kubectl
    refusals = ["error: the server doesn't have a resource type"]

    def unlucky(self: Cluster, *arguments: str, **options: object) -> str:
        """The API server has just been started anew, and the namespace controller is always the faster one."""
        if arguments[:2] == ("get", "evolutionruns") and refusals:
            raise KubectlError(refusals.pop())
        if "patch" in arguments:
            kubectl(self, "delete", CRD_NAME, "free", "-n", made, "--ignore-not-found")
        return kubectl(self, *arguments, **options)

    install_crd(cluster)
    with own_namespace(cluster) as made:
        apply(cluster, made, "free", "held", "held-too")
        monkeypatch.setattr(Cluster, "kubectl", unlucky)
    assert not refusals
    cluster.kubectl("wait", "--for=delete", f"namespace/{made}", "--timeout=60s")
