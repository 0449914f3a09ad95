"""What a body shows to `decide`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from perseid.api.reasons import Reason, StageState
from perseid.api.result import GenerationResult, MentorBudget, ModelRef, PaidUsage
from perseid.api.stages import StageName
from perseid.api.status import Snapshot


class RunState(StrEnum):
    """What the backend says about a run."""

    PENDING = "Pending"
    RUNNING = "Running"
    """Also while it is being terminated."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"
    """The backend, or the storage that holds the result, could not be asked or gave no clear answer: wait."""
    MISSING = "Missing"
    """The backend says for certain that there is no such run."""

    @property
    def is_live(self) -> bool:
        """Whether the run uses or waits for resources."""
        return self in (RunState.PENDING, RunState.RUNNING)


@dataclass(frozen=True, slots=True)
class StageTime:
    """How long a stage has taken so far."""

    seconds: float
    """From its start to its end, or to now: a search in shards until they are joined."""
    gpu_seconds: float
    """GPUs times seconds, all pods together."""


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """One run."""

    state: RunState
    result: GenerationResult | None = None
    """Of a run that succeeded: its `result.json`."""
    result_error: str | None = None
    """Why the `result.json` cannot be trusted (`ResultError`); None where it is good or absent."""
    error: str | None = None
    """Why the run failed, for people."""
    reason: Reason = Reason.RUN_FAILED
    """Why the run failed, for rules."""
    failed_stage: StageName | None = None
    spent_budget: MentorBudget | None = None
    """The budget that kept the failed stage from getting on, where one did."""
    stages: Mapping[StageName, StageState] = field(default_factory=dict)
    """Stages that have begun."""
    waiting: Reason | None = None
    """What keeps its pods from running, AwaitingQuota or AwaitingPods; None where nothing does, or nobody knows."""
    waiting_message: str = ""
    """The same for people."""
    times: Mapping[StageName, StageTime] = field(default_factory=dict)
    """What each of them has taken, for whoever counts it."""
    gpu_seconds: float = 0.0
    """GPUs times seconds of its stages so far, from the start of each to its end, whether their pods ran or waited."""
    gpus_waiting: float = 0.0
    """Of the GPUs of the stages that run the part, 0 to 1, whose pods are seen to wait for a queue, a node or an image.
    0 where nobody sees it."""
    paid: PaidUsage | None = None
    """Of a run that failed: what mentors and judges have cost its generation so far; None where nobody knows."""
    url: str | None = None
    """Its page for people."""


@dataclass(frozen=True, slots=True)
class PipelineState:
    """Whether there is something to submit."""

    ready: bool = True
    snapshot: Snapshot | None = None
    """Of a pipeline that is compiled and frozen; None where the body compiles as it submits."""
    error: str | None = None
    """Why it never will be ready, and what to do."""


@dataclass(frozen=True, slots=True)
class StartModel:
    """The best model of the EvolutionRun that `spec.model.evolutionRun` names."""

    model: ModelRef | None
    """None while that run has none."""
    message: str = ""
    """Why there is none yet, and what to do."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that is seen at one moment."""

    runs: Mapping[str, ObservedRun] = field(default_factory=dict)
    """By run id; runs of this lineage only. A run that is not in here was not asked for: nothing follows from that."""
    backend_reachable: bool = True
    backend_reason: Reason = Reason.UNREACHABLE
    """Why the backend is not reachable: Unreachable, Unauthorized or RateLimited."""
    backend_message: str = ""
    """The same for people."""
    spec_generation: int = 0
    """`metadata.generation` of the spec; 0 where there is none."""
    pipeline: PipelineState = PipelineState()
    start_model: StartModel | None = None
    """None where the spec names no other run."""
    approved_generation: int | None = None
    """The newest generation that somebody has approved."""
    may_submit: bool = True
    """Whether a run can be submitted at once. A backend takes a few at a time; who has to wait writes no intent, which
    would be too old by the time that it could be acted on."""
