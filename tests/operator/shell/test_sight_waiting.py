"""What a run waits for, by what its Workflow says. The words are Argo's and Kubernetes' own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perseid.api.pipeline import QUEUE_LABEL, STAGE_LABEL, PipelineSpec
from perseid.api.reasons import StageState
from perseid.api.stages import StageName
from perseid_operator import sight
from perseid_operator.causes import reason_in, workflow_messages
from perseid_operator.sight import QUIET_SECONDS, Waiting, gpus_waiting

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)

PLAIN = PipelineSpec()
QUEUED = PipelineSpec.model_validate({"stages": {"finetune": {"gpus": 1, "labels": {QUEUE_LABEL: "research"}}}})
UNSCHEDULABLE = (
    "Unschedulable: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: 2 No"
    " preemption victims found for incoming pod."
)
OVER_QUOTA = (
    'pods "perseid-x7f2p-1" is forbidden: exceeded quota: team, requested: requests.nvidia.com/gpu=1, used:'
    " requests.nvidia.com/gpu=8, limited: requests.nvidia.com/gpu=8"
)
POSTPONED = "Workflow processing has been postponed because too many workflows are already running"


def node(task: str, phase: str, message: str | None = None, kind: str = "Pod") -> dict[str, Any]:
    """One of Argo's nodes: `task` is the way from the pipeline's root."""
    said = {} if message is None else {"message": message}
    return {"name": f"perseid-x7f2p.root.{task}", "type": kind, "phase": phase, **said}


def workflow(*nodes: dict[str, Any], **status: Any) -> dict[str, Any]:
    named = {str(number): one for number, one in enumerate(nodes)}
    return {
        "metadata": {"name": "perseid-x7f2p"},
        "spec": {"entrypoint": "entrypoint"},
        "status": {"phase": "Running", "nodes": named, **status},
    }


def waiting(
    workflows: Iterable[Mapping[str, Any]], pipeline: PipelineSpec, train_jobs: Iterable[Mapping[str, Any]] = ()
) -> Waiting | None:
    return sight.waiting(workflows, pipeline, train_jobs, NOW)


def test_a_pod_of_a_queue_of_which_argo_says_nothing_is_gated_and_waits_for_quota() -> None:
    gated = workflow(
        node("synthesize.executor", "Succeeded"),
        node("finetune", "Running", kind="DAG"),
        node("finetune.executor", "Pending"),
    )
    found = waiting([gated], QUEUED)
    assert found == Waiting(
        True, "the pod of stage finetune waits for quota in the queue research of Kueue", "finetune"
    )


def test_a_stage_whose_name_has_a_dash_is_known_by_its_node() -> None:
    pipeline = PipelineSpec.model_validate({"stages": {"selfAssessment": {"labels": {QUEUE_LABEL: "research"}}}})
    nodes = [node("mentor-supervised.executor", "Succeeded"), node("self-assessment.executor(0)", "Pending")]
    found = waiting([workflow(*nodes)], pipeline)
    message = "the pod of stage self-assessment waits for quota in the queue research of Kueue"
    assert found == Waiting(True, message, "self-assessment")


@pytest.mark.parametrize(("seconds", "waits"), [(0, False), (QUIET_SECONDS - 1, False), (QUIET_SECONDS, True)])
def test_a_pod_of_a_queue_that_was_made_just_now_is_about_to_be_let_in(seconds: float, waits: bool) -> None:
    started = (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    made = {**node("finetune.executor", "Pending"), "startedAt": started}
    assert (waiting([workflow(made)], QUEUED) is not None) is waits
    said = {**made, "message": OVER_QUOTA}
    assert waiting([workflow(said)], QUEUED) == Waiting(True, OVER_QUOTA, "finetune"), "words need no time"


@pytest.mark.parametrize("task", ["finetune.executor(0)", "finetune.executor"])
def test_a_pod_without_a_queue_of_which_argo_says_nothing_was_made_just_now(task: str) -> None:
    assert waiting([workflow(node(task, "Pending"))], PLAIN) is None


def test_a_driver_s_pod_is_in_no_queue_although_it_drives_a_stage_that_is() -> None:
    assert waiting([workflow(node("finetune-driver", "Pending"))], QUEUED) is None


def test_another_stage_s_queue_says_nothing() -> None:
    assert waiting([workflow(node("evaluate.executor", "Pending"))], QUEUED) is None


@pytest.mark.parametrize(
    ("message", "quota"),
    [
        (UNSCHEDULABLE, False),
        ("ContainerCreating", False),
        ("ImagePullBackOff: Back-off pulling image", False),
        ("Unschedulable: persistentvolumeclaim models not found", False),
        (OVER_QUOTA, True),
        ("SchedulingGated: Scheduling is blocked due to non-empty scheduling gates", True),
    ],
)
@pytest.mark.parametrize("pipeline", [PLAIN, QUEUED], ids=["no queue", "a queue"])
def test_what_argo_says_of_a_pod_that_waits_decides_whether_it_is_a_quota(
    message: str, quota: bool, pipeline: PipelineSpec
) -> None:
    found = waiting([workflow(node("finetune.executor", "Pending", message))], pipeline)
    assert found == Waiting(quota, message, "finetune")


def test_a_pod_that_runs_or_has_ended_waits_for_nothing() -> None:
    nodes = [
        node("finetune.executor", phase, "said") for phase in ("Running", "Succeeded", "Failed", "Error", "Omitted")
    ]
    assert waiting([workflow(*nodes)], QUEUED) is None


def test_what_is_no_pod_waits_for_its_pods_alone() -> None:
    nodes = [node("finetune", "Pending", UNSCHEDULABLE, kind) for kind in ("DAG", "TaskGroup", "Retry", "Plugin")]
    assert waiting([workflow(*nodes)], QUEUED) is None


def test_a_quota_is_told_before_what_another_pod_lacks() -> None:
    both = [node("convert.executor", "Pending", UNSCHEDULABLE), node("finetune.executor", "Pending")]
    found = waiting([workflow(*both)], QUEUED)
    assert found is not None
    assert (found.quota, found.stage) == (True, "finetune")


def test_a_workflow_that_argo_holds_back_waits_for_a_quota_of_argo_s() -> None:
    assert waiting([workflow(phase="Pending", message=POSTPONED)], PLAIN) == Waiting(True, POSTPONED)


def test_a_workflow_that_is_pending_for_another_reason_says_which() -> None:
    said = "Waiting for team/Mutex/train lock. Lock status: 0/1"
    assert waiting([workflow(phase="Pending", message=said)], PLAIN) == Waiting(False, said)


@pytest.mark.parametrize("queued", [True, False])
def test_a_suspended_workflow_waits_for_quota_where_it_has_a_queue_and_else_for_whoever_suspended_it(
    queued: bool,
) -> None:
    suspended = workflow()
    suspended["spec"]["suspend"] = True
    suspended["metadata"]["labels"] = {QUEUE_LABEL: "research"} if queued else {}
    found = waiting([suspended], PLAIN)
    assert found is not None
    assert found.quota is queued
    assert "perseid-x7f2p is suspended" in found.message


@pytest.mark.parametrize(
    "bare",
    [
        [],
        [{"metadata": {"name": "w"}}],
        [{"metadata": {"name": "w"}, "spec": {}, "status": {}}],
        [{"metadata": {"name": "w"}, "spec": None, "status": {"nodes": None, "phase": "Pending"}}],
        [workflow({"type": "Pod", "phase": "Pending"})],
    ],
    ids=["none", "new", "empty", "null", "a node without a name"],
)
def test_where_nothing_is_said_nothing_is_made_of_it(bare: list[dict[str, Any]]) -> None:
    assert waiting(bare, QUEUED) is None


def test_what_a_pod_waits_for_is_no_reason_of_a_failure() -> None:
    """The scheduler speaks of preemption wherever it finds no node."""
    assert reason_in(workflow_messages([workflow(node("finetune.executor", "Pending", UNSCHEDULABLE))])) is None


def test_a_shard_s_pod_waits_for_the_queue_of_its_stage_and_the_loop_s_drivers_for_none() -> None:
    pipeline = PipelineSpec.model_validate(
        {"shards": 2, "stages": {"synthesize": {"gpus": 1, "labels": {QUEUE_LABEL: "research"}}}}
    )
    loop = "for-loop-2.iteration-iterations(1:1).iteration-item.synthesize-shard"
    drivers = [node("for-loop-2.iteration-driver", "Pending"), node(f"{loop}-driver", "Pending")]
    assert waiting([workflow(*drivers)], pipeline) is None
    found = waiting([workflow(*drivers, node(f"{loop}.executor", "Pending"))], pipeline)
    message = "the pod of stage synthesize waits for quota in the queue research of Kueue"
    assert found == Waiting(True, message, "synthesize")


def test_the_run_s_queue_holds_pods_with_gpus_and_no_others() -> None:
    pipeline = PipelineSpec.model_validate({"queue": "research", "stages": {"finetune": {"gpus": 1}}})
    found = waiting([workflow(node("finetune.executor", "Pending"))], pipeline)
    assert found == Waiting(
        True, "the pod of stage finetune waits for quota in the queue research of Kueue", "finetune"
    )
    assert waiting([workflow(node("convert.executor", "Pending"))], pipeline) is None


def test_what_joins_shards_waits_in_no_queue() -> None:
    pipeline = PipelineSpec.model_validate({"queue": "research", "shards": 2, "stages": {"synthesize": {"gpus": 1}}})
    loop = "for-loop-2.iteration-iterations(1:1).iteration-item.synthesize-shard"
    found = waiting([workflow(node(f"{loop}.executor", "Pending"))], pipeline)
    assert found is not None
    assert found.quota
    assert waiting([workflow(node("synthesize.executor", "Pending"))], pipeline) is None


def test_what_launches_a_trainjob_waits_in_no_queue() -> None:
    pipeline = PipelineSpec.model_validate(
        {"queue": "research", "trainJob": {"numNodes": 2}, "stages": {"finetune": {"gpus": 1}, "evaluate": {"gpus": 1}}}
    )
    assert waiting([workflow(node("finetune.executor", "Pending"))], pipeline) is None
    assert waiting([workflow(node("evaluate.executor", "Pending"))], pipeline) is not None


def train_job(*, suspend: bool, queue: str | None = None, **metadata: str) -> dict[str, Any]:
    labels = {STAGE_LABEL: "finetune"} | ({} if queue is None else {QUEUE_LABEL: queue})
    return {"metadata": {"name": "mine-0-0", "labels": labels, **metadata}, "spec": {"suspend": suspend}}


def test_a_suspended_trainjob_of_a_queue_waits_for_quota_though_its_launcher_runs() -> None:
    launcher = workflow(node("finetune.executor", "Running"))
    found = waiting([launcher], PLAIN, [train_job(suspend=True, queue="research")])
    message = "the TrainJob mine-0-0 of stage finetune waits for quota in the queue research of Kueue"
    assert found == Waiting(True, message, "finetune")
    found = waiting([], PLAIN, [train_job(suspend=True)])
    assert found == Waiting(False, "the TrainJob mine-0-0 of stage finetune is suspended", "finetune")


def test_a_trainjob_that_runs_or_is_on_its_way_out_waits_for_nothing() -> None:
    going = train_job(suspend=True, queue="research", deletionTimestamp="2026-01-01T00:00:00Z")
    assert waiting([], PLAIN, [train_job(suspend=False, queue="research"), going]) is None


RUNS: dict[StageName, StageState] = {"convert": StageState.SUCCEEDED, "finetune": StageState.RUNNING}
SPREAD = PipelineSpec.model_validate(
    {"queue": "research", "trainJob": {"numNodes": 4}, "stages": {"finetune": {"gpus": 8}, "evaluate": {"gpus": 1}}}
)


@pytest.mark.parametrize("message", [None, UNSCHEDULABLE, "ContainerCreating", OVER_QUOTA])
def test_the_gpus_of_a_pod_that_does_not_run_yet_wait_whatever_for(message: str | None) -> None:
    assert gpus_waiting(RUNS, [workflow(node("finetune.executor", "Pending", message))], QUEUED) == 1.0
    assert gpus_waiting(RUNS, [workflow(node("finetune.executor", "Running", message))], QUEUED) == 0.0


def test_where_nobody_sees_a_pod_no_gpu_is_said_to_wait() -> None:
    assert gpus_waiting(RUNS, [], QUEUED) == 0.0
    assert gpus_waiting({}, [workflow(node("finetune.executor", "Pending"))], QUEUED) == 0.0


def test_a_pod_of_a_stage_without_gpus_or_of_one_that_has_not_begun_takes_no_part() -> None:
    stages: dict[StageName, StageState] = {**RUNS, "convert": StageState.RUNNING}
    nodes = [
        node("finetune.executor", "Running"),
        node("convert.executor", "Pending"),
        node("evaluate.executor", "Pending"),
    ]
    assert gpus_waiting(stages, [workflow(*nodes)], QUEUED) == 0.0


def test_of_shards_those_wait_whose_pods_do() -> None:
    pipeline = PipelineSpec.model_validate({"shards": 4, "stages": {"synthesize": {"gpus": 2}}})
    pods = [
        node(f"for-loop-2.iteration-iterations({n}:{n}).iteration-item.synthesize-shard.executor", phase)
        for n, phase in enumerate(("Running", "Pending", "Succeeded", "Pending"))
    ]
    assert gpus_waiting({"synthesize": StageState.RUNNING}, [workflow(*pods)], pipeline) == 0.5
    joins = workflow(node("synthesize.executor", "Pending"))
    assert gpus_waiting({"synthesize": StageState.RUNNING}, [joins], pipeline) == 0.0


def test_all_nodes_wait_while_their_trainjob_is_suspended_or_its_launcher_does_not_run() -> None:
    launcher = workflow(node("finetune.executor", "Running"))
    assert gpus_waiting(RUNS, [launcher], SPREAD, [train_job(suspend=True, queue="research")]) == 1.0
    assert gpus_waiting(RUNS, [launcher], SPREAD, [train_job(suspend=False, queue="research")]) == 0.0
    assert gpus_waiting(RUNS, [workflow(node("finetune.executor", "Pending"))], SPREAD) == 1.0
