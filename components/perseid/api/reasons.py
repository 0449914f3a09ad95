"""The closed sets of words in a status: phases, condition types and reasons. Scripts and alerts may rely on them."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where a run is, in one word. Completed and Failed are final."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETED = "Completed"
    FAILED = "Failed"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing will follow."""
        return self in (Phase.COMPLETED, Phase.FAILED)


class GenerationPhase(StrEnum):
    """Where a generation is."""

    RUNNING = "Running"
    PROMOTED = "Promoted"
    """Its model is the next generation's start."""
    REJECTED = "Rejected"
    """Its model was no better by the promotion rule."""
    SKIPPED = "Skipped"
    """It made no model, for lack of training data."""
    FAILED = "Failed"
    """All its attempts failed."""


class AttemptState(StrEnum):
    """Where one try at a generation is."""

    SUBMITTING = "Submitting"
    """Decided; no body has seen the run yet."""
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def is_over(self) -> bool:
        """Whether the attempt has ended."""
        return self in (AttemptState.SUCCEEDED, AttemptState.FAILED)


class StageState(StrEnum):
    """Where a stage of an attempt is."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ConditionType(StrEnum):
    """What a condition speaks of."""

    ACCEPTED = "Accepted"
    """What the run needs is there: its pipeline is compiled and frozen, its start model is known."""
    BACKEND_READY = "BackendReady"
    PROGRESSING = "Progressing"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


class ConditionStatus(StrEnum):
    """Kubernetes' three truth values."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(StrEnum):
    """Why a condition or an attempt is as it is."""

    RESOLVED = "Resolved"
    COMPILING = "Compiling"
    PIPELINE_INVALID = "PipelineInvalid"
    AWAITING_START_MODEL = "AwaitingStartModel"

    REACHABLE = "Reachable"
    UNREACHABLE = "Unreachable"
    UNAUTHORIZED = "Unauthorized"
    RATE_LIMITED = "RateLimited"

    SUBMITTING = "Submitting"
    GENERATION_IN_PROGRESS = "GenerationInProgress"
    AWAITING_PODS = "AwaitingPods"
    AWAITING_QUOTA = "AwaitingQuota"
    AWAITING_APPROVAL = "AwaitingApproval"
    STOPPING = "Stopping"
    RETRYING = "Retrying"
    FINISHED = "Finished"

    SUSPENDED = "Suspended"
    DRAINING = "Draining"
    NOT_SUSPENDED = "NotSuspended"

    IN_PROGRESS = "InProgress"
    MAX_GENERATIONS = "MaxGenerations"
    PATIENCE_USED_UP = "PatienceUsedUp"
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"
    FAILURE_POLICY = "FailurePolicy"
    BUDGET_EXCEEDED = "BudgetExceeded"

    RUN_FAILED = "RunFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """Of an attempt: one of its stages took too long. Of the run: it took longer than activeDeadlineSeconds."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    RESULT_MISSING = "ResultMissing"
    RESULT_INVALID = "ResultInvalid"
    START_DEADLINE_EXCEEDED = "StartDeadlineExceeded"
    INFRASTRUCTURE_FAULT = "InfrastructureFault"
    PREEMPTED = "Preempted"
    NODE_LOST = "NodeLost"
    RUN_LOST = "RunLost"


NOT_CHARGED = frozenset(
    {
        Reason.INFRASTRUCTURE_FAULT,
        Reason.PREEMPTED,
        Reason.NODE_LOST,
        Reason.RUN_LOST,
        Reason.SUSPENDED,
    }
)
"""Failures of an attempt that are not its own: they use up none of `spec.generations.maxAttempts`."""
