"""`decide`, top to bottom."""

from __future__ import annotations

from datetime import datetime

from perseid.api.base import replace, whole_seconds_utc
from perseid.api.reasons import AttemptState
from perseid.api.result import GenerationResult
from perseid.api.spec import EvolutionRunSpec
from perseid.api.status import EvolutionRunStatus
from perseid.decide import lifecycle
from perseid.decide.attempts import Failure, begin, look, with_attempt_state, with_generation
from perseid.decide.observed import Observed, RunState
from perseid.decide.outcome import conclude
from perseid.decide.plan import Action, Plan, Submit, Terminate
from perseid.decide.retry import seconds_to_wait

OUTAGE_REQUEUE_SECONDS = 30.0


def decide(spec: EvolutionRunSpec, status: EvolutionRunStatus, observed: Observed, now: datetime) -> Plan:
    """Say what comes next. Pure: the same four arguments give the same plan.

    A first call takes `EvolutionRunStatus(uid=...)`. At most one action is planned at a time, and at most one run is
    alive at a time as far as the observation can tell. Raises ValueError for a `now` without a time zone.
    """
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    now = whole_seconds_utc(now)
    if status.phase.is_terminal:
        return Plan(status, _terminate_stray(status, observed))

    status = lifecycle.accept(status, spec, observed)
    status = lifecycle.backend(status, observed, now)
    if not observed.backend_reachable:
        return Plan(status, None, OUTAGE_REQUEUE_SECONDS)

    status = _follow(status, spec, observed, now)
    status = lifecycle.end_if_over(status, spec, now)
    stray = _terminate_stray(status, observed)
    if status.phase.is_terminal:
        return Plan(status, stray)
    if spec.suspend:
        return Plan(lifecycle.suspend(status, _may_run(status, observed), now), stray)
    if stray is not None:
        return Plan(lifecycle.run(status, now), stray)

    if status.current is None:
        wait = seconds_to_wait(status.generations[-1], now) if status.generations else 0.0
        if wait > 0:
            return Plan(lifecycle.run(status, now), None, wait)
        assert status.promoted is not None  # accept() has seen to it
        status = begin(status, status.promoted, now)
    return Plan(lifecycle.run(status, now), _submit(status, observed))


def _follow(
    status: EvolutionRunStatus, spec: EvolutionRunSpec, observed: Observed, now: datetime
) -> EvolutionRunStatus:
    """Take in what is seen of the attempt that is under way."""
    current, generation = status.current, status.generation
    if current is None or generation is None:
        return status
    seen = look(current, generation.attempts[-1], observed.runs.get(current.run_id))
    if isinstance(seen, GenerationResult):
        return conclude(status, generation, seen, spec.generations.promotion, now)
    if isinstance(seen, Failure):
        generation = with_attempt_state(generation, AttemptState.FAILED, now, seen)
        return replace(with_generation(status, generation), current=None)
    return with_generation(status, with_attempt_state(generation, seen, now))


def _submit(status: EvolutionRunStatus, observed: Observed) -> Action | None:
    """The submission, where the attempt is still to be submitted and nothing speaks of its run."""
    current, generation = status.current, status.generation
    if current is None or generation is None or generation.attempts[-1].state is not AttemptState.SUBMITTING:
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
    current = status.current.run_id if status.current is not None else None
    strays = sorted(run_id for run_id, run in observed.runs.items() if run.state.is_live and run_id != current)
    return Terminate(strays[0]) if strays else None
