"""Taking a run in: which spec it is decided on, and whether what it needs is there."""

from __future__ import annotations

from datetime import datetime

from perseid.api.base import replace
from perseid.api.identity import spec_digest
from perseid.api.reasons import ConditionType, Reason
from perseid.api.result import ModelRef
from perseid.api.spec import EvolutionRunSpec
from perseid.api.status import EvolutionRunStatus
from perseid.decide import lifecycle
from perseid.decide.attempts import Failure, give_up
from perseid.decide.conditions import with_condition
from perseid.decide.observed import Observed

BASE_GENERATION = -1


def accept(
    status: EvolutionRunStatus, spec: EvolutionRunSpec, observed: Observed, now: datetime
) -> tuple[EvolutionRunStatus, bool]:
    """Record what the run is decided on, and say whether it can begin.

    What it resolves to is frozen the first time: the digest of its spec, its pipeline, its start model.
    """
    status = replace(status, observed_generation=observed.spec_generation)
    if status.spec_digest is None:
        status = replace(status, spec_digest=spec_digest(spec))
    pipeline = observed.pipeline
    if pipeline.error is not None:
        status = _accepted(status, False, Reason.PIPELINE_INVALID, pipeline.error, now)
        if status.current is not None:  # it turned out at the submission
            status = give_up(status, Failure(Reason.PIPELINE_INVALID, pipeline.error), charged=False, now=now)
        return lifecycle.fail(status, Reason.PIPELINE_INVALID, pipeline.error, now), False
    if not pipeline.ready:
        message = "The pipeline is being compiled from the spec."
        return _accepted(status, False, Reason.COMPILING, message, now), False
    if status.snapshot is None and pipeline.snapshot is not None:
        status = replace(status, snapshot=pipeline.snapshot)
    if status.promoted is None:
        start, why = _start_model(spec, observed)
        if start is None:
            return _accepted(status, False, Reason.AWAITING_START_MODEL, why, now), False
        status = replace(status, promoted=start)
    return _accepted(status, True, Reason.RESOLVED, "Everything that the run needs is there.", now), True


def _start_model(spec: EvolutionRunSpec, observed: Observed) -> tuple[ModelRef | None, str]:
    if spec.model.evolution_run is None:
        return ModelRef(uri=spec.model.ref, generation=BASE_GENERATION), ""
    found = observed.start_model
    if found is None or found.model is None:
        why = found.message if found is not None else "it has not been looked for yet"
        return None, f"The run starts from the best model of EvolutionRun {spec.model.evolution_run}: {why}"
    return ModelRef(uri=found.model.uri, model_id=found.model.model_id, generation=BASE_GENERATION), ""


def _accepted(
    status: EvolutionRunStatus, holds: bool, reason: Reason, message: str, now: datetime
) -> EvolutionRunStatus:
    return with_condition(status, ConditionType.ACCEPTED, holds, reason, message, now)
