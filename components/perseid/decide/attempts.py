"""An attempt from its intent to its end: start it, follow it, and say what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from perseid.api.base import replace
from perseid.api.reasons import AttemptState, GenerationPhase, Reason
from perseid.api.result import GenerationResult, MentorBudget, ModelRef, PaidUsage
from perseid.api.stages import StageName
from perseid.api.status import (
    MAX_ATTEMPTS_INLINE,
    MAX_GENERATIONS_INLINE,
    MAX_STOPPING,
    NOTE_LIMIT,
    AttemptStatus,
    EvolutionRunStatus,
    GenerationStatus,
    Intent,
)
from perseid.decide.conditions import clip
from perseid.decide.identity import run_id_of
from perseid.decide.observed import ObservedRun, RunState

GPU_SECONDS_NOTED = 60.0
SUBMIT_SECONDS = 15.0
"""How long an intent may be acted on. Whoever is later writes it anew first, so that nobody has to guess when a run can
have been submitted: not later than this after the time that the status tells."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that came to nothing."""

    reason: Reason
    message: str
    stage: StageName | None = None
    """The stage that failed, where one did."""
    spent_budget: MentorBudget | None = None
    """The budget that kept the stage from getting on, where one did."""


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


def renew(status: EvolutionRunStatus, now: datetime) -> EvolutionRunStatus:
    """The status with its intent written anew, where it is too old to be acted on."""
    current = status.current
    if current is None or (now - current.intent_time).total_seconds() <= SUBMIT_SECONDS:
        return status
    generation = status.generations[-1]
    last = replace(generation.attempts[-1], submitted_at=now)
    generation = replace(generation, attempts=[*generation.attempts[:-1], last])
    return replace(with_generation(status, generation), current=replace(current, intent_time=now))


def with_generation(status: EvolutionRunStatus, generation: GenerationStatus) -> EvolutionRunStatus:
    """The status with its newest generation changed."""
    return replace(status, generations=[*status.generations[:-1], generation])


def with_attempt_state(generation: GenerationStatus, state: AttemptState, now: datetime) -> GenerationStatus:
    """The generation with its newest attempt in that state, and waiting for nothing."""
    finished_at = now if state.is_over else None
    attempt = replace(generation.attempts[-1], state=state, finished_at=finished_at, reason=None, message="")
    return replace(generation, attempts=[*generation.attempts[:-1], attempt])


def with_waiting(generation: GenerationStatus, run: ObservedRun | None) -> GenerationStatus:
    """The generation with what its newest attempt waits for, where that is known."""
    if run is None or run.waiting is None:
        return generation
    attempt = replace(generation.attempts[-1], reason=run.waiting, message=clip(run.waiting_message, NOTE_LIMIT))
    return replace(generation, attempts=[*generation.attempts[:-1], attempt])


def give_up(status: EvolutionRunStatus, failure: Failure, *, charged: bool, now: datetime) -> EvolutionRunStatus:
    """The status with the attempt under way ended by a failure. Its run, where it is alive, is a stray from now on."""
    generation = status.generations[-1]
    last = replace(
        generation.attempts[-1],
        state=AttemptState.FAILED,
        finished_at=now,
        reason=failure.reason,
        message=clip(failure.message, NOTE_LIMIT),
        charged=charged,
    )
    if failure.reason is Reason.SUSPENDED:
        faults = generation.infrastructure_faults  # somebody's wish, and nothing to be waited out
    else:
        faults = 0 if charged else generation.infrastructure_faults + 1
    generation = replace(
        generation,
        attempts=[*generation.attempts[:-1], last],
        charged_attempts=generation.charged_attempts + int(charged),
        infrastructure_faults=faults,
    )
    status = release(with_generation(status, generation))
    stopping = [*(one for one in status.stopping if one != last.run_id), last.run_id]
    return replace(status, stopping=stopping[-MAX_STOPPING:])


def forget_ended(status: EvolutionRunStatus, runs: Mapping[str, ObservedRun]) -> EvolutionRunStatus:
    """The status without those of its given up runs that are seen to have ended, or not to be there."""
    ended = {run_id for run_id, run in runs.items() if not run.state.is_live and run.state is not RunState.UNKNOWN}
    left = [run_id for run_id in status.stopping if run_id not in ended]
    return status if len(left) == len(status.stopping) else replace(status, stopping=left)


def release(status: EvolutionRunStatus) -> EvolutionRunStatus:
    """The status without an attempt under way; what that used is added up, and its page is kept with it."""
    current = status.current
    if current is None:
        return status
    usage = replace(status.usage, gpu_seconds=status.usage.gpu_seconds + current.gpu_seconds)
    generation = status.generations[-1]
    last = replace(generation.attempts[-1], url=current.url)
    status = with_generation(status, replace(generation, attempts=[*generation.attempts[:-1], last]))
    return replace(status, current=None, usage=usage)


def note(status: EvolutionRunStatus, run: ObservedRun | None) -> EvolutionRunStatus:
    """The status with what is seen of the run under way: its page, its stages, and what it has used and cost.

    GPU time is written when a minute of it has come together, or the run has ended: a status that changed with every
    look would be written with every look. No backend tells when pods have waited, so what has come since the last time
    is shared out as the pods are seen now: it is used or waited, and neither becomes less, whatever a backend says.
    """
    current = status.current
    if current is None or run is None or run.state in (RunState.UNKNOWN, RunState.MISSING):
        return status
    if run.paid is not None:
        status = with_paid(status, run.paid)
    new = max(0.0, run.gpu_seconds - current.gpu_seconds - current.gpu_seconds_waited)
    if run.state.is_live and new < GPU_SECONDS_NOTED:
        new = 0.0
    waited = new * run.gpus_waiting
    seen = replace(
        current,
        url=run.url or current.url,
        stages=dict(run.stages) or current.stages,
        gpu_seconds=current.gpu_seconds + new - waited,
        gpu_seconds_waited=current.gpu_seconds_waited + waited,
    )
    return status if seen == current else replace(status, current=seen)


def with_change(before: EvolutionRunStatus, status: EvolutionRunStatus, now: datetime) -> EvolutionRunStatus:
    """The status with the moment in it, where something else is seen of the run under way than before. What it uses
    is no change: a stage that hangs uses its GPUs, too."""
    if status.current is None or _seen_of(before) == _seen_of(status):
        return status
    return replace(status, current=replace(status.current, changed_at=now))


def _seen_of(status: EvolutionRunStatus) -> tuple[object, ...]:
    attempt = status.generations[-1].attempts[-1]
    return attempt.state, attempt.reason, None if status.current is None else status.current.stages


def with_paid(status: EvolutionRunStatus, paid: PaidUsage) -> EvolutionRunStatus:
    """The status with what mentors and judges have cost the newest generation, all attempts together, added up."""
    generation = status.generations[-1]
    counted, used = generation.paid, status.usage
    paid = PaidUsage(cost=max(counted.cost, paid.cost), tokens=max(counted.tokens, paid.tokens))
    if paid == counted:
        return status
    used = replace(
        used,
        cost=used.cost + (paid.cost - counted.cost),
        mentor_tokens=used.mentor_tokens + (paid.tokens - counted.tokens),
    )
    return replace(with_generation(status, replace(generation, paid=paid)), usage=used)


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
            return Failure(Reason.RUN_LOST, "the backend has lost the run")
        case RunState.FAILED:
            error = run.error or "the run failed without saying why"
            return Failure(run.reason, error, run.failed_stage, run.spent_budget)
        case RunState.SUCCEEDED:
            return _result_of(current, run)


def _result_of(current: Intent, run: ObservedRun) -> GenerationResult | Failure:
    if run.result_error is not None:
        return Failure(Reason.RESULT_INVALID, f"result.json cannot be trusted: {run.result_error}")
    if run.result is None:
        return Failure(Reason.RESULT_MISSING, "the run succeeded but left no result.json")
    said = (run.result.generation, run.result.attempt, run.result.run_id)
    if said != (current.generation, current.attempt, current.run_id):
        message = f"result.json is of generation {said[0]}, attempt {said[1]}, run {said[2]}"
        return Failure(Reason.RESULT_INVALID, message)
    return run.result
