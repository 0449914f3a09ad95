"""What a generation's end means for the run: promotion, patience, and the next start."""

from __future__ import annotations

from datetime import datetime

from perseid.api.base import replace
from perseid.api.lifecycle import PromotionSpec
from perseid.api.reasons import AttemptState, GenerationPhase
from perseid.api.result import GenerationResult, PaidUsage
from perseid.api.status import NOTE_LIMIT, EvolutionRunStatus, GenerationStatus, ResultSummary
from perseid.decide.attempts import release, with_attempt_state, with_generation, with_paid
from perseid.decide.conditions import clip
from perseid.decide.promotion import judge


def conclude(
    status: EvolutionRunStatus,
    generation: GenerationStatus,
    result: GenerationResult,
    rule: PromotionSpec,
    now: datetime,
) -> EvolutionRunStatus:
    """End the newest generation with its result."""
    if result.candidate is None or result.dev is None or result.dev.gain is None:
        phase, message = GenerationPhase.SKIPPED, result.reason or "no model was made"
    else:
        verdict = judge(rule, result.dev.gain)
        phase = GenerationPhase.PROMOTED if verdict.promote else GenerationPhase.REJECTED
        message = verdict.message
    generation = replace(
        with_attempt_state(generation, AttemptState.SUCCEEDED, now),
        phase=phase,
        candidate=result.candidate,
        result=_summary(result, message),
        finished_at=now,
    )
    status = with_paid(release(with_generation(status, generation)), PaidUsage.of(result.usage.values()))
    if phase is GenerationPhase.PROMOTED and result.dev is not None and result.dev.candidate is not None:
        return replace(
            status,
            promoted=result.candidate,
            promoted_score=result.dev.candidate.pass_at_1,
            patience_used=0,
        )
    status = replace(status, patience_used=status.patience_used + 1)
    if status.promoted_score is None and result.dev is not None:
        return replace(
            status,
            promoted_score=result.dev.parent.pass_at_1,
        )
    return status


def _summary(result: GenerationResult, message: str) -> ResultSummary:
    dev = result.dev
    return ResultSummary(
        run_id=result.run_id,
        dev_candidate=dev.candidate.pass_at_1 if dev and dev.candidate else None,
        dev_parent=dev.parent.pass_at_1 if dev else None,
        gain=dev.gain.value if dev and dev.gain else None,
        gain_low=dev.gain.low if dev and dev.gain else None,
        gain_high=dev.gain.high if dev and dev.gain else None,
        samples_kept=result.yields.kept,
        samples_total=result.yields.total,
        message=clip(message, NOTE_LIMIT),
    )
