"""Stage 4: score the generation's model and its start model, on dev (which decides) and on test (which is told).

Scores are kept by content in the run's `evaluations/`: the start model of a later generation has its scores already.
Writes the attempt's `result.json`.
"""

from __future__ import annotations

import asyncio

from perseid.api.layout import JOURNAL, RESULT, STAGES, read_stage_result
from perseid.api.result import Gain, GenerationResult, ModelRef, Score, SetResult, StageResult, StageUsage, YieldCounts
from perseid.data.jsonl import write_json
from perseid.data.problems import load_problems
from perseid.engines.journal import read_journal
from perseid.engines.models import ResolvedModel, resolve_model
from perseid.engines.protocol import Usage
from perseid.evaluation.scores import EvaluationResult, compare
from perseid.stages.context import StageContext
from perseid.stages.convert import SAMPLES, YIELD
from perseid.stages.finetune import trained_model
from perseid.stages.models import resolve_start_model, stage_usage
from perseid.stages.scoring import score_model
from perseid.stages.synthesize import ANYWHERE

Scores = dict[str, EvaluationResult]
"""By title of the set."""


async def run(context: StageContext) -> StageResult:
    """Score both models on every set and say what the generation was worth."""
    spec = context.spec
    sets = [(one, load_problems(one, ANYWHERE)) for one in (spec.problems.dev, *spec.problems.test)]
    if context.storage is not None:
        await asyncio.to_thread(context.storage.fetch_evaluations)
    parent = await resolve_start_model(context)
    reference = await asyncio.to_thread(trained_model, context)
    candidate = None if reference is None else await asyncio.to_thread(resolve_model, reference)
    parent_scores = await score_model(context, parent, sets, "the start model")
    candidate_scores: Scores | None = None
    if candidate is not None:
        candidate_scores = await score_model(context, candidate, sets, "the trained model")
    usage = _usage(context)

    compared = [_set_result(context, one.title, parent_scores, candidate_scores) for one, _ in sets]
    trained = None
    if candidate is not None and reference is not None:
        trained = ModelRef(uri=reference, model_id=candidate.model_id, generation=context.attempt.generation)
    result = _generation_result(context, parent, trained, compared, usage)
    write_json(context.layout.result, result.model_dump(mode="json", by_alias=True))
    return StageResult(
        stage="evaluate",
        state="done",
        counts={"problems": sum(len(problems) for _, problems in sets), "models": 1 if candidate is None else 2},
        metrics=_metrics(compared),
        usage=usage,
    )


def _generation_result(
    context: StageContext,
    parent: ResolvedModel,
    candidate: ModelRef | None,
    compared: list[SetResult],
    usage: StageUsage,
) -> GenerationResult:
    attempt = context.attempt
    earlier = {stage: read_stage_result(context.output(stage, RESULT).parent) for stage in STAGES}
    usages = {stage: result.usage for stage, result in earlier.items() if result is not None}
    reason = None
    if candidate is None:
        kept = sum(1 for _ in context.output("convert", SAMPLES).open())
        reason = f"{kept} training records are fewer than finetune.minSamples ({context.spec.finetune.min_samples})"
    return GenerationResult(
        generation=attempt.generation,
        attempt=attempt.number,
        run_id=attempt.run_id,
        candidate=candidate,
        parent_model_id=parent.model_id,
        reason=reason,
        dev=compared[0],
        test=compared[1:],
        yields=YieldCounts.model_validate_json(context.output("convert", YIELD).read_bytes()),
        usage={**usages, "evaluate": usage.model_copy(update={"seconds": context.progress.seconds})},
    )


def _set_result(context: StageContext, title: str, parent: Scores, candidate: Scores | None) -> SetResult:
    base = parent[title]
    if candidate is None:
        return SetResult(name=title, parent=_score(base))
    evaluation = context.spec.evaluation
    paired = compare(
        base,
        candidate[title],
        resamples=evaluation.bootstrap,
        confidence=evaluation.confidence,
        seed=context.spec.seed,
    )
    return SetResult(
        name=title,
        parent=_score(base),
        candidate=_score(candidate[title]),
        gain=Gain(value=paired.difference, low=paired.low, high=paired.high),
    )


def _score(result: EvaluationResult) -> Score:
    first = result.at(1)
    return Score(
        pass_at_1=first.value,
        low=first.low,
        high=first.high,
        problems=len(result.problems),
        samples=result.n,
        pass_at={str(estimate.k): estimate.value for estimate in result.pass_at},
    )


def _metrics(compared: list[SetResult]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for one in compared:
        metrics[f"{one.name}_parent_pass_at_1"] = one.parent.pass_at_1
        if one.candidate is not None and one.gain is not None:
            metrics[f"{one.name}_pass_at_1"] = one.candidate.pass_at_1
            metrics[f"{one.name}_gain"] = one.gain.value
    return metrics


def _usage(context: StageContext) -> StageUsage:
    """What this attempt asked, before a kill too: sets that were scored by then are not asked again, but were paid."""
    calls = read_journal(context.directory / JOURNAL).values()
    return stage_usage(sum((call.usage for call in calls), Usage()))
