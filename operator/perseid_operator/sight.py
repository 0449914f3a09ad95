"""From what KFP, Argo and the storage say about a run to what `decide` is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, get_args

from perseid.api.pipeline import PipelineSpec, StageName
from perseid.api.reasons import Reason, StageState
from perseid.decide import ObservedRun, RunState
from perseid_operator.kfp import KfpRun, KfpRunState, KfpTask

STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)

_ENDED_BADLY = (KfpRunState.FAILED, KfpRunState.CANCELED, KfpRunState.SKIPPED)
_STAGE_STATES = {
    KfpRunState.SUCCEEDED: StageState.SUCCEEDED,
    KfpRunState.SKIPPED: StageState.SUCCEEDED,
    KfpRunState.RUNNING: StageState.RUNNING,
    KfpRunState.CANCELING: StageState.RUNNING,
    KfpRunState.FAILED: StageState.FAILED,
    KfpRunState.CANCELED: StageState.FAILED,
}

_SIGNS: tuple[tuple[Reason, re.Pattern[str]], ...] = (
    (Reason.OUT_OF_MEMORY, re.compile(r"OOMKilled|out of memory|exit code 137", re.IGNORECASE)),
    (Reason.PREEMPTED, re.compile(r"preempt|evict|DisruptionTarget", re.IGNORECASE)),
    (
        Reason.NODE_LOST,
        re.compile(r"node (was )?(lost|not ready|shut)|NodeLost|NodeShutdown|pod (was )?deleted", re.IGNORECASE),
    ),
    (Reason.IMAGE_PULL_FAILED, re.compile(r"ErrImagePull|ImagePullBackOff|InvalidImageName", re.IGNORECASE)),
    (Reason.DEADLINE_EXCEEDED, re.compile(r"DeadlineExceeded|longer than (the )?specified deadline", re.IGNORECASE)),
)


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
    return {
        stage: _STAGE_STATES[task.state]
        for stage in STAGE_NAMES
        if (task := run.tasks.get(stage)) is not None and task.state in _STAGE_STATES
    }


def gpu_seconds(run: KfpRun, pipeline: PipelineSpec, now: datetime) -> float:
    """GPUs times seconds of the stages so far. A stage of several tries counts its newest only: KFP tells no others."""
    stages = pipeline.stages
    gpus = {
        "synthesize": stages.synthesize.gpus,
        "convert": stages.convert.gpus,
        "finetune": stages.finetune.gpus,
        "evaluate": stages.evaluate.gpus,
    }
    return sum(_seconds(task, now) * gpus.get(name, 0) for name, task in run.tasks.items())


def _seconds(task: KfpTask, now: datetime) -> float:
    return 0.0 if task.start is None else max(0.0, ((task.end or now) - task.start).total_seconds())


def observed(run: KfpRun, pipeline: PipelineSpec, url: str | None, now: datetime) -> ObservedRun:
    """What KFP alone tells."""
    return ObservedRun(state=state_of(run), stages=stages_of(run), gpu_seconds=gpu_seconds(run, pipeline, now), url=url)


def reason_in(messages: Iterable[str]) -> tuple[Reason, str] | None:
    """The first known cause in what pods and Workflows say, and the words it stands in."""
    for message in messages:
        for reason, sign in _SIGNS:
            if sign.search(message):
                return reason, message
    return None


def workflow_messages(workflows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Messages of a run's Workflow nodes that failed, and of the Workflow itself, the innermost first."""
    messages: list[str] = []
    for workflow in workflows:
        status = workflow.get("status") or {}
        nodes = (status.get("nodes") or {}).values()
        failed = [node for node in nodes if node.get("phase") in ("Failed", "Error") and node.get("message")]
        pods = [node["message"] for node in failed if node.get("type") == "Pod"]
        others = [node["message"] for node in failed if node.get("type") != "Pod"]
        own = [status["message"]] if status.get("message") else []
        messages += [*pods, *others, *own]
    return messages
