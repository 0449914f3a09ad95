"""What a platform engineer does with the chart: installs it wrongly and rightly, tests it, limits it, takes it away."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_cluster import CommandError, eventually
from e2e_world import RELEASE, SYSTEM, World

# Pods of the operator start and end, and Helm waits for them. The first test also waits for images and cluster.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_helm_test_finds_the_installation_in_order(installed: World) -> None:
    said = installed.cluster.helm("test", RELEASE, "--namespace", SYSTEM, "--logs", "--timeout", "4m")
    assert "Succeeded" in said


def test_wrong_values_are_refused_before_anything_is_installed(installed: World, tmp_path: Path) -> None:
    for changes, told in (
        ({"storage": {"uri": ""}}, "storage"),
        ({"replica": 2}, "replica"),
        ({"kfp": {"endpoint": "ml-pipeline:8888"}}, "endpoint"),
        ({"pollSeconds": "often"}, "pollSeconds"),
    ):
        with pytest.raises(CommandError, match=told):
            installed.helm_apply("default", tmp_path, **changes)
    assert not installed.cluster.get("deployments", namespace="default")["items"]


def test_a_run_with_a_mistake_is_refused_by_the_api_server_with_the_fields_name(
    installed: World, namespace: str
) -> None:
    wrong = installed.run("wrong", generations={"max": 0})
    with pytest.raises(CommandError, match=r"spec\.generations\.max"):
        installed.cluster.apply(wrong, namespace=namespace)


def test_an_operator_of_one_namespace_leaves_the_others_alone(
    installed: World, namespace: str, restricted_namespace: str, tmp_path: Path
) -> None:
    # It replaces the one that sees all namespaces; the next test finds that one again.
    cluster, own = installed.cluster, restricted_namespace
    cluster.kubectl("scale", "deployment/perseid-operator", "--namespace", SYSTEM, "--replicas=0")
    try:
        installed.helm_apply(
            own, tmp_path, watchNamespaces=[own], crds={"install": False}, userRoles={"create": False},
            workflows={"enabled": True, "namespace": installed.kfp_namespace},
        )  # fmt: skip
        cluster.apply(installed.run("outside"), namespace=namespace)
        cluster.apply(installed.run("inside"), namespace=own)
        run_id = installed.wait_for_run("inside", own)
        assert installed.status("outside", namespace) == {}
        assert _may(installed, own, "list", "evolutionruns.perseid.dev", own)
        assert not _may(installed, own, "list", "evolutionruns.perseid.dev", namespace)
        cluster.kubectl("delete", "evorun", "inside", "--namespace", own, "--timeout=180s", seconds=200)
        eventually(
            lambda: not [p for p in installed.stage_pods(run_id) if p["status"]["phase"] in ("Pending", "Running")],
            "the pods of the deleted run are gone",
            120,
        )
        cluster.helm("uninstall", RELEASE, "--namespace", own, "--wait")
    finally:
        cluster.kubectl("delete", "evorun", "--all", "--namespace", namespace, "--wait=false")
        cluster.kubectl("scale", "deployment/perseid-operator", "--namespace", SYSTEM, "--replicas=1")
        installed.operator_pod()


def test_uninstalling_keeps_the_kind_and_the_objects_and_an_operator_that_comes_back_finds_them(
    installed: World, namespace: str, tmp_path: Path
) -> None:
    cluster = installed.cluster
    cluster.apply(installed.run("kept", suspend=True), namespace=namespace)
    eventually(
        lambda: installed.reasons("kept", namespace).get("Suspended") == "Suspended", "the operator has seen it", 60
    )
    cluster.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait")
    try:
        assert not cluster.get("deployments", namespace=SYSTEM)["items"]
        assert cluster.get("crd", "evolutionruns.perseid.dev")
        assert installed.reasons("kept", namespace)["Suspended"] == "Suspended"
    finally:
        installed.helm_apply(SYSTEM, tmp_path)
    cluster.kubectl("delete", "evorun", "kept", "--namespace", namespace, "--timeout=120s")


def _may(world: World, account_namespace: str, verb: str, resource: str, namespace: str) -> bool:
    account = f"system:serviceaccount:{account_namespace}:perseid-operator"
    try:
        said = world.cluster.kubectl("auth", "can-i", verb, resource, "--as", account, "--namespace", namespace)
    except CommandError:  # "no" is an exit code too
        return False
    return said.strip() == "yes"
