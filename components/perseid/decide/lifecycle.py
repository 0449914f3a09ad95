"""The phases of a run: accepted, running, suspended, completed, failed.

Completed and Failed are final: what a script has waited for must not change under it. A user who wants more generations
than a completed run had starts a new run from its best model.
"""

from __future__ import annotations

from datetime import datetime

from perseid.api.base import APPROVED_GENERATION, replace
from perseid.api.reasons import AttemptState, ConditionType, GenerationPhase, Phase, Reason
from perseid.api.spec import EvolutionRunSpec
from perseid.api.status import EvolutionRunStatus
from perseid.decide.conditions import with_condition
from perseid.decide.observed import Observed
from perseid.decide.retry import is_exhausted


def backend(status: EvolutionRunStatus, observed: Observed, now: datetime) -> EvolutionRunStatus:
    """Record whether the backend answers. Its absence is a condition and no failure."""
    if observed.backend_reachable:
        return with_condition(status, ConditionType.BACKEND_READY, True, Reason.REACHABLE, "The backend answers.", now)
    why = f" ({observed.backend_message})" if observed.backend_message else ""
    message = f"The backend does not answer{why}. Nothing is lost: the run goes on when it does."
    return with_condition(status, ConditionType.BACKEND_READY, False, observed.backend_reason, message, now)


def end_if_over(status: EvolutionRunStatus, spec: EvolutionRunSpec, now: datetime) -> EvolutionRunStatus:
    """Complete or fail the run where its newest generation calls for it."""
    newest, limits = status.generation, spec.generations
    if newest is None or status.current is not None:
        return status
    if newest.phase is GenerationPhase.RUNNING:
        return _exhausted(status, now) if is_exhausted(newest, limits) else status
    done = newest.index + 1
    if done >= limits.max:
        message = f"{_count(done, 'generation')} done. {status.best_model_message}"
        return _complete(status, Reason.MAX_GENERATIONS, message, now)
    if status.patience_used >= limits.patience:
        message = f"No promotion in {_count(status.patience_used, 'generation')}. {status.best_model_message}"
        return _complete(status, Reason.PATIENCE_USED_UP, message, now)
    return status


def _complete(status: EvolutionRunStatus, reason: Reason, message: str, now: datetime) -> EvolutionRunStatus:
    status = with_condition(status, ConditionType.COMPLETE, True, reason, message, now)
    return _finish(replace(status, phase=Phase.COMPLETED), "The run is complete.", now)


def _exhausted(status: EvolutionRunStatus, now: datetime) -> EvolutionRunStatus:
    newest = status.generations[-1]
    last = newest.attempts[-1]
    message = (
        f"Generation {newest.index} failed {_count(newest.charged_attempts, 'time')}, at last with {last.reason}: "
        f"{last.message}"
    )
    return fail(status, Reason.ATTEMPTS_EXHAUSTED, message, now)


def fail(status: EvolutionRunStatus, reason: Reason, message: str, now: datetime) -> EvolutionRunStatus:
    """The run has failed, and with it the generation that was under way."""
    newest, link = status.generation, ""
    if newest is not None and newest.phase is GenerationPhase.RUNNING:
        newest = replace(newest, phase=GenerationPhase.FAILED, finished_at=now)
        status = replace(status, generations=[*status.generations[:-1], newest])
        link = _link(newest.attempts[-1].url)
    said = message if message.endswith((".", "!", "?")) else f"{message}."
    told = f"{said} {_NEXT.get(reason, _START_ANEW)} {status.best_model_message}{link}"
    status = with_condition(replace(status, phase=Phase.FAILED), ConditionType.FAILED, True, reason, told, now)
    return _finish(status, "The run has failed.", now)


_START_ANEW = "Mend the cause and start a new run from the best model."
_NEXT = {
    Reason.PIPELINE_INVALID: "Correct it in a new EvolutionRun.",
    Reason.BUDGET_EXCEEDED: "Start a new run from the best model to go on with more.",
    Reason.DEADLINE_EXCEEDED: "Start a new run from the best model to go on for longer.",
}


def _finish(status: EvolutionRunStatus, message: str, now: datetime) -> EvolutionRunStatus:
    status = with_condition(status, ConditionType.PROGRESSING, False, Reason.FINISHED, message, now)
    if status.condition(ConditionType.SUSPENDED) is not None:
        status = with_condition(status, ConditionType.SUSPENDED, False, Reason.NOT_SUSPENDED, message, now)
    return replace(resume(status, now), finished_at=now)


def resume(status: EvolutionRunStatus, now: datetime) -> EvolutionRunStatus:
    """The pause, where there was one, is over: it is added to the others."""
    if status.suspended_at is None:
        return status
    paused = max(0, round((now - status.suspended_at).total_seconds()))
    return replace(status, suspended_at=None, suspended_seconds=status.suspended_seconds + paused)


def suspend(status: EvolutionRunStatus, may_run: bool, now: datetime) -> EvolutionRunStatus:
    """Hold the run: Suspended once nothing of it may be running, until then it drains or stops."""
    if may_run and status.current is None:
        message = "The pipeline run that was under way is being stopped."
        status = with_condition(status, ConditionType.SUSPENDED, False, Reason.STOPPING, message, now)
        return replace(status, phase=Phase.RUNNING)
    if may_run:
        link = "" if status.current is None else _link(status.current.url)
        message = f"The pipeline run that is under way may finish; nothing more is submitted.{link}"
        status = with_condition(status, ConditionType.SUSPENDED, False, Reason.DRAINING, message, now)
        return replace(status, phase=Phase.RUNNING)
    message = "Set spec.suspend to false to go on."
    status = with_condition(status, ConditionType.SUSPENDED, True, Reason.SUSPENDED, message, now)
    status = with_condition(status, ConditionType.PROGRESSING, False, Reason.SUSPENDED, message, now)
    return replace(status, phase=Phase.SUSPENDED, suspended_at=status.suspended_at or now)


def await_approval(status: EvolutionRunStatus, now: datetime) -> EvolutionRunStatus:
    """Hold the run until somebody approves its next generation."""
    following = status.generations[-1].index + 1
    message = (
        f"Generation {following} waits for approval: `perseid approve NAME`, or set the annotation"
        f" {APPROVED_GENERATION}={following}. {status.best_model_message}"
    )
    status = _under_way(status, now)
    return with_condition(status, ConditionType.PROGRESSING, False, Reason.AWAITING_APPROVAL, message, now)


def run(status: EvolutionRunStatus, now: datetime) -> EvolutionRunStatus:
    """Record that the run is under way, and with what."""
    status = _under_way(status, now)
    reason, message = _progress(status)
    return with_condition(status, ConditionType.PROGRESSING, True, reason, message, now)


def _under_way(status: EvolutionRunStatus, now: datetime) -> EvolutionRunStatus:
    if status.condition(ConditionType.SUSPENDED) is not None:
        message = "The run is not suspended."
        status = with_condition(status, ConditionType.SUSPENDED, False, Reason.NOT_SUSPENDED, message, now)
    return replace(status, phase=Phase.RUNNING, started_at=status.started_at or now)


def _progress(status: EvolutionRunStatus) -> tuple[Reason, str]:
    newest = status.generation
    if newest is None or not newest.attempts:
        return Reason.IN_PROGRESS, "The first generation is about to start."
    last = newest.attempts[-1]
    name = f"Generation {newest.index}, attempt {last.number}"
    if last.state is AttemptState.FAILED:
        told = f"{name} failed with {last.reason}: {last.message}. It will be tried again.{_link(last.url)}"
        return Reason.RETRYING, told
    link = "" if status.current is None else _link(status.current.url)
    what = f": {last.message}" if last.message else ""
    if last.state is AttemptState.PENDING:
        told = f"{name} waits for its first pod to run (run {last.run_id}){what}.{link}"
        return last.reason or Reason.AWAITING_PODS, told
    if last.state is AttemptState.SUBMITTING:
        return Reason.SUBMITTING, f"{name} is being submitted as run {last.run_id}."
    if last.state.is_over:
        return Reason.IN_PROGRESS, f"Generation {newest.index} is done; the next one is about to start."
    if last.reason is not None:
        return last.reason, f"{name} runs as run {last.run_id}, and its next pod waits{what}.{link}"
    return Reason.GENERATION_IN_PROGRESS, f"{name} is {last.state.lower()} as run {last.run_id}.{link}"


def _link(url: str | None) -> str:
    """A run's page, behind a message. Nothing follows it: a dot would become part of it where it is clicked."""
    return "" if url is None else f" {url}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
