"""The last stage: score the generation's model and its start model, on dev (which decides) and on test (which is told).

Scores are kept by content in the run's `evaluations/`: the start model of a later generation has its scores already.
Where several stages have made models, each is scored on dev, which shows what each stage changed; where a model judges,
answers of the two models are compared. Writes the attempt's `result.json`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perseid.api.files import YIELD
from perseid.api.layout import RESULT, read_stage_result
from perseid.api.result import (
    Gain,
    GenerationResult,
    ModelRef,
    Score,
    SetResult,
    StageResult,
    StageScore,
    StageUsage,
    WinRate,
    YieldCounts,
)
from perseid.api.stages import LAST_STAGE
from perseid.data.jsonl import write_json
from perseid.engines.models import ResolvedModel, resolve_model
from perseid.evaluation.scores import Comparison, EvaluationResult, compare, pooled
from perseid.stages.comparing import Compared, compare_models
from perseid.stages.context import StageContext
from perseid.stages.lineage import MadeModel, made_models
from perseid.stages.models import resolve_start_model
from perseid.stages.retention import delete_superseded_models
from perseid.stages.scoring import ScoredSet, fetch_scores, score_model, scored_sets
from perseid.stages.spending import recorded_usage

ALL_DEV = "all-dev"
"""What the dev sets of several methods are called where they decide together."""

Scores = dict[str, EvaluationResult]
"""By title of the set."""


async def run(context: StageContext) -> StageResult:
    """Score both models on every set and say what the generation was worth."""
    sets = await asyncio.to_thread(scored_sets, context)
    await fetch_scores(context)
    parent = await resolve_start_model(context)
    parent_scores = await score_model(context, parent, sets, "the start model")
    made = await asyncio.to_thread(made_models, context)
    candidate: ResolvedModel | None = None
    candidate_scores: Scores | None = None
    lineage: list[StageScore] = []
    judged = Compared([], [])
    if made:
        candidate = await asyncio.to_thread(resolve_model, made[-1].reference)
        candidate_scores = await score_model(context, candidate, sets, "the trained model")
        lineage = await _lineage(context, parent_scores, made, sets)
        judged = await compare_models(context, parent.model_id, candidate.model_id, sets)

    compared = set_results(context, sets, parent_scores, candidate_scores)
    trained = None
    if candidate is not None:
        trained = ModelRef(uri=made[-1].reference, model_id=candidate.model_id, generation=context.attempt.generation)
    usage = recorded_usage(context)
    result = _generation_result(context, parent, trained, compared, usage)
    result = result.model_copy(update={"lineage": lineage, "wins": judged.wins, "judged": judged.judged})
    write_json(context.layout.result, result.model_dump(mode="json", by_alias=True))
    await asyncio.to_thread(delete_superseded_models, context)
    return StageResult(
        stage=LAST_STAGE,
        state="done",
        counts={**_counts(sets), "models": 1 + len(made)},
        metrics=_metrics(compared, lineage, judged.wins),
        usage=usage,
    )


def set_results(
    context: StageContext, sets: Sequence[ScoredSet], parent: Scores, candidate: Scores | None
) -> list[SetResult]:
    """Dev first. With two dev sets, one of each method, they decide together, each item counted once; their own scores
    follow."""
    deciding = [one.title for one in sets if one.decides]
    results = [
        _set_result(context, parent[one.title], None if candidate is None else candidate[one.title]) for one in sets
    ]
    if len(deciding) == 1:
        return results
    together = pooled_dev(context, deciding, parent)
    other = None if candidate is None else pooled_dev(context, deciding, candidate)
    return [_set_result(context, together, other), *results]


def pooled_dev(context: StageContext, titles: Sequence[str], scores: Scores) -> EvaluationResult:
    """The dev sets as one. A single one is itself."""
    spec = context.spec.evaluation
    return pooled(
        ALL_DEV, [scores[title] for title in titles], spec.k, resamples=spec.bootstrap, seed=context.spec.seed
    )


async def _lineage(
    context: StageContext, parent: Scores, made: Sequence[MadeModel], sets: Sequence[ScoredSet]
) -> list[StageScore]:
    """What each stage changed. The stages have scored most of these models themselves."""
    dev = [one for one in sets if one.decides]
    titles = [one.title for one in dev]
    before = pooled_dev(context, titles, parent)
    scores = []
    for one in made:
        model = await asyncio.to_thread(resolve_model, one.reference)
        after = pooled_dev(context, titles, await score_model(context, model, dev, f"the model of {one.stage}"))
        gain = _gain(_compared(context, before, after))
        scores.append(StageScore(stage=one.stage, model_id=model.model_id, score=_score(after), gain=gain))
        before = after
    return scores


def _generation_result(
    context: StageContext,
    parent: ResolvedModel,
    candidate: ModelRef | None,
    compared: list[SetResult],
    usage: StageUsage,
) -> GenerationResult:
    attempt = context.attempt
    before = context.spec.stages[:-1]
    earlier = {stage: read_stage_result(context.output(stage, RESULT).parent) for stage in before}
    usages = {stage: result.usage for stage, result in earlier.items() if result is not None}
    yields = _yields(context)
    reason = None
    if candidate is None:
        least = context.spec.finetune.min_samples
        reason = f"{yields.kept} training records are fewer than finetune.minSamples ({least})"
        if any(result is not None and result.metrics.get("rolled_back") for result in earlier.values()):
            reason = "every training was rolled back, because it brought no gain on dev or a loss"
    return GenerationResult(
        generation=attempt.generation,
        attempt=attempt.number,
        run_id=attempt.run_id,
        candidate=candidate,
        parent_model_id=parent.model_id,
        reason=reason,
        dev=compared[0],
        test=compared[1:],
        yields=yields,
        usage={**usages, LAST_STAGE: usage.model_copy(update={"seconds": context.progress.seconds})},
        metrics={stage: result.metrics for stage, result in earlier.items() if result is not None},
    )


def _yields(context: StageContext) -> YieldCounts:
    """Of all stages that make training data."""
    files = [context.output(stage, YIELD) for stage in context.spec.stages[:-1]]
    return YieldCounts.sum(YieldCounts.model_validate_json(path.read_bytes()) for path in files if path.exists())


def _set_result(context: StageContext, parent: EvaluationResult, candidate: EvaluationResult | None) -> SetResult:
    if candidate is None:
        return SetResult(name=parent.set_name, parent=_score(parent))
    gain = _gain(_compared(context, parent, candidate))
    return SetResult(name=parent.set_name, parent=_score(parent), candidate=_score(candidate), gain=gain)


def _compared(context: StageContext, parent: EvaluationResult, candidate: EvaluationResult) -> Comparison:
    spec = context.spec.evaluation
    return compare(parent, candidate, resamples=spec.bootstrap, confidence=spec.confidence, seed=context.spec.seed)


def _gain(paired: Comparison) -> Gain:
    return Gain(value=paired.difference, low=paired.low, high=paired.high)


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


def _counts(sets: Sequence[ScoredSet]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in sets:
        counts[one.unit] = counts.get(one.unit, 0) + len(one.items)
    return counts


def _metrics(compared: Sequence[SetResult], lineage: Sequence[StageScore], wins: Sequence[WinRate]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for one in compared:
        metrics[f"{one.name}_parent_pass_at_1"] = one.parent.pass_at_1
        if one.candidate is not None and one.gain is not None:
            metrics[f"{one.name}_pass_at_1"] = one.candidate.pass_at_1
            metrics[f"{one.name}_gain"] = one.gain.value
    for made in lineage:
        metrics[f"after_{made.stage}_pass_at_1"] = made.score.pass_at_1
    for win in wins:
        metrics[f"{win.set}_{win.criterion}_win_rate"] = win.win_rate
    return metrics
