"""Observe, decide, write the status, act; again, until the run is over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from perseid.api.attempt import Attempt
from perseid.api.reasons import ConditionType, Phase, Reason
from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus
from perseid.decide.core import decide
from perseid.decide.observed import Observed
from perseid.decide.plan import DeleteObject, Submit, Terminate
from perseid.runner.backend import Backend
from perseid.runner.directory import RunDirectory

TICK_SECONDS = 0.25
"""How often the progress is looked at."""


def drive(
    run: EvolutionRun,
    directory: RunDirectory,
    backend: Backend,
    clock: Callable[[], datetime],
    on_tick: Callable[[EvolutionRunStatus], None],
) -> EvolutionRunStatus:
    """Carry a run through; returns its last status, which is terminal, suspended or waiting for an approval.

    The status is written before an action, so that a kill in between repeats the decision and not the action. `on_tick`
    is called a few times a second.
    """
    start_model = directory.start_model(run)  # before the run is accepted: a mistake here leaves nothing behind
    status = directory.accept(run)
    while True:
        observed = Observed(
            runs=backend.observe(status),
            start_model=start_model,
            approved_generation=run.metadata.approved_generation,
        )
        plan = decide(run.spec, status, observed, clock())
        if plan.status != status:
            status = plan.status
            directory.write_status(status)
        on_tick(status)
        match plan.action:
            case Submit():
                backend.submit(_attempt(run, directory, plan.action))
                continue
            case Terminate(run_id):
                backend.terminate(run_id)
                continue
            case DeleteObject():
                return status  # a laptop's directory stays: nobody but its owner throws models away
        if status.phase.is_terminal or status.phase is Phase.SUSPENDED or _waits_for_somebody(status):
            return status
        backend.wait(TICK_SECONDS if plan.requeue_after is None else min(TICK_SECONDS, plan.requeue_after))


def _waits_for_somebody(status: EvolutionRunStatus) -> bool:
    """Whether only a change of the run file can get the run any further."""
    progressing = status.condition(ConditionType.PROGRESSING)
    return progressing is not None and progressing.reason is Reason.AWAITING_APPROVAL


def _attempt(run: EvolutionRun, directory: RunDirectory, submit: Submit) -> Attempt:
    return Attempt(
        run=run,
        run_id=submit.run_id,
        generation=submit.generation,
        number=submit.attempt,
        storage=str(directory.path),
        start_model=submit.start_model.uri,
    )
