"""`decide`, top to bottom."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime

from perseid.api.base import replace, whole_seconds_utc
from perseid.api.reasons import AttemptState, GenerationPhase, Reason
from perseid.api.result import GenerationResult
from perseid.api.spec import EvolutionRunSpec
from perseid.api.status import EvolutionRunStatus
from perseid.decide import acceptance, lifecycle
from perseid.decide.attempts import (
    Failure,
    begin,
    forget_ended,
    give_up,
    look,
    note,
    renew,
    with_attempt_state,
    with_change,
    with_generation,
    with_waiting,
)
from perseid.decide.columns import with_columns
from perseid.decide.limits import breach, is_spent, seconds_to_limit, waits_too_long
from perseid.decide.observed import Observed, RunState
from perseid.decide.outcome import conclude
from perseid.decide.plan import Action, DeleteObject, Plan, Submit, Terminate
from perseid.decide.policy import verdict
from perseid.decide.retry import seconds_to_wait

OUTAGE_REQUEUE_SECONDS = 30.0
WAIT_REQUEUE_SECONDS = 15.0
ALIVE_REQUEUE_SECONDS = 60.0


def decide(spec: EvolutionRunSpec, status: EvolutionRunStatus, observed: Observed, now: datetime) -> Plan:
    """Say what comes next. Pure: the same four arguments give the same plan.

    A first call takes `EvolutionRunStatus(uid=...)`. At most one action is planned at a time, and at most one run is
    alive at a time as far as the observation can tell. Raises ValueError for a `now` without a time zone.
    """
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    now = whole_seconds_utc(now)
    if status.phase.is_terminal:
        return _after_the_end(spec, _decided_on(forget_ended(status, observed.runs), observed), observed, now)
    plan = _decide(spec, status, observed, now)
    kept = {generation.index for generation in plan.status.generations}
    return Plan(
        with_columns(_decided_on(forget_ended(plan.status, observed.runs), observed), spec),
        plan.action,
        _earliest(plan.requeue_after, seconds_to_limit(spec, plan.status, now)),
        tuple(generation for generation in status.generations if generation.index not in kept),
    )


def _decide(spec: EvolutionRunSpec, status: EvolutionRunStatus, observed: Observed, now: datetime) -> Plan:
    status, resolved = acceptance.accept(status, spec, observed, now)
    if status.phase.is_terminal:
        return Plan(status)
    if not resolved:
        return Plan(status, None, WAIT_REQUEUE_SECONDS)
    status = lifecycle.backend(status, observed, now)
    if not observed.backend_reachable:
        return Plan(status, None, OUTAGE_REQUEUE_SECONDS)

    status = _follow(status, spec, observed, now)
    if not status.phase.is_terminal:
        status = lifecycle.end_if_over(status, spec, now)
    if not status.phase.is_terminal:
        status = _enforce_limits(status, spec, now)
    stray = _terminate_stray(status, observed)
    if status.phase.is_terminal:
        return Plan(status, stray)
    if spec.suspend:
        if spec.suspend_policy == "terminate" and status.current is not None:
            failure = Failure(Reason.SUSPENDED, "stopped because the run was suspended")
            status = give_up(status, failure, charged=False, now=now)
            stray = _terminate_stray(status, observed)
        may_run = _may_run(status, observed) or stray is not None
        return Plan(lifecycle.suspend(status, may_run, now), stray)
    status = lifecycle.resume(status, now)
    if stray is not None:
        return Plan(lifecycle.run(status, now), stray)

    if status.current is None:
        wait = seconds_to_wait(status.generations[-1], now) if status.generations else 0.0
        if wait > 0:
            return Plan(lifecycle.run(status, now), None, wait)
        if _is_unclear(observed) or forget_ended(status, observed.runs).stopping:
            # An earlier attempt's run that nobody can speak for may be alive, and two must never be.
            return Plan(lifecycle.run(status, now), None, WAIT_REQUEUE_SECONDS)
        if _awaits_approval(status, spec, observed):
            return Plan(lifecycle.await_approval(status, now), None)
        if not observed.may_submit:
            return Plan(lifecycle.run(status, now), None, WAIT_REQUEUE_SECONDS)
        assert status.promoted is not None  # accept() has seen to it
        status = begin(status, status.promoted, now)
    action = _submit(status, observed)
    if action is not None:
        status = renew(status, now)
    return Plan(lifecycle.run(status, now), action, _next_look(status, spec, observed))


def _after_the_end(spec: EvolutionRunSpec, status: EvolutionRunStatus, observed: Observed, now: datetime) -> Plan:
    stray = _terminate_stray(status, observed)
    if stray is not None or status.stopping or spec.ttl_seconds_after_finished is None or status.finished_at is None:
        return Plan(status, stray)
    left = spec.ttl_seconds_after_finished - (now - status.finished_at).total_seconds()
    return Plan(status, DeleteObject()) if left <= 0 else Plan(status, None, left)


def _decided_on(status: EvolutionRunStatus, observed: Observed) -> EvolutionRunStatus:
    """The status with the spec's generation in it and in every condition, also those that were set long ago: kubectl
    waits for none that speaks of an older spec."""
    generation = observed.spec_generation
    conditions = [
        one if one.observed_generation == generation else replace(one, observed_generation=generation)
        for one in status.conditions
    ]
    if generation == status.observed_generation and conditions == status.conditions:
        return status
    return replace(status, observed_generation=generation, conditions=conditions)


def _follow(
    status: EvolutionRunStatus, spec: EvolutionRunSpec, observed: Observed, now: datetime
) -> EvolutionRunStatus:
    """Take in what is seen of the attempt that is under way."""
    current, generation = status.current, status.generation
    if current is None or generation is None:
        return status
    run = observed.runs.get(current.run_id)
    before, status = status, note(status, run)
    generation = status.generations[-1]
    seen = look(current, generation.attempts[-1], run)
    if isinstance(seen, GenerationResult):
        return conclude(status, generation, seen, spec.generations.promotion, now)
    if isinstance(seen, Failure):
        return _fail_attempt(status, spec, seen, now)
    status = with_generation(status, with_waiting(with_attempt_state(generation, seen, now), run))
    status = with_change(before, status, now)
    if waits_too_long(spec, status, now):
        message = f"no pod ran within {spec.start_deadline_seconds} s (startDeadlineSeconds)"
        return _fail_attempt(status, spec, Failure(Reason.START_DEADLINE_EXCEEDED, message), now)
    return status


def _fail_attempt(
    status: EvolutionRunStatus, spec: EvolutionRunSpec, failure: Failure, now: datetime
) -> EvolutionRunStatus:
    if is_spent(spec, failure.spent_budget):
        status = give_up(status, dataclasses.replace(failure, reason=Reason.BUDGET_EXCEEDED), charged=False, now=now)
        return lifecycle.fail(status, Reason.BUDGET_EXCEEDED, failure.message, now)
    what = verdict(spec.failure_policy, failure.reason, failure.stage)
    status = give_up(status, failure, charged=what != "ignore", now=now)
    if what == "fail":
        message = f"a rule of failurePolicy fails the run for {failure.reason}: {failure.message}"
        return lifecycle.fail(status, Reason.FAILURE_POLICY, message, now)
    return status


def _enforce_limits(status: EvolutionRunStatus, spec: EvolutionRunSpec, now: datetime) -> EvolutionRunStatus:
    reached = breach(spec, status, now)
    if reached is None:
        return status
    if status.current is not None:
        status = give_up(status, Failure(reached.reason, reached.message), charged=False, now=now)
    return lifecycle.fail(status, reached.reason, reached.message, now)


def _awaits_approval(status: EvolutionRunStatus, spec: EvolutionRunSpec, observed: Observed) -> bool:
    newest = status.generation
    if spec.generations.approval == "automatic" or newest is None or newest.phase is GenerationPhase.RUNNING:
        return False
    return observed.approved_generation is None or observed.approved_generation <= newest.index


def _submit(status: EvolutionRunStatus, observed: Observed) -> Action | None:
    """The submission, where the attempt is still to be submitted and nothing speaks of its run."""
    current, generation = status.current, status.generation
    if current is None or generation is None or generation.attempts[-1].state is not AttemptState.SUBMITTING:
        return None
    if not observed.may_submit:
        return None
    run = observed.runs.get(current.run_id)
    if run is not None and run.state is not RunState.MISSING:
        return None
    return Submit(
        generation=current.generation,
        attempt=current.attempt,
        run_id=current.run_id,
        start_model=generation.start_model,
    )


def _may_run(status: EvolutionRunStatus, observed: Observed) -> bool:
    """Whether the current attempt's run may be alive."""
    current, generation = status.current, status.generation
    if current is None or generation is None:
        return False
    run = observed.runs.get(current.run_id)
    never_seen = generation.attempts[-1].state is AttemptState.SUBMITTING
    return not never_seen or (run is not None and run.state is not RunState.MISSING)


def _terminate_stray(status: EvolutionRunStatus, observed: Observed) -> Terminate | None:
    """A live run that is not the current one: an abandoned submission that appeared late, or a run that came back."""
    return _terminate_all_but(None if status.current is None else status.current.run_id, observed)


def _terminate_all_but(run_id: str | None, observed: Observed) -> Terminate | None:
    """The next of the live runs to be stopped."""
    strays = sorted(one for one, run in observed.runs.items() if run.state.is_live and one != run_id)
    return Terminate(strays[0]) if strays else None


def _next_look(status: EvolutionRunStatus, spec: EvolutionRunSpec, observed: Observed) -> float | None:
    """When to look again although nothing has changed that anybody would tell of: at what a run uses, whether its
    Workflow is still there, whether it is certain by now that it will never show, whether it is one's turn."""
    if _is_unclear(observed) or not observed.may_submit:
        return WAIT_REQUEUE_SECONDS
    if status.current is None:
        return None
    return WAIT_REQUEUE_SECONDS if spec.budget.gpu_hours is not None else ALIVE_REQUEUE_SECONDS


def _is_unclear(observed: Observed) -> bool:
    return any(run.state is RunState.UNKNOWN for run in observed.runs.values())


def _earliest(*seconds: float | None) -> float | None:
    known = [one for one in seconds if one is not None]
    return min(known) if known else None


@dataclass(frozen=True, slots=True)
class CleanUp:
    """What is left to do before a deleted EvolutionRun may go."""

    stop: Terminate | None = None
    """A run that is still alive."""
    done: bool = False
    """Whether it may go now; else look again."""


def clean_up(spec: EvolutionRunSpec, status: EvolutionRunStatus, observed: Observed) -> CleanUp:
    """Whether a deleted EvolutionRun may go: no run of it may be alive, unless its deletePolicy lets them be."""
    nothing_began = not status.generations  # no intent was ever written
    if spec.delete_policy == "orphan" or nothing_began:
        return CleanUp(done=True)
    alive = _terminate_all_but(None, observed)
    clear = observed.backend_reachable and not _is_unclear(observed)
    return CleanUp(stop=alive, done=alive is None and clear)
