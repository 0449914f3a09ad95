"""An attempt from its intent to its end: start it, follow it, and say what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from perseid.api.base import replace
from perseid.api.reasons import AttemptState, GenerationPhase, Reason
from perseid.api.result import GenerationResult, ModelRef
from perseid.api.status import (
    MAX_ATTEMPTS_INLINE,
    MAX_GENERATIONS_INLINE,
    NOTE_LIMIT,
    AttemptStatus,
    EvolutionRunStatus,
    GenerationStatus,
    Intent,
)
from perseid.decide.conditions import clip
from perseid.decide.identity import run_id_of
from perseid.decide.observed import ObservedRun, RunState


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that came to nothing."""

    reason: Reason
    message: str
    charged: bool


def begin(status: EvolutionRunStatus, start_model: ModelRef, now: datetime) -> EvolutionRunStatus:
    """Write the intent of the next attempt: of the newest generation where that is unfinished, else of a new one."""
    newest = status.generation
    if newest is not None and newest.phase is GenerationPhase.RUNNING:
        generation, number, earlier = newest, newest.attempts[-1].number + 1, status.generations[:-1]
    else:
        index = 0 if newest is None else newest.index + 1
        generation = GenerationStatus(
            index=index, phase=GenerationPhase.RUNNING, start_model=start_model, started_at=now
        )
        number, earlier = 0, [replace(past, attempts=past.attempts[-1:]) for past in status.generations]
    run_id = run_id_of(status.uid, generation.index, number)
    attempt = AttemptStatus(number=number, run_id=run_id, state=AttemptState.SUBMITTING, submitted_at=now)
    generation = replace(generation, attempts=[*generation.attempts, attempt][-MAX_ATTEMPTS_INLINE:])
    return replace(
        status,
        generations=[*earlier, generation][-MAX_GENERATIONS_INLINE:],
        current=Intent(generation=generation.index, attempt=number, run_id=run_id, intent_time=now),
    )


def with_generation(status: EvolutionRunStatus, generation: GenerationStatus) -> EvolutionRunStatus:
    """The status with its newest generation changed."""
    return replace(status, generations=[*status.generations[:-1], generation])


def with_attempt_state(
    generation: GenerationStatus, state: AttemptState, now: datetime, failure: Failure | None = None
) -> GenerationStatus:
    """The generation with its newest attempt in that state, and the failure counted."""
    attempt = replace(generation.attempts[-1], state=state, finished_at=now if state.is_over else None)
    if failure is not None:
        attempt = replace(
            attempt, reason=failure.reason, message=clip(failure.message, NOTE_LIMIT), charged=failure.charged
        )
        generation = replace(
            generation,
            charged_attempts=generation.charged_attempts + int(failure.charged),
            infrastructure_faults=0 if failure.charged else generation.infrastructure_faults + 1,
        )
    return replace(generation, attempts=[*generation.attempts[:-1], attempt])


def look(current: Intent, attempt: AttemptStatus, run: ObservedRun | None) -> AttemptState | Failure | GenerationResult:
    """What an observation means for the attempt: its state now, its failure, or its result."""
    if run is None or run.state is RunState.UNKNOWN:
        return attempt.state
    match run.state:
        case RunState.PENDING:
            # A backend may show an older state for a while; nothing goes back to waiting once it has run.
            return attempt.state if attempt.state is AttemptState.RUNNING else AttemptState.PENDING
        case RunState.RUNNING:
            return AttemptState.RUNNING
        case RunState.MISSING:
            if attempt.state is AttemptState.SUBMITTING:
                return attempt.state
            return Failure(Reason.RUN_LOST, "the backend has lost the run", charged=False)
        case RunState.FAILED:
            message = run.error or "the run failed without saying why"
            if run.infrastructure:
                return Failure(Reason.INFRASTRUCTURE_FAULT, message, charged=False)
            return Failure(Reason.RUN_FAILED, message, charged=True)
        case RunState.SUCCEEDED:
            return _result_of(current, run)


def _result_of(current: Intent, run: ObservedRun) -> GenerationResult | Failure:
    charged = not run.infrastructure
    if run.result_error is not None:
        return Failure(Reason.RESULT_INVALID, f"result.json cannot be trusted: {run.result_error}", charged)
    if run.result is None:
        return Failure(Reason.RESULT_MISSING, "the run succeeded but left no result.json", charged)
    said = (run.result.generation, run.result.attempt, run.result.run_id)
    if said != (current.generation, current.attempt, current.run_id):
        message = f"result.json is of generation {said[0]}, attempt {said[1]}, run {said[2]}"
        return Failure(Reason.RESULT_INVALID, message, charged)
    return run.result
