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


class ConditionType(StrEnum):
    """What a condition speaks of."""

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

    REACHABLE = "Reachable"
    UNREACHABLE = "Unreachable"

    SUBMITTING = "Submitting"
    GENERATION_IN_PROGRESS = "GenerationInProgress"
    RETRYING = "Retrying"
    FINISHED = "Finished"

    SUSPENDED = "Suspended"
    DRAINING = "Draining"
    NOT_SUSPENDED = "NotSuspended"

    IN_PROGRESS = "InProgress"
    MAX_GENERATIONS = "MaxGenerations"
    PATIENCE_USED_UP = "PatienceUsedUp"
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"

    RUN_FAILED = "RunFailed"
    RUN_LOST = "RunLost"
    INFRASTRUCTURE_FAULT = "InfrastructureFault"
    RESULT_MISSING = "ResultMissing"
    RESULT_INVALID = "ResultInvalid"
