"""A real API server takes what the chart renders, under restricted pod security, and gives the rights it should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from chart_helm import NAMESPACE, objects_of, the, value_sets
from cluster_access import Cluster, KubectlError
from cluster_namespaces import own_namespace
from crd_objects import install_crd
from operator_rights import MAY, MAY_FOR_ITS_LEASE, MAY_NOT, allowed, wait_until_allowed

pytestmark = pytest.mark.slow  # A real API server has to be started, and built before that.

UNKNOWN_TO_THE_SERVER = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator. The same as in manifests/, as another test shows."""


def placed(each: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The object in a namespace that there is."""
    metadata = {**each["metadata"], **({"namespace": namespace} if "namespace" in each["metadata"] else {})}
    return {**each, "metadata": metadata}


def as_stream(objects: list[dict[str, Any]]) -> str:
    """One document for each: kubectl itself checks what is in a List, and stumbles over a null in the CRD."""
    return "\n---\n".join(json.dumps(each) for each in objects)


def pods(name: str, namespace: str) -> list[dict[str, Any]]:
    """The operator's pod as its Deployment would make it, and that of `helm test`."""
    template = the(objects_of(name), "Deployment")["spec"]["template"]
    operator = {"apiVersion": "v1", "kind": "Pod", **template}
    operator["metadata"] = {**operator["metadata"], "name": "operator", "namespace": namespace}
    return [operator, placed(the(objects_of(name), "Pod", "perseid-operator-test"), namespace)]


@pytest.fixture
def restricted(cluster: Cluster, namespace: str) -> str:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    for account in ("perseid-operator", "perseid-operator-test"):
        cluster.kubectl("create", "serviceaccount", account, f"--namespace={namespace}")
    return namespace


@pytest.mark.parametrize("name", value_sets())
def test_both_pods_are_admitted_where_pod_security_is_restricted(cluster: Cluster, restricted: str, name: str) -> None:
    def admit(pod: dict[str, Any]) -> str:
        return cluster.kubectl("create", "--dry-run=server", "--filename=-", input=json.dumps(pod))

    for pod in pods(name, restricted):
        assert "created" in admit(pod)
        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        with pytest.raises(KubectlError, match="violates PodSecurity"):
            admit(pod)


@pytest.mark.parametrize("name", value_sets())
def test_the_api_server_takes_all_of_it_and_knows_every_field(cluster: Cluster, restricted: str, name: str) -> None:
    objects = [each for each in objects_of(name) if each["kind"] not in UNKNOWN_TO_THE_SERVER]
    options = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--filename=-")
    # Twice the same name in the namespaces of `namespaced` is no trouble: nothing is stored.
    said = cluster.kubectl("apply", *options, input=as_stream([placed(each, restricted) for each in objects]))
    assert len(said.splitlines()) == len(objects)


@pytest.fixture
def another(cluster: Cluster) -> Iterator[str]:
    """A second namespace whose EvolutionRuns are carried through."""
    with own_namespace(cluster) as name:
        yield name


def test_an_operator_of_some_namespaces_may_what_it_needs_in_each_and_nothing_elsewhere(
    cluster: Cluster, namespace: str, another: str
) -> None:
    install_crd(cluster)
    places = {"team-a": namespace, "team-b": another}
    rights = [
        placed(each, places[each["metadata"]["namespace"]])
        for each in objects_of("namespaced")
        if each["kind"] in ("Role", "RoleBinding") and each["metadata"]["namespace"] in places
    ]
    assert len(rights) == 4
    cluster.kubectl("create", "--filename=-", input=as_stream(rights))
    account = f"{NAMESPACE}:perseid-operator"
    for place in places.values():
        wait_until_allowed(cluster, account, MAY, place)
        assert allowed(cluster, account, [*MAY_NOT, *MAY_FOR_ITS_LEASE], place) == []
    assert allowed(cluster, account, [*MAY, *MAY_FOR_ITS_LEASE, *MAY_NOT], "default") == []
