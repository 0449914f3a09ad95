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
from perseid.decide import ObservedRun, RunState
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


def gpu_seconds(run: KfpRun, pipeline: PipelineSpec, now: datetime) -> float:
    """GPUs times seconds of the stages so far. A stage of several tries counts its newest only: KFP tells no others.
    Shards count until the last of them ends, and a TrainJob's nodes from when its launcher has started."""
    total = 0.0
    for stage in STAGES:
        several = stage == SHARDED_STAGE and pipeline.shards > 1
        task = run.tasks.get(SHARDS_TASK if several else stage)
        if task is not None:
            pods = pipeline.shards if several else pipeline.nodes_of(stage)
            total += _seconds(task, now) * pipeline.stages.of(stage).gpus * pods
    return total


def _seconds(task: KfpTask, now: datetime) -> float:
    return 0.0 if task.start is None else max(0.0, ((task.end or now) - task.start).total_seconds())


def observed(run: KfpRun, pipeline: PipelineSpec, url: str | None, now: datetime) -> ObservedRun:
    """What KFP alone tells."""
    return ObservedRun(state=state_of(run), stages=stages_of(run), gpu_seconds=gpu_seconds(run, pipeline, now), url=url)


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


def waiting(
    workflows: Iterable[Mapping[str, Any]], pipeline: PipelineSpec, train_jobs: Iterable[Mapping[str, Any]] = ()
) -> Waiting | None:
    """What a run's Workflows and TrainJobs say that it waits for, a quota before anything else. None where nothing
    waits, or where nobody says for what: then it is a pod that was made just now.

    Argo copies into a node's message what keeps a container waiting and why no node fits. Of a pod that is gated it
    says nothing at all, so silence about a pod with a queue's label means that its queue has not let it in yet.
    """
    found = [one for workflow in workflows for one in _waiting(workflow, pipeline)]
    found += [one for job in train_jobs if (one := _suspended(job)) is not None]
    return next((one for one in found if one.quota), found[0] if found else None)


def _waiting(workflow: Mapping[str, Any], pipeline: PipelineSpec) -> Iterator[Waiting]:
    status = workflow.get("status") or {}
    if (workflow.get("spec") or {}).get("suspend"):
        queue = (workflow["metadata"].get("labels") or {}).get(QUEUE_LABEL)
        by = "" if queue is None else f" until the queue {queue} of Kueue has quota for it"
        yield Waiting(queue is not None, f"its Workflow {workflow['metadata']['name']} is suspended{by}")
    if status.get("phase") == "Pending" and status.get("message"):
        yield Waiting(bool(_QUOTA.search(status["message"])), status["message"])
    for node in nodes_of(workflow).values():
        if node.get("type") != "Pod" or node.get("phase") != "Pending":
            continue
        stage, said = _stage_of(node), node.get("message")
        joins = stage == SHARDED_STAGE and pipeline.shards > 1 and f".{SHARD}." not in str(node.get("name", ""))
        launches = stage is not None and pipeline.nodes_of(stage) > 1  # and the TrainJob is in the queue
        queue = None if stage is None or joins or launches else pipeline.queue_of(pipeline.stages.of(stage))
        if said:
            yield Waiting(bool(_QUOTA.search(said)), said, stage)
        elif queue is not None:
            yield Waiting(True, f"the pod of stage {stage} waits for quota in the queue {queue} of Kueue", stage)


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
