"""The texts that `kubectl get` shows, made of the status itself."""

from __future__ import annotations

from perseid.api.base import replace
from perseid.api.reasons import ConditionStatus, ConditionType, GenerationPhase
from perseid.api.spec import EvolutionRunSpec
from perseid.api.status import Columns, EvolutionRunStatus
from perseid.decide.limits import HOUR

_ORDER = (
    ConditionType.FAILED,
    ConditionType.COMPLETE,
    ConditionType.SUSPENDED,
    ConditionType.ACCEPTED,
    ConditionType.BACKEND_READY,
)


def with_columns(status: EvolutionRunStatus, spec: EvolutionRunSpec) -> EvolutionRunStatus:
    """The status with its columns."""
    ended = [one for one in status.generations if one.phase is not GenerationPhase.RUNNING]
    done = ended[-1].index + 1 if ended else 0
    scores = [one.result.dev_candidate for one in ended if one.result and one.result.dev_candidate is not None]
    running = 0.0 if status.current is None else status.current.gpu_seconds
    columns = Columns(
        generation=f"{done}/{spec.generations.max}",
        score=_score(scores[-1] if scores else None),
        best=_score(status.promoted_score),
        gpu_hours=f"{(status.usage.gpu_seconds + running) / HOUR:.1f}",
        reason=_reason(status),
        run=_run(status),
        link=status.url or "",
    )
    return status if columns == status.columns else replace(status, columns=columns)


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _run(status: EvolutionRunStatus) -> str:
    newest = status.generation
    return newest.attempts[-1].run_id if newest is not None and newest.attempts else ""


def _reason(status: EvolutionRunStatus) -> str:
    """What is the matter, the gravest first; what it is doing where nothing is."""
    for kind in _ORDER:
        condition = status.condition(kind)
        good = kind in (ConditionType.ACCEPTED, ConditionType.BACKEND_READY)
        wanted = ConditionStatus.FALSE if good else ConditionStatus.TRUE
        if condition is not None and condition.status is wanted:
            return condition.reason.value
    progressing = status.condition(ConditionType.PROGRESSING)
    return "" if progressing is None else progressing.reason.value
