"""The commands against a real API server, with the CustomResourceDefinition that Perseid installs.

All slow: they start a control plane where none is running yet, which takes some seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import crd_objects
import pytest
from cluster_access import Cluster
from cluster_runs import ClusterRun
from stage_pods import stage
from typer.testing import CliRunner, Result

from perseid.api.base import APPROVED_GENERATION
from perseid.cli import exits
from perseid_operator.cli import commands

pytestmark = pytest.mark.slow

Perseid = Callable[..., Result]


@pytest.fixture(scope="module")
def kind(cluster: Cluster) -> Cluster:
    """The cluster with our kind in it."""
    crd_objects.install_crd(cluster)
    return cluster


@pytest.fixture
def perseid(kind: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Perseid:
    monkeypatch.setenv("KUBECONFIG", str(kind.kubeconfig))

    def invoke(*arguments: str | Path) -> Result:
        return CliRunner().invoke(commands, [*map(str, arguments), "-n", namespace])

    return invoke


def apply(cluster: Cluster, run: ClusterRun, namespace: str) -> None:
    """As a user applies it and the operator writes its status."""
    run.namespace = namespace
    raw = run.object()
    status = raw.pop("status", None)
    raw["metadata"] = {"name": run.name, "namespace": namespace, "annotations": dict(run.annotations)}
    cluster.kubectl("apply", "-f", "-", input=json.dumps(raw))
    if status is not None:
        patch = json.dumps({"status": status})
        cluster.kubectl(
            "patch", "evorun", run.name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch
        )


def field(cluster: Cluster, namespace: str, path: str, name: str = "small") -> str:
    return cluster.kubectl("get", "evorun", name, "-n", namespace, "-o", f"jsonpath={{{path}}}")


def test_a_run_is_shown_suspended_resumed_and_approved(kind: Cluster, namespace: str, perseid: Perseid) -> None:
    run = ClusterRun(generations={"max": 4, "approval": "manual"}).generation(candidate=0.5, parent=0.4)
    apply(kind, run, namespace)
    (row,) = json.loads(perseid("get", "-o", "json").stdout)
    assert (row["name"], row["phase"], row["generations"], row["best"]) == ("small", "Running", "1/4", "0.500")
    assert "starts generation 1" in perseid("describe", "small").stdout

    assert perseid("suspend", "small", "--terminate").exit_code == exits.OK
    assert field(kind, namespace, ".spec.suspend") == "true"
    assert field(kind, namespace, ".spec.suspendPolicy") == "terminate"
    assert perseid("resume", "small").exit_code == exits.OK
    assert field(kind, namespace, ".spec.suspend") == "false"
    result = perseid("approve", "small")
    assert result.exit_code == exits.OK, result.output
    named = APPROVED_GENERATION.replace(".", "\\.")
    assert field(kind, namespace, f".metadata.annotations.{named}") == "1"
    managers = field(kind, namespace, ".metadata.managedFields[*].manager")
    assert "perseid-cli" in managers


def test_what_is_not_there_is_told_with_the_nearest_name(kind: Cluster, namespace: str, perseid: Perseid) -> None:
    apply(kind, ClusterRun(), namespace)
    result = perseid("describe", "smal")
    assert result.exit_code == exits.MISTAKE
    assert "did you mean small?" in result.stderr


def test_an_object_that_was_made_anew_is_not_changed_for_the_old_one(
    kind: Cluster, namespace: str, perseid: Perseid, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perseid_operator.cli.access import Access

    apply(kind, ClusterRun(), namespace)
    patch = Access.patch

    async def late(self: Access, where: str, name: str, change: dict[str, object]) -> object:
        kind.kubectl("delete", "evorun", "small", "-n", namespace)
        apply(kind, ClusterRun(), namespace)
        return await patch(self, where, name, change)

    monkeypatch.setattr(Access, "patch", late)
    result = perseid("suspend", "small")
    assert result.exit_code == exits.MISTAKE
    assert "has just been deleted and made anew, so nothing was done" in result.stderr
    assert field(kind, namespace, ".spec.suspend") == "false"


def test_a_watch_follows_the_run_to_its_end(kind: Cluster, namespace: str) -> None:
    import os
    import subprocess
    import sys

    run = ClusterRun()
    apply(kind, run, namespace)
    program = "from perseid_operator.cli import commands; commands()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "get", "small", "--watch", "-n", namespace],
        env={**os.environ, "KUBECONFIG": str(kind.kubeconfig), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"{namespace}/small  Pending")
        apply(kind, run.running(), namespace)
        assert process.stdout.readline().startswith(f"{namespace}/small  Running")
        kind.kubectl("delete", "evorun", "small", "-n", namespace)
        assert process.stdout.readline() == f"{namespace}/small  Deleted\n"
        assert process.wait(30) == exits.OK
    finally:
        process.kill()
        process.wait()


def account(cluster: Cluster, namespace: str, *rules: dict[str, object]) -> Path:
    """A kubeconfig of somebody who may do only this."""
    cluster.kubectl("create", "serviceaccount", "kim", "-n", namespace)
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "kim"}, "rules": rules}
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(role))
    cluster.kubectl("create", "rolebinding", "kim", "-n", namespace, "--role=kim", f"--serviceaccount={namespace}:kim")
    return cluster.service_account_kubeconfig(namespace, "kim")


def may_soon(perseid: Perseid, *arguments: str | Path) -> Result:
    """The first answer that is not `you may not`: the authorizer sees a new role a moment later."""
    limit = time.monotonic() + 20
    while (result := perseid(*arguments)).exit_code != exits.OK and time.monotonic() < limit:
        pass
    return result


def test_who_may_only_read_is_told_which_verb_is_missing(kind: Cluster, namespace: str, perseid: Perseid) -> None:
    apply(kind, ClusterRun(), namespace)
    config = account(kind, namespace, {"apiGroups": ["perseid.dev"], "resources": ["evolutionruns"], "verbs": ["get"]})
    assert may_soon(perseid, "get", "small", "--kubeconfig", config).exit_code == exits.OK
    refused = perseid("suspend", "small", "--kubeconfig", config)
    assert refused.exit_code == exits.MISTAKE
    assert f"you may not patch evolutionruns small in namespace {namespace}" in refused.stderr
    listed = perseid("get", "--kubeconfig", config)
    assert f"you may not list evolutionruns in namespace {namespace}" in listed.stderr
    absent = perseid("describe", "smal", "--kubeconfig", config)
    assert "there is no EvolutionRun smal" in absent.stderr
    assert "small" not in absent.stderr.replace("smal ", "")
    wrong = json.loads(config.read_text())
    wrong["users"][0]["user"]["token"] += "x"
    config.write_text(json.dumps(wrong))
    assert "Log in again" in perseid("get", "--kubeconfig", config).stderr


def test_logs_find_the_pods_and_say_why_one_does_not_start(kind: Cluster, namespace: str, perseid: Perseid) -> None:
    run = ClusterRun().running()
    apply(kind, run, namespace)
    raw = stage("convert", run.run_id, namespace=namespace)
    raw |= {"apiVersion": "v1", "kind": "Pod"}
    raw.pop("status")
    raw["metadata"].pop("creationTimestamp")
    kind.kubectl("create", "serviceaccount", "stages", "-n", namespace)
    raw["spec"] |= {"serviceAccountName": "stages", "nodeSelector": {"perseid.dev/no-such": "node"}}
    kind.kubectl("apply", "-f", "-", input=json.dumps(raw))
    result = perseid("logs", "small")  # no node is such, so it stays pending
    assert result.exit_code == exits.OK, result.output
    assert "convert has not started: " in result.stderr


def test_a_cluster_without_the_kind_is_told_to_install_the_operator(
    own_cluster: Cluster, kind: Cluster, perseid: Perseid
) -> None:
    # Only where the cluster is the tests' own: every EvolutionRun in it goes with the kind.
    kind.kubectl("delete", "crd", crd_objects.CRD_NAME, "--timeout=60s")
    try:
        assert "is not installed" in perseid("get").stderr
        assert "is not installed" in perseid("describe", "small").stderr
    finally:
        crd_objects._install.cache_clear()
        crd_objects.install_crd(kind)
