"""What ends a run from outside its generations: its deadline and its budget; and how long it has been at work."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from perseid.api.lifecycle import LifecycleSpec
from perseid.api.reasons import AttemptState, Reason
from perseid.api.result import MentorBudget
from perseid.api.status import EvolutionRunStatus

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that is reached."""

    reason: Reason
    message: str


def active_seconds(status: EvolutionRunStatus, now: datetime) -> float:
    """Time since the run began, without its pauses."""
    if status.started_at is None:
        return 0.0
    paused = float(status.suspended_seconds)
    if status.suspended_at is not None:
        paused += max(0.0, (now - status.suspended_at).total_seconds())
    return max(0.0, (now - status.started_at).total_seconds() - paused)


def breach(spec: LifecycleSpec, status: EvolutionRunStatus, now: datetime) -> Breach | None:
    """The limit that the run has reached, if any."""
    deadline = spec.active_deadline_seconds
    if deadline is not None and status.started_at is not None and active_seconds(status, now) >= deadline:
        return Breach(
            Reason.DEADLINE_EXCEEDED,
            f"The run has taken {deadline} s, pauses not counted, which is activeDeadlineSeconds.",
        )
    used = status.usage
    running = 0.0 if status.current is None else status.current.gpu_seconds
    hours = spec.budget.gpu_hours
    if hours is not None and used.gpu_seconds + running >= hours * HOUR:
        spent = (used.gpu_seconds + running) / HOUR
        return Breach(Reason.BUDGET_EXCEEDED, f"{spent:.2f} GPU hours are used; budget.gpuHours is {hours:g}.")
    cost = spec.budget.mentor_cost
    if cost is not None and used.cost >= cost:
        return Breach(Reason.BUDGET_EXCEEDED, f"Mentors have cost {used.cost:.2f}; budget.mentorCost is {cost:g}.")
    tokens = spec.budget.mentor_tokens
    if tokens is not None and used.mentor_tokens >= tokens:
        return Breach(
            Reason.BUDGET_EXCEEDED,
            f"Mentors have used {used.mentor_tokens:,} tokens; budget.mentorTokens is {tokens:,}.",
        )
    return None


def is_spent(spec: LifecycleSpec, budget: MentorBudget | None) -> bool:
    """Whether that budget, which an attempt could not get on with, is still all that the run has. Where it was raised
    meanwhile, another attempt has more."""
    return budget == MentorBudget.of(spec.budget)


def waits_too_long(spec: LifecycleSpec, status: EvolutionRunStatus, now: datetime) -> bool:
    """Whether the attempt under way has waited for its first pod longer than it may."""
    return _start_deadline(spec, status) is not None and _until(_start_deadline(spec, status), now) <= 0


def seconds_to_limit(spec: LifecycleSpec, status: EvolutionRunStatus, now: datetime) -> float | None:
    """When the next deadline is to be looked at; None where there is none."""
    left = []
    if spec.active_deadline_seconds is not None and status.started_at is not None:
        left.append(spec.active_deadline_seconds - active_seconds(status, now))
    start = _start_deadline(spec, status)
    if start is not None:
        left.append(_until(start, now))
    # A clock that was set back must not make anybody wait for ever, nor look without a pause.
    return max(1.0, min(left)) if left else None


def _start_deadline(spec: LifecycleSpec, status: EvolutionRunStatus) -> datetime | None:
    current, generation = status.current, status.generation
    if spec.start_deadline_seconds is None or current is None or generation is None:
        return None
    if generation.attempts[-1].state not in (AttemptState.SUBMITTING, AttemptState.PENDING):
        return None
    return current.intent_time + timedelta(seconds=spec.start_deadline_seconds)


def _until(moment: datetime | None, now: datetime) -> float:
    return float("inf") if moment is None else (moment - now).total_seconds()
