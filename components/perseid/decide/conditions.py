"""Setting conditions the way Kubernetes wants them: one of each type, times that move only with the status."""

from __future__ import annotations

from datetime import datetime

from perseid.api.base import replace
from perseid.api.reasons import ConditionStatus, ConditionType, Reason
from perseid.api.status import Condition, EvolutionRunStatus

MESSAGE_LIMIT = 1024


def clip(text: str, limit: int) -> str:
    """The text within the status's bounds: its beginning and its end, since errors say the most in their last line."""
    if len(text) <= limit:
        return text
    head = limit // 3
    return f"{text[:head]} ... {text[-(limit - head - 5) :]}"


def with_condition(
    status: EvolutionRunStatus, type_: ConditionType, holds: bool, reason: Reason, message: str, now: datetime
) -> EvolutionRunStatus:
    """The status with the condition in it. The transition time stays unless the condition's status changes."""
    truth = ConditionStatus.TRUE if holds else ConditionStatus.FALSE
    old = status.condition(type_)
    new = Condition(
        type=type_,
        status=truth,
        reason=reason,
        message=clip(message, MESSAGE_LIMIT),
        last_transition_time=old.last_transition_time if old is not None and old.status is truth else now,
        observed_generation=status.observed_generation,
    )
    kept = [new if condition.type is type_ else condition for condition in status.conditions]
    return replace(status, conditions=kept if old is not None else [*kept, new])
