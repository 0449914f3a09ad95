"""What a change of a status means in figures."""

from __future__ import annotations

from datetime import datetime

from perseid.api.reasons import AttemptState, GenerationPhase
from perseid.api.stages import STAGES
from perseid.api.status import EvolutionRunStatus
from perseid.decide import Observed
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
    if old.current is None or (new.current is not None and new.current.run_id == old.current.run_id):
        return
    run = observed.runs.get(old.current.run_id)
    if run is None:
        return
    used = run.result.usage if run.result is not None else {}
    for stage in STAGES:
        usage = used.get(stage)
        if usage is None:
            continue
        metrics.stage_ended(stage, "Succeeded", usage.seconds)
        gpus = obj.run.spec.pipeline.stages.of(stage).gpus
        if gpus:
            metrics.gpu_seconds(obj.namespace, stage, usage.seconds * gpus)


def _is_new(old: EvolutionRunStatus, index: int) -> bool:
    return all(index > one.index for one in old.generations)


def _tell_waiting(metrics: Metrics, old: EvolutionRunStatus, new: EvolutionRunStatus, now: datetime) -> None:
    before, after = old.generation, new.generation
    if before is None or after is None or before.index != after.index:
        return
    first, last = before.attempts[-1], after.attempts[-1]
    if first.run_id == last.run_id and first.state in _WAITING and last.state is AttemptState.RUNNING:
        metrics.queue_wait(max(0.0, (now - last.submitted_at).total_seconds()))
