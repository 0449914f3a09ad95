"""From what KFP, Argo and the storage say about a run to what `decide` is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perseid.api.pipeline import QUEUE_LABEL, STAGE_LABEL, PipelineSpec
from perseid.api.reasons import StageState
from perseid.api.stages import SHARD, SHARDED_STAGE, SHARDS_TASK, STAGES, StageName, stage_of
from perseid.decide import ObservedRun, RunState, StageTime
from perseid_operator.causes import nodes_of
from perseid_operator.kfp import KfpRun, KfpRunState, KfpTask

_ENDED_BADLY = (KfpRunState.FAILED, KfpRunState.CANCELED, KfpRunState.SKIPPED)
_STAGE_STATES = {
    KfpRunState.SUCCEEDED: StageState.SUCCEEDED,
    KfpRunState.SKIPPED: StageState.SUCCEEDED,
    KfpRunState.RUNNING: StageState.RUNNING,
    KfpRunState.CANCELING: StageState.RUNNING,
    KfpRunState.FAILED: StageState.FAILED,
    KfpRunState.CANCELED: StageState.FAILED,
}


def state_of(run: KfpRun) -> RunState:
    """A run's state. Nothing has started while no task of the pipeline's own has: KFP calls it RUNNING all the same."""
    if run.state is KfpRunState.SUCCEEDED:
        return RunState.SUCCEEDED
    if run.state in _ENDED_BADLY:
        return RunState.FAILED
    if run.state is KfpRunState.CANCELING or any(task.state in _STAGE_STATES for task in run.tasks.values()):
        return RunState.RUNNING
    return RunState.PENDING


def stages_of(run: KfpRun) -> dict[StageName, StageState]:
    """The stages that have begun."""
    found: dict[StageName, StageState] = {}
    shards = run.tasks.get(SHARDS_TASK)
    if shards is not None and shards.state in _STAGE_STATES:
        state = _STAGE_STATES[shards.state]
        # What they have found is still to be joined.
        found[SHARDED_STAGE] = StageState.RUNNING if state is StageState.SUCCEEDED else state
    for stage in STAGES:
        task = run.tasks.get(stage)
        if task is not None and task.state in _STAGE_STATES:
            found[stage] = _STAGE_STATES[task.state]
    return found


def times_of(run: KfpRun, pipeline: PipelineSpec, now: datetime) -> dict[StageName, StageTime]:
    """What each stage has taken so far, from when KFP calls it running, which it does before its pods run. A stage of
    several tries counts its newest only: KFP tells no others. Shards have their GPUs until the last of them ends, and a
    TrainJob's nodes from when its launcher has started."""
    found: dict[StageName, StageTime] = {}
    for stage in STAGES:
        own = run.tasks.get(stage)
        working = run.tasks.get(SHARDS_TASK) if _is_sharded(stage, pipeline) else own
        first, last = working or own, own or working
        if first is not None and last is not None:
            whole = KfpTask(last.state, first.start, last.end)
            gpu_seconds = 0.0 if working is None else _seconds(working, now) * _gpus_of(stage, pipeline)
            found[stage] = StageTime(_seconds(whole, now), gpu_seconds)
    return found


def _is_sharded(stage: StageName, pipeline: PipelineSpec) -> bool:
    return stage == SHARDED_STAGE and pipeline.shards > 1


def _gpus_of(stage: StageName, pipeline: PipelineSpec) -> int:
    """Those of all pods of a stage together."""
    pods = pipeline.shards if _is_sharded(stage, pipeline) else pipeline.nodes_of(stage)
    return pipeline.stages.of(stage).gpus * pods


def _seconds(task: KfpTask, now: datetime) -> float:
    return 0.0 if task.start is None else max(0.0, ((task.end or now) - task.start).total_seconds())


def observed(run: KfpRun, pipeline: PipelineSpec, url: str | None, now: datetime) -> ObservedRun:
    """What KFP alone tells."""
    times = times_of(run, pipeline, now)
    used = sum(time.gpu_seconds for time in times.values())
    return ObservedRun(state=state_of(run), stages=stages_of(run), times=times, gpu_seconds=used, url=url)


def are_over(workflows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether none of a run's Workflows goes on, or there is none."""
    phases = ((workflow.get("status") or {}).get("phase") for workflow in workflows)
    return all(phase in ("Succeeded", "Failed", "Error") for phase in phases)


_QUOTA = re.compile(
    r"exceeded quota"  # Kubernetes' ResourceQuota: Argo tries to make the pod again and again
    r"|SchedulingGated|scheduling gates"
    r"|too many workflows are already running"  # Argo's own limit
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What keeps a run's pod from running."""

    quota: bool
    """Whether a quota has to become free; else a node, an image or a volume is what it lacks."""
    message: str
    """In words, for people."""
    stage: StageName | None = None
    """Whose pod it is, where it is a stage's."""


QUIET_SECONDS = 15.0
"""How long Argo may be silent about a pod that its queue lets in at once: it has to be scheduled, and seen by Argo."""


def waiting(
    workflows: Iterable[Mapping[str, Any]],
    pipeline: PipelineSpec,
    train_jobs: Iterable[Mapping[str, Any]],
    now: datetime,
) -> Waiting | None:
    """What a run's Workflows and TrainJobs say that it waits for, a quota before anything else. None where nothing
    waits, or where nobody says for what: then it is a pod that was made just now.

    Argo copies into a node's message what keeps a container waiting and why no node fits. Of a pod that is gated it
    says nothing at all, so silence about a pod with a queue's label means after a moment that its queue has not let it
    in yet.
    """
    found = [one for workflow in workflows for one in _waiting(workflow, pipeline, now)]
    found += [one for job in train_jobs if (one := _suspended(job)) is not None]
    return next((one for one in found if one.quota), found[0] if found else None)


def gpus_waiting(
    stages: Mapping[StageName, StageState],
    workflows: Iterable[Mapping[str, Any]],
    pipeline: PipelineSpec,
    train_jobs: Iterable[Mapping[str, Any]] = (),
) -> float:
    """Of the GPUs of the stages that run the part, 0 to 1, whose pods wait, whatever for."""
    gpus = {stage: _gpus_of(stage, pipeline) for stage, state in stages.items() if state is StageState.RUNNING}
    if not any(gpus.values()):
        return 0.0
    idle = sum(pod.gpus for workflow in workflows for pod in _pending(workflow, pipeline) if pod.stage in gpus)
    held = [one.stage for job in train_jobs if (one := _suspended(job)) is not None]
    idle += sum(gpus.get(stage, 0) for stage in held if stage is not None)
    return min(1.0, idle / sum(gpus.values()))


@dataclass(frozen=True, slots=True)
class _Pod:
    """A pod that does not run yet."""

    stage: StageName | None
    """None for a driver of KFP's."""
    gpus: int
    """That wait with it: a launcher has none itself, but there is no TrainJob before it runs."""
    queue: str | None
    """Kueue's, where it waits in one."""
    said: str | None
    """By Argo."""
    started: str | None
    """When Argo made it."""


def _pending(workflow: Mapping[str, Any], pipeline: PipelineSpec) -> Iterator[_Pod]:
    for node in nodes_of(workflow).values():
        if node.get("type") != "Pod" or node.get("phase") != "Pending":
            continue
        stage, gpus, queue = _stage_of(node), 0, None
        if stage is not None:
            sharded = _is_sharded(stage, pipeline)
            joins = sharded and f".{SHARD}." not in str(node.get("name", ""))
            launches = pipeline.nodes_of(stage) > 1  # and the TrainJob is in the queue
            if not joins:
                gpus = pipeline.stages.of(stage).gpus if sharded else _gpus_of(stage, pipeline)
            if not joins and not launches:
                queue = pipeline.queue_of(pipeline.stages.of(stage))
        yield _Pod(stage, gpus, queue, node.get("message"), node.get("startedAt"))


def _waiting(workflow: Mapping[str, Any], pipeline: PipelineSpec, now: datetime) -> Iterator[Waiting]:
    status = workflow.get("status") or {}
    if (workflow.get("spec") or {}).get("suspend"):
        queue = (workflow["metadata"].get("labels") or {}).get(QUEUE_LABEL)
        by = "" if queue is None else f" until the queue {queue} of Kueue has quota for it"
        yield Waiting(queue is not None, f"its Workflow {workflow['metadata']['name']} is suspended{by}")
    if status.get("phase") == "Pending" and status.get("message"):
        yield Waiting(bool(_QUOTA.search(status["message"])), status["message"])
    for pod in _pending(workflow, pipeline):
        if pod.said:
            yield Waiting(bool(_QUOTA.search(pod.said)), pod.said, pod.stage)
        elif pod.queue is not None and not _is_new(pod, now):
            message = f"the pod of stage {pod.stage} waits for quota in the queue {pod.queue} of Kueue"
            yield Waiting(True, message, pod.stage)


def _is_new(pod: _Pod, now: datetime) -> bool:
    return pod.started is not None and (now - datetime.fromisoformat(pod.started)).total_seconds() < QUIET_SECONDS


def _suspended(job: Mapping[str, Any]) -> Waiting | None:
    """What a TrainJob waits for: Kueue suspends those in its queues until they have quota."""
    metadata = job["metadata"]
    if not job["spec"].get("suspend") or metadata.get("deletionTimestamp"):
        return None
    labels = metadata.get("labels") or {}
    stage, queue = stage_of(str(labels.get(STAGE_LABEL))), labels.get(QUEUE_LABEL)
    name = f"the TrainJob {metadata['name']} of stage {stage}"
    if queue is None:
        return Waiting(False, f"{name} is suspended", stage)
    return Waiting(True, f"{name} waits for quota in the queue {queue} of Kueue", stage)


def _stage_of(node: Mapping[str, Any]) -> StageName | None:
    """A stage's pod is named after the way to it: `perseid-x7f2p.root.finetune.executor`. That to a shard's leads
    through a loop: `perseid-x7f2p.root.for-loop-2.iteration-iterations(0:0).iteration-item.synthesize-shard.executor`.
    """
    way = str(node.get("name", "")).split(".")
    return next((stage for part in way if (stage := stage_of(part)) is not None), None)
