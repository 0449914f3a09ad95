from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
from cluster_access import Cluster, KubectlError
from control_plane import KUBECONFIG_VARIABLE, ControlPlane, open_cluster
from crd_objects import wait_until_established
from kubernetes_asyncio import client as kubernetes

HERE = Path(__file__).parent
WAIT_SECONDS = 60
READER = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "reader"},
    "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}],
}


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await holds():  # noqa: ASYNC110  # What is waited for here tells nobody.
            await asyncio.sleep(0.05)


def make_service_account(cluster: Cluster, namespace: str, name: str) -> Path:
    cluster.kubectl("create", "serviceaccount", name, "-n", namespace)
    return cluster.service_account_kubeconfig(namespace, name)


def allow_to_read(cluster: Cluster, namespace: str, account: str) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(READER))
    subject = f"--serviceaccount={namespace}:{account}"
    cluster.kubectl("create", "rolebinding", account, "--role=reader", subject, "-n", namespace)


def make_owned_configmap(cluster: Cluster, namespace: str, owner: dict[str, Any]) -> None:
    keys = {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
    reference = {**keys, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    owned = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": [reference]}}
    cluster.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(owned))


async def test_the_api_server_answers_its_administrator(cluster: Cluster) -> None:
    async with cluster.client() as client:
        version = await kubernetes.VersionApi(client).get_code()
        review = kubernetes.V1SelfSubjectAccessReview(
            spec=kubernetes.V1SelfSubjectAccessReviewSpec(
                resource_attributes=kubernetes.V1ResourceAttributes(group="*", resource="*", verb="*")
            )
        )
        answer = await kubernetes.AuthorizationV1Api(client).create_self_subject_access_review(review)
    assert int(version.minor.rstrip("+")) >= 30
    assert answer.status.allowed


def test_kubectl_applies_reads_and_says_what_was_wrong(cluster: Cluster, namespace: str) -> None:
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made"}, "data": {"key": "värde"}}
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(made))
    assert cluster.kubectl("get", "configmap", "made", "-n", namespace, "-o", "jsonpath={.data.key}") == "värde"
    with pytest.raises(KubectlError, match='configmaps "absent" not found'):
        cluster.kubectl("get", "configmap", "absent", "-n", namespace)
    with pytest.raises(KubectlError, match="strict decoding error"):
        cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps({**made, "date": {}}))


def test_the_namespace_is_there_and_empty(cluster: Cluster, namespace: str) -> None:
    assert cluster.kubectl("get", "namespace", namespace, "-o", "jsonpath={.status.phase}") == "Active"
    assert cluster.kubectl("get", "pods,secrets", "-n", namespace, "-o", "name") == ""


@pytest.mark.slow  # The controller looks a second time, five seconds later.
def test_a_deleted_namespace_goes_with_all_that_is_in_it(cluster_with_controllers: Cluster) -> None:
    cluster = cluster_with_controllers
    name = f"perseid-test-goes-{os.urandom(4).hex()}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("create", "configmap", "inside", "-n", name)
    cluster.kubectl("delete", "namespace", name, f"--timeout={WAIT_SECONDS}s")  # Waits for its end.
    with pytest.raises(KubectlError, match="not found"):
        cluster.kubectl("get", "namespace", name)


def test_an_owned_object_is_collected_when_its_owner_goes(cluster_with_controllers: Cluster, namespace: str) -> None:
    cluster = cluster_with_controllers
    cluster.kubectl("create", "configmap", "owner", "-n", namespace)
    owner = json.loads(cluster.kubectl("get", "configmap", "owner", "-n", namespace, "-o", "json"))
    make_owned_configmap(cluster, namespace, owner)
    cluster.kubectl("delete", "configmap", "owner", "-n", namespace)
    cluster.kubectl("wait", "--for=delete", "configmap/owned", "-n", namespace, f"--timeout={WAIT_SECONDS}s")
    with pytest.raises(KubectlError, match="not found"):
        cluster.kubectl("get", "configmap", "owned", "-n", namespace)


@pytest.mark.slow  # The controllers start again, and look for what there is.
def test_what_an_object_of_a_new_kind_owns_is_collected_too(cluster_with_controllers: Cluster, namespace: str) -> None:
    cluster = cluster_with_controllers
    group = f"{namespace}.example.org"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"owners.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "owners", "singular": "owner", "kind": "Owner"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    owner = {"apiVersion": f"{group}/v1", "kind": "Owner", "metadata": {"name": "owner"}}
    cluster.kubectl("create", "-f", "-", input=json.dumps(definition))
    try:
        wait_until_established(cluster, f"owners.{group}")
        cluster.notice_new_kinds()
        made = cluster.kubectl("create", "-n", namespace, "-o", "json", "-f", "-", input=json.dumps(owner))
        make_owned_configmap(cluster, namespace, json.loads(made))
        cluster.kubectl("delete", f"owners.{group}", "owner", "-n", namespace)
        cluster.kubectl("wait", "--for=delete", "configmap/owned", "-n", namespace, f"--timeout={WAIT_SECONDS}s")
    finally:
        cluster.kubectl("delete", "crd", f"owners.{group}", "--wait=false")
    with pytest.raises(KubectlError, match="not found"):
        cluster.kubectl("get", "configmap", "owned", "-n", namespace)


async def test_a_service_account_may_do_what_its_role_says_and_nothing_else(cluster: Cluster, namespace: str) -> None:
    kubeconfig = make_service_account(cluster, namespace, "stranger")
    async with cluster.client(kubeconfig) as client:
        core = kubernetes.CoreV1Api(client)
        with pytest.raises(kubernetes.ApiException) as refused:
            await core.list_namespaced_config_map(namespace)
        assert refused.value.status == 403
        assert f"system:serviceaccount:{namespace}:stranger" in str(refused.value.body)
        allow_to_read(cluster, namespace, "stranger")

        async def is_allowed() -> bool:
            try:
                await core.list_namespaced_config_map(namespace)
            except kubernetes.ApiException as error:
                if error.status != 403:
                    raise
                return False
            return True

        await eventually(is_allowed)  # The authorizer learns of a new role by a watch.
        with pytest.raises(kubernetes.ApiException) as refused:
            await core.delete_collection_namespaced_config_map(namespace)
        assert refused.value.status == 403
        with pytest.raises(kubernetes.ApiException) as refused:
            await core.list_namespaced_config_map("default")
        assert refused.value.status == 403


def test_kubectl_can_be_somebody_else(cluster: Cluster, namespace: str) -> None:
    kubeconfig = make_service_account(cluster, namespace, "somebody")
    who = cluster.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=kubeconfig)
    assert who == f"system:serviceaccount:{namespace}:somebody"
    assert kubeconfig.stat().st_mode & 0o077 == 0


async def test_a_kopf_operator_runs_as_a_service_account(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = make_service_account(cluster, namespace, "operator")
    allow_to_read(cluster, namespace, "operator")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    registry = kopf.OperatorRegistry()
    seen = asyncio.Event()

    @kopf.on.login(registry=registry)
    def login(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(settings=settings)

    @kopf.on.event("", "v1", "configmaps", registry=registry)
    async def see(name: str, **_: Any) -> None:
        if name == "shown":
            seen.set()

    @kopf.on.startup(registry=registry)
    async def ask_for_no_more_than_the_role_gives(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True  # Kopf would retry for a minute what a Role cannot allow.

    stop = asyncio.Event()
    operator = asyncio.create_task(
        kopf.operator(registry=registry, namespaces=[namespace], standalone=True, stop_flag=stop)
    )
    await asyncio.to_thread(cluster.kubectl, "create", "configmap", "shown", "-n", namespace)
    waiting = asyncio.create_task(seen.wait())
    await asyncio.wait([operator, waiting], timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    stop.set()
    await operator
    assert seen.is_set()


@pytest.mark.slow  # An API server ends and another one starts.
def test_a_restart_keeps_objects_addresses_and_tokens(own_cluster: ControlPlane, namespace: str) -> None:
    kubeconfig = make_service_account(own_cluster, namespace, "lasting")
    own_cluster.kubectl("create", "configmap", "lasting", "-n", namespace)
    before, url = own_cluster.pids, own_cluster.url
    own_cluster.restart_api_server()
    after = own_cluster.pids
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == ["kube-apiserver"]
    assert own_cluster.url == url
    own_cluster.kubectl("get", "configmap", "lasting", "-n", namespace)
    own_cluster.kubectl("auth", "whoami", kubeconfig=kubeconfig)


@pytest.mark.slow  # An API server ends and another one starts.
async def test_a_killed_api_server_refuses_connections_until_it_is_back(
    own_cluster: ControlPlane, namespace: str
) -> None:
    own_cluster.kubectl("create", "configmap", "lasting", "-n", namespace)
    with own_cluster.api_server_down(killed=True):
        async with own_cluster.client() as client:
            with pytest.raises(aiohttp.ClientConnectorError):
                await kubernetes.CoreV1Api(client).list_namespace()
        with pytest.raises(KubectlError, match="kube-apiserver does not run; the end of"):
            own_cluster.kubectl("get", "namespaces")
    own_cluster.kubectl("get", "configmap", "lasting", "-n", namespace)


async def test_a_paused_api_server_takes_connections_and_answers_later(own_cluster: ControlPlane) -> None:
    async with own_cluster.client() as client:
        core = kubernetes.CoreV1Api(client)
        await core.read_namespace("default")
        with own_cluster.api_server_paused():
            asked = asyncio.ensure_future(core.read_namespace("default"))
            done, _ = await asyncio.wait([asked], timeout=0.5)
            assert not done
        assert (await asyncio.wait_for(asked, WAIT_SECONDS)).metadata.name == "default"


@pytest.mark.slow  # A second control plane starts beside the first.
def test_a_control_plane_does_not_outlive_a_killed_starter(own_cluster: ControlPlane, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "control_plane.py"), "run"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as starter:
        assert starter.stdout is not None
        started = json.loads(starter.stdout.readline())
        assert started["pids"].keys() == own_cluster.pids.keys()
        assert started["url"] != own_cluster.url
        ends = {os.pidfd_open(pid): name for name, pid in started["pids"].items()}
        assert select.select(list(ends), [], [], 0)[0] == []
        starter.kill()
        deadline = time.monotonic() + WAIT_SECONDS
        for end, name in ends.items():
            assert select.select([end], [], [], max(0, deadline - time.monotonic()))[0], f"{name} still runs"
            os.close(end)
    own_cluster.kubectl("get", "namespaces")


def test_a_cluster_that_a_kubeconfig_names_is_used_and_not_stopped(
    own_cluster: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    environment = {**os.environ, KUBECONFIG_VARIABLE: str(own_cluster.kubeconfig)}
    with open_cluster(environment, tmp_path, print) as named:
        assert not isinstance(named, ControlPlane)
        assert named.url == own_cluster.url
        kubeconfig = make_service_account(named, namespace, "guest")
        who = named.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=kubeconfig)
        assert who == f"system:serviceaccount:{namespace}:guest"
    own_cluster.kubectl("get", "namespaces")


def test_a_named_kubeconfig_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    environment = {**os.environ, KUBECONFIG_VARIABLE: str(tmp_path / "absent")}
    with pytest.raises(FileNotFoundError, match="correct or unset it"):
        open_cluster(environment, tmp_path, print)


def test_without_go_and_cluster_tests_are_skipped_and_the_summary_says_what_to_install(tmp_path: Path) -> None:
    """A second: a pytest of its own."""
    (tmp_path / "test_wish.py").write_text("def test_wish(cluster):\n    raise AssertionError\n")
    environment = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, "-m", "pytest", "-p", "cluster_fixtures", "-p", "no:cacheprovider", "test_wish.py"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 skipped, 1 warning" in done.stdout
    assert "SKIPPED every test that needs Kubernetes" in done.stdout
    assert "install Go" in done.stdout
