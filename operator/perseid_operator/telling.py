"""What a change of a status means in figures."""

from __future__ import annotations

from datetime import datetime

from perseid.api.reasons import AttemptState, GenerationPhase, StageState
from perseid.api.stages import STAGES, StageName
from perseid.api.status import EvolutionRunStatus
from perseid.decide import Observed, ObservedRun, RunState
from perseid_operator.metrics import Metrics
from perseid_operator.objects import RunObject

_WAITING = (AttemptState.SUBMITTING, AttemptState.PENDING)


def tell(
    metrics: Metrics,
    obj: RunObject,
    old: EvolutionRunStatus,
    new: EvolutionRunStatus,
    observed: Observed,
    now: datetime,
) -> None:
    """Count what has ended between two statuses, and what it took. Called once for each change that was written."""
    running = {one.index for one in old.generations if one.phase is GenerationPhase.RUNNING}
    for generation in new.generations:
        if generation.phase is not GenerationPhase.RUNNING and (
            generation.index in running or _is_new(old, generation.index)
        ):
            metrics.generation_ended(obj.namespace, generation.phase.value)
    _tell_waiting(metrics, old, new, now)
    run = None if old.current is None else observed.runs.get(old.current.run_id)
    if run is not None:
        _tell_stages(metrics, old, run)
        _tell_gpu_time(metrics, obj.namespace, _gpu_seconds(new) - _gpu_seconds(old), run)


def _tell_stages(metrics: Metrics, old: EvolutionRunStatus, run: ObservedRun) -> None:
    """Count the stages that were not over when the status was last written."""
    known = {} if old.current is None else old.current.stages
    for stage, state in _ended(run).items():
        if known.get(stage) is not state:
            time = run.times.get(stage)
            metrics.stage_ended(stage, state.value, 0.0 if time is None else time.seconds)


def _ended(run: ObservedRun) -> dict[StageName, StageState]:
    ended: dict[StageName, StageState] = {
        stage: state for stage, state in run.stages.items() if state is not StageState.RUNNING
    }
    # KFP may tell of a run's end before it does of its tasks': what the run and its last stage say is as good.
    if run.state is RunState.SUCCEEDED:
        ended = dict.fromkeys(run.stages, StageState.SUCCEEDED)
    elif run.state is RunState.FAILED and run.failed_stage is not None:
        ended[run.failed_stage] = StageState.FAILED
    return ended


def _gpu_seconds(status: EvolutionRunStatus) -> float:
    """What the run has used, as its budget counts it."""
    return status.usage.gpu_seconds + (0.0 if status.current is None else status.current.gpu_seconds)


def _tell_gpu_time(metrics: Metrics, namespace: str, seconds: float, run: ObservedRun) -> None:
    """Share out what the status has more than before: stages follow each other, so the newest have used it."""
    for stage in reversed(STAGES):
        part = min(seconds, run.times[stage].gpu_seconds) if stage in run.times else 0.0
        if part > 0:
            metrics.gpu_seconds(namespace, stage, part)
            seconds -= part


def _is_new(old: EvolutionRunStatus, index: int) -> bool:
    return all(index > one.index for one in old.generations)


def _tell_waiting(metrics: Metrics, old: EvolutionRunStatus, new: EvolutionRunStatus, now: datetime) -> None:
    before, after = old.generation, new.generation
    if before is None or after is None or before.index != after.index:
        return
    first, last = before.attempts[-1], after.attempts[-1]
    if first.run_id == last.run_id and first.state in _WAITING and last.state is AttemptState.RUNNING:
        metrics.queue_wait(max(0.0, (now - last.submitted_at).total_seconds()))
