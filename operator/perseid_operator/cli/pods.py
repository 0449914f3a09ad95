"""Which pod ran which stage, and what its container is about.

Pods of a pipeline run carry the run's id as a label. Neither label nor annotation of Kubeflow's own names the stage:
Argo's annotation holds the node's path (`WORKFLOW.root.self-assessment.executor`, with `(1)` for a retry), and the
arguments of a component made from a Python function name the function (`self_assessment`). The nodes of a TrainJob
carry a label of our own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from perseid.api.pipeline import STAGE_LABEL
from perseid.api.stages import SHARD, SHARDED_STAGE, STAGES, StageName, module_of
from perseid.api.stages import stage_of as stage_of_task

NODE_NAME = "workflows.argoproj.io/node-name"
CONTAINER, NODE_CONTAINER = "main", "node"
"""Of KFP's pods, and of the nodes of a TrainJob."""

_FUNCTION = "--function_to_execute"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAGE_OF_FUNCTION: Mapping[str, StageName] = {
    **{module_of(stage): stage for stage in STAGES},
    module_of(SHARD): SHARDED_STAGE,
}
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class StagePod:
    """A pod that runs, or ran, a stage."""

    namespace: str
    name: str
    stage: StageName
    container: str
    """Which of its containers does the work."""
    created: datetime
    phase: str
    started: bool
    """Whether its container has a log."""
    waiting: str
    """Why the container does not run yet; empty where it does."""
    ended: bool


def stage_pods(pods: list[Any]) -> list[StagePod]:
    """The pods (V1Pod) of stages, in the order of stages and of their tries. Drivers and other helpers are left out."""
    found = [_stage_pod(pod, stage) for pod in pods if (stage := stage_of(pod)) is not None]
    return sorted(found, key=lambda one: (STAGES.index(one.stage), one.created, one.name))


def stage_of(pod: Any) -> StageName | None:
    """The stage that a pod runs; None for any other pod."""
    names = {container.name for container in pod.spec.containers}
    if NODE_CONTAINER in names:
        return stage_of_task((pod.metadata.labels or {}).get(STAGE_LABEL, ""))
    if CONTAINER not in names:
        return None
    path = (pod.metadata.annotations or {}).get(NODE_NAME, "")
    parts = [re.sub(r"\([0-9]+\)$", "", part) for part in path.split(".")]
    if path:
        return stage_of_task(parts[-2]) if len(parts) >= 2 and parts[-1] == "executor" else None
    for container in pod.spec.containers:
        words = [*(container.command or []), *(container.args or [])]
        if container.name == CONTAINER and _FUNCTION in words[:-1]:
            return _STAGE_OF_FUNCTION.get(words[words.index(_FUNCTION) + 1])
    return None


def _stage_pod(pod: Any, stage: StageName) -> StagePod:
    status = pod.status
    containers = (status.container_statuses if status is not None else None) or []
    does = NODE_CONTAINER if STAGE_LABEL in (pod.metadata.labels or {}) else CONTAINER
    container = next((one for one in containers if one.name == does), None)
    state = None if container is None else container.state
    begun = state is not None and (state.running is not None or state.terminated is not None)
    phase = (status.phase if status is not None else None) or "Pending"
    return StagePod(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        stage=stage,
        container=does,
        created=pod.metadata.creation_timestamp or _EPOCH,
        phase=phase,
        started=begun,
        waiting="" if begun else _why_waiting(status, state, phase),
        ended=phase in _ENDED,
    )


def _why_waiting(status: Any, state: Any, phase: str) -> str:
    """`ImagePullBackOff: Back-off pulling image ...`, or why no node takes the pod."""
    if state is not None and state.waiting is not None and state.waiting.reason not in (None, "PodInitializing"):
        return ": ".join(one for one in (state.waiting.reason, state.waiting.message) if one)
    for one in (status.init_container_statuses if status is not None else None) or []:
        waiting = None if one.state is None else one.state.waiting
        if waiting is not None and waiting.reason not in (None, "PodInitializing"):
            return ": ".join(text for text in (waiting.reason, waiting.message) if text)
    for condition in (status.conditions if status is not None else None) or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return ": ".join(text for text in (condition.reason, condition.message) if text)
    said = ": ".join(text for text in (status.reason, status.message) if text) if status is not None else ""
    return said or f"its phase is {phase}"
