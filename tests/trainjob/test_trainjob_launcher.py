"""The launcher on a real API server that knows Trainer's own TrainJobs. What Trainer would do is done by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from audited_rights import rights_in, rights_used
from cluster_access import Cluster, KubectlError
from control_plane import ControlPlane
from crd_objects import wait_until_established
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from trainjob_attempts import EVERYTHING, attempt

from perseid_trainjob import jobs as jobs_module
from perseid_trainjob.errors import TrainJobError
from perseid_trainjob.jobs import TrainJobs
from perseid_trainjob.launcher import launch
from perseid_trainjob.manifest import LauncherPod, job_name, train_job

REPOSITORY = Path(__file__).parents[2]
CRD = Path(__file__).with_name("trainjob-crd.yaml")
ROLE = REPOSITORY / "manifests" / "train-jobs" / "role.yaml"
PATIENCE_SECONDS = 90.0
TOLD = attempt()
NAME = job_name(TOLD, "finetune")


@pytest.fixture(scope="module")
def trainer(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the kind TrainJob, and nobody who does anything about one."""
    cluster.kubectl("apply", "--server-side", "-f", str(CRD))
    wait_until_established(cluster, "trainjobs.trainer.kubeflow.org")
    cluster.notice_new_kinds()
    yield cluster
    cluster.kubectl("delete", "-f", str(CRD), "--wait=false")


class World:
    """A namespace with a launcher's pod and its service account's rights."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.kubectl("create", "serviceaccount", "pipeline-runner")
        self.kubectl("apply", "-f", str(ROLE))
        self.kubeconfig = cluster.service_account_kubeconfig(namespace, "pipeline-runner")
        self.pod = self.new_pod("launcher")
        self.steps: list[Callable[[], None]] = []

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, input=input)

    def new_pod(self, name: str) -> LauncherPod:
        """A pod that no node takes."""
        spec = {
            "serviceAccountName": "pipeline-runner",
            "schedulingGates": [{"name": "perseid.dev/never"}],
            "containers": [{"name": "main", "image": "none"}],
        }
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        made = json.loads(self.kubectl("create", "-f", "-", "-o", "json", input=json.dumps(manifest)))
        return LauncherPod(name, made["metadata"]["uid"], self.namespace)

    def jobs(self) -> TrainJobs:
        return TrainJobs(config.new_client_from_config(str(self.kubeconfig)), self.namespace, self.sleep)

    def launch(self, *steps: Callable[[], None], pod: LauncherPod | None = None) -> None:
        """Launch, with one of the steps wherever the launcher waits."""
        self.steps = list(steps)
        launch(TOLD, "finetune", pod or self.pod, self.jobs(), self.sleep)
        assert not self.steps, "it did not wait as often"

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        assert self.steps, "it waits although nothing more will happen"
        self.steps.pop(0)()

    def job(self, name: str = NAME) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "trainjob", name, "-o", "json"))
        return found

    def names(self) -> list[str]:
        return [one.partition("/")[2] for one in self.kubectl("get", "trainjobs", "-o", "name").split()]

    def says(
        self, kind: str, reason: str = "Said", message: str = "so it is", status: str = "True"
    ) -> Callable[[], None]:
        """A step in which Trainer sets a condition."""
        condition = {
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }  # fmt: skip

        def set_it() -> None:
            old = [one for one in (self.job().get("status") or {}).get("conditions", []) if one["type"] != kind]
            patch = json.dumps({"status": {"conditions": [*old, condition]}})
            self.kubectl("patch", "trainjob", NAME, "--subresource=status", "--type=merge", "-p", patch)

        return set_it


@pytest.fixture
def world(trainer: Cluster, namespace: str) -> World:
    return World(trainer, namespace)


@pytest.mark.parametrize("pipeline", [{}, EVERYTHING])
@pytest.mark.parametrize("stage", ["finetune", "self-assessment"])
def test_trainers_own_schema_takes_every_trainjob_and_knows_all_its_fields(
    world: World, pipeline: dict[str, Any], stage: Any
) -> None:
    manifest = train_job(attempt(**pipeline), stage, world.pod)
    taken = json.loads(
        world.kubectl(
            "create", "--dry-run=server", "--validate=strict", "-f", "-", "-o", "json", input=json.dumps(manifest)
        )
    )
    assert taken["spec"]["trainer"] == manifest["spec"]["trainer"], "something was left out"
    assert taken["spec"]["runtimePatches"] == manifest["spec"]["runtimePatches"]
    manifest["spec"]["trainer"]["numberOfNodes"] = 4
    with pytest.raises(KubectlError, match="numberOfNodes"):
        world.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", input=json.dumps(manifest))


def test_a_trainjob_is_made_watched_and_deleted_when_it_is_complete(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    told: list[list[str]] = []
    world.launch(
        lambda: told.append(world.names()),
        world.says("Suspended"),
        world.says("Suspended", status="False"),
        world.says("Complete"),
    )
    assert told == [[NAME]]
    assert world.names() == []
    assert "is suspended" in caplog.text


def test_one_that_fails_is_told_with_trainers_words_and_deleted(world: World) -> None:
    with pytest.raises(TrainJobError, match=r"has failed \(DeadlineExceeded\): it took too long"):
        world.launch(world.says("Failed", "DeadlineExceeded", "it took too long"))
    assert world.names() == []


def test_one_that_somebody_deletes_is_told(world: World) -> None:
    with pytest.raises(TrainJobError, match="was deleted while it ran"):
        world.launch(lambda: world.kubectl("delete", "trainjob", NAME) and None)  # type: ignore[func-returns-value]


def test_one_that_a_killed_launcher_has_left_is_adopted_and_lives_as_long_as_either_pod(
    world: World, cluster_with_controllers: Cluster
) -> None:
    assert cluster_with_controllers is world.cluster
    world.jobs().ensure(train_job(TOLD, "finetune", world.pod), world.pod)
    uid = world.job()["metadata"]["uid"]
    second = world.new_pod("launcher-2")

    def first_pod_is_cleared_away() -> None:
        owners = {one["uid"] for one in world.job()["metadata"]["ownerReferences"]}
        assert owners == {world.pod.uid, second.uid}
        world.kubectl("delete", "pod", world.pod.name, "--wait=true", "--grace-period=0", "--force")

    def it_is_still_the_same() -> None:
        assert world.job()["metadata"]["uid"] == uid

    world.launch(first_pod_is_cleared_away, it_is_still_the_same, world.says("Complete"), pod=second)


def test_without_its_launchers_pod_a_trainjob_goes_away_by_itself(
    world: World, cluster_with_controllers: Cluster
) -> None:
    assert cluster_with_controllers is world.cluster
    world.jobs().ensure(train_job(TOLD, "finetune", world.pod), world.pod)
    world.kubectl("delete", "pod", world.pod.name, "--wait=true", "--grace-period=0", "--force")
    world.kubectl("wait", "--for=delete", f"trainjob/{NAME}", f"--timeout={PATIENCE_SECONDS:.0f}s")


def test_what_earlier_attempts_have_left_is_deleted_first_and_nothing_else(world: World) -> None:
    jobs = world.jobs()
    earlier, other = attempt(1), attempt(storage="s3://models/runs/other")
    for told in (earlier, other):
        jobs.ensure(train_job(told, "finetune", world.pod), world.pod)
    seen: list[list[str]] = []
    world.launch(lambda: seen.append(world.names()), world.says("Complete"))
    assert seen == [sorted([NAME, job_name(other, "finetune")])]


def test_one_that_is_being_deleted_is_waited_for(world: World) -> None:
    manifest = train_job(TOLD, "finetune", world.pod)
    manifest["metadata"]["finalizers"] = ["perseid.dev/held"]
    world.kubectl("create", "-f", "-", input=json.dumps(manifest))
    world.kubectl("delete", "trainjob", NAME, "--wait=false")
    old = world.job()["metadata"]["uid"]

    def let_go() -> None:
        world.kubectl("patch", "trainjob", NAME, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')

    def is_new() -> None:
        assert world.job()["metadata"]["uid"] != old

    world.launch(let_go, is_new, world.says("Complete"))


def test_rights_that_are_missing_are_told_with_what_gives_them(world: World) -> None:
    world.kubectl("delete", "rolebinding", "perseid-train-jobs")
    with pytest.raises(TrainJobError, match=r"refuses to list TrainJobs.*manifests/train-jobs"):
        world.launch()


def test_the_rights_that_ship_are_those_that_the_launcher_uses(own_cluster: ControlPlane, world: World) -> None:
    jobs = world.jobs()
    jobs.ensure(train_job(attempt(1), "finetune", world.pod), world.pod)
    jobs.ensure(train_job(TOLD, "finetune", world.pod), world.pod)
    world.launch(world.says("Complete"), pod=world.new_pod("launcher-2"))
    assert world.names() == [], "the earlier attempt's was deleted, and the one that was adopted when it was complete"
    user = f"system:serviceaccount:{world.namespace}:pipeline-runner"
    assert rights_used(own_cluster, user) == rights_in(ROLE)


def test_what_trainer_does_not_take_is_told_at_once(world: World) -> None:
    manifest = train_job(TOLD, "finetune", world.pod)
    manifest["metadata"]["name"] = "9-not-a-name"
    with pytest.raises(TrainJobError, match=r"does not take the TrainJob.*RFC 1035"):
        world.jobs().ensure(manifest, world.pod)


def test_a_cluster_without_trainer_is_told(cluster: Cluster, namespace: str) -> None:
    api = config.new_client_from_config(str(cluster.kubeconfig))
    jobs = TrainJobs(api, namespace)
    jobs_in_another_group = client.CustomObjectsApi(api)

    def list_unknown(group: str, version: str, where: str, plural: str, **more: Any) -> Any:
        return jobs_in_another_group.list_namespaced_custom_object(f"not.{group}", version, where, plural, **more)

    jobs._api.list_namespaced_custom_object = list_unknown
    with pytest.raises(TrainJobError, match=r"knows no TrainJobs.*install Kubeflow Trainer"):
        jobs.names({})


def test_an_outage_of_the_api_server_is_waited_for_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    jobs = TrainJobs(client.ApiClient(client.Configuration(host="https://localhost:1")), "n", slept.append)
    answers: list[Any] = [ApiException(status=503, reason="busy"), ApiException(status=429, reason="slow"), {"a": "b"}]

    def get(*_: Any, **__: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(jobs._api, "get_namespaced_custom_object", get)
    assert jobs.get("x") == {"a": "b"}
    assert len(slept) == 2
    monkeypatch.setattr(jobs_module, "PATIENCE_SECONDS", 0.0)
    answers.append(ApiException(status=500, reason="broken"))
    with pytest.raises(TrainJobError, match=r"cannot be asked .get.: broken"):
        jobs.get("x")


def test_sigterm_deletes_the_trainjob_before_the_launcher_ends(world: World) -> None:
    script = f"""
import logging, sys
from kubernetes import config
from perseid.api.attempt import Attempt
from perseid_trainjob.component import end_on_sigterm
from perseid_trainjob.jobs import TrainJobs
from perseid_trainjob.launcher import launch
from perseid_trainjob.manifest import LauncherPod
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
end_on_sigterm()
pod = LauncherPod({world.pod.name!r}, {world.pod.uid!r}, {world.namespace!r})
jobs = TrainJobs(config.new_client_from_config({str(world.kubeconfig)!r}), pod.namespace)
launch(Attempt.model_validate_json({TOLD.model_dump_json(by_alias=True)!r}), "finetune", pod, jobs)
"""
    environment = {**os.environ, "PERSEID_DIE_WITH": str(os.getpid())}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any("made the TrainJob" in line for line in process.stdout), "it ended before"
        assert world.names() == [NAME]
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
        assert time.monotonic() - began < 20, "a pod is killed after 30"
    finally:
        process.kill()
        process.wait()
    assert world.names() == []
