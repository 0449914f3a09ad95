"""A run in one page: base against promoted model, yield, tokens, time, and where the model is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perseid.api.files import SCORES
from perseid.api.layout import RESULT, Layout
from perseid.api.reasons import ConditionType
from perseid.api.result import GenerationResult, MeanScore, ResultError, StageUsage, WinRate, parse_result
from perseid.api.spec import EvolutionRun, EvolutionRunSpec
from perseid.api.stages import METEOR_STAGES
from perseid.api.status import EvolutionRunStatus
from perseid.data.errors import DataError
from perseid.evaluation.scores import EvaluationResult, compare
from perseid.report.files import read_document

TRAINING_STAGES = ("finetune", *METEOR_STAGES)


@dataclass(frozen=True, slots=True)
class SetSummary:
    """The base and the promoted model on one set. Scores are pass@1 as fractions."""

    name: str
    decides: bool
    """Whether promotion goes by it (dev); otherwise it is only reported."""
    problems: int
    samples: int
    base: tuple[float, float, float]
    """Score, and the ends of its interval."""
    promoted: tuple[float, float, float] | None
    """None where no model was promoted."""
    gain: tuple[float, float, float] | None
    """Promoted minus base, paired by problem."""
    up: int = 0
    """Problems on which the promoted model is better."""
    down: int = 0


@dataclass(frozen=True, slots=True)
class StageSummary:
    """What a stage that trains has made of its data, and of the model."""

    name: str
    metrics: dict[str, float]
    """What it said of itself: questions, answers accepted, revised and in quarantine, agreement with the judge, ..."""
    score: tuple[float, float, float] | None
    """Of its model on dev, and the ends of the interval; None where it has made none."""
    gain: tuple[float, float, float] | None
    """Over the model that the stage started from."""


@dataclass(frozen=True, slots=True)
class GenerationSummary:
    """One generation in a line."""

    index: int
    phase: str
    message: str
    kept: int
    total: int
    dropped: dict[str, int]
    usage: dict[str, dict[str, float]]
    """Calls, tokens and seconds by stage."""
    stages: list[StageSummary]
    """Those that train, in their order."""
    wins: list[WinRate]
    """Of the generation's model over the one it started from, where a model judges."""
    judged: list[MeanScore]
    """Both models' scores by that judge, 0 to 10."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What came out of a run."""

    name: str
    phase: str
    message: str
    """Why the run ended, and which model is the best."""
    confidence: float
    model: str
    """Where the best model is: a directory, or the base's reference."""
    promoted_generation: int | None
    sets: list[SetSummary]
    generations: list[GenerationSummary]
    seconds: float
    """Time in stages, over all generations."""
    completion_tokens: int
    prompt_tokens: int
    mentor_tokens: int
    """Of paid mentors and judges, prompts and answers, those of failed attempts included."""
    mentor_cost: float
    currency: str
    """Of the cost: an ISO 4217 code."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        for generation, summary in zip(plain["generations"], self.generations, strict=True):
            generation["wins"] = [one.model_dump() for one in summary.wins]
            generation["judged"] = [one.model_dump() for one in summary.judged]
        return plain


def summarise(run: EvolutionRun, status: EvolutionRunStatus, root: Path) -> Summary:
    """Read the results under `root` that `status` speaks of."""
    results = list(_results(status, root))
    usage = [one for result in results for one in result.usage.values()]
    promoted = status.promoted
    made = promoted is not None and not promoted.is_base
    return Summary(
        name=run.metadata.name,
        phase=status.phase.value,
        message=status_message(status),
        confidence=run.spec.evaluation.confidence,
        model=run.spec.model.ref if promoted is None else promoted.uri,
        promoted_generation=promoted.generation if made and promoted is not None else None,
        sets=_sets(run, status, results, root),
        generations=[_generation(status, result) for result in results],
        seconds=sum(one.seconds for one in usage),
        completion_tokens=sum(one.completion_tokens for one in usage),
        prompt_tokens=sum(one.prompt_tokens for one in usage),
        mentor_tokens=status.usage.mentor_tokens,
        mentor_cost=status.usage.cost,
        currency=run.spec.meteor.mentor.price.currency,
    )


def _results(status: EvolutionRunStatus, root: Path) -> Iterator[GenerationResult]:
    for generation in status.generations:
        if generation.result is None:
            continue
        number = next(one.number for one in generation.attempts if one.run_id == generation.result.run_id)
        path = Layout(root, generation.index, number).attempt_directory / RESULT
        try:
            yield parse_result(path.read_bytes())
        except (FileNotFoundError, ResultError) as error:
            raise DataError(f"{path} cannot be read: {error}; the status says that it was there: restore it") from error


def status_message(status: EvolutionRunStatus) -> str:
    """What the run's conditions say of it now; the one that matters most."""
    order = (ConditionType.FAILED, ConditionType.COMPLETE, ConditionType.SUSPENDED, ConditionType.PROGRESSING)
    told = (status.condition(kind) for kind in order)
    return next((condition.message for condition in told if condition is not None and condition.message), "")


def _generation(status: EvolutionRunStatus, result: GenerationResult) -> GenerationSummary:
    known = next(one for one in status.generations if one.index == result.generation)
    return GenerationSummary(
        index=result.generation,
        phase=known.phase.value,
        message="" if known.result is None else known.result.message,
        kept=result.yields.kept,
        total=result.yields.total,
        dropped=dict(result.yields.dropped),
        usage={stage: _usage(one) for stage, one in result.usage.items()},
        stages=_stages(result),
        wins=result.wins,
        judged=result.judged,
    )


def _stages(result: GenerationResult) -> list[StageSummary]:
    made = {one.stage: one for one in result.lineage}
    summaries = []
    for stage, metrics in result.metrics.items():
        if stage not in TRAINING_STAGES:
            continue
        one = made.get(stage)
        score = None if one is None else (one.score.pass_at_1, one.score.low, one.score.high)
        gain = None if one is None else (one.gain.value, one.gain.low, one.gain.high)
        summaries.append(StageSummary(stage, dict(metrics), score, gain))
    return summaries


def _usage(usage: StageUsage) -> dict[str, float]:
    return usage.model_dump(by_alias=False)


def _sets(
    run: EvolutionRun, status: EvolutionRunStatus, results: list[GenerationResult], root: Path
) -> list[SetSummary]:
    """The first generation's start model is the base; its scores and the promoted model's are in the run's store."""
    if not results or results[0].generation != 0:
        return []
    base_id = results[0].parent_model_id
    promoted = status.promoted
    promoted_id = None if promoted is None or promoted.is_base else promoted.model_id
    store = evaluation_store(root)
    summaries = []
    for title, decides in scored_titles(run.spec):
        base = store.get((title, base_id))
        if base is None:
            continue
        summaries.append(_set(run, decides, base, store.get((title, promoted_id))))
    return summaries


def scored_titles(spec: EvolutionRunSpec) -> list[tuple[str, bool]]:
    """The sets that models are scored on, and whether each decides: the dev sets of the run's methods come first."""
    titles: list[tuple[str, bool]] = []
    if "sra-mcts" in spec.methods:
        titles += [(spec.problems.dev.title, True), *((one.title, False) for one in spec.problems.test)]
    if "meteor" in spec.methods:
        questions = spec.meteor.questions
        titles += [(questions.dev.title, True), *((one.title, False) for one in questions.test)]
    return sorted(titles, key=lambda one: not one[1])


def evaluation_places(root: Path) -> dict[tuple[str, str | None], Path]:
    """Where the scores below a run's root lie, by title of the set and id of the model."""
    return {(one.set_name, one.model_id): place for place, one in _evaluations(root)}


def evaluation_store(root: Path) -> dict[tuple[str, str | None], EvaluationResult]:
    """All scores below a run's root, by title of the set and id of the model."""
    return {(one.set_name, one.model_id): one for _, one in _evaluations(root)}


def _evaluations(root: Path) -> Iterator[tuple[Path, EvaluationResult]]:
    for path in sorted(Layout(root, 0, 0).evaluations.glob(f"*/{SCORES}")):
        result = read_document(path, EvaluationResult)
        if result is not None:  # not taken away since it was found
            yield path.parent, result


def _set(run: EvolutionRun, decides: bool, base: EvaluationResult, promoted: EvaluationResult | None) -> SetSummary:
    evaluation = run.spec.evaluation
    known = SetSummary(
        name=base.set_name,
        decides=decides,
        problems=len(base.problems),
        samples=base.n,
        base=_interval(base),
        promoted=None,
        gain=None,
    )
    if promoted is None:
        return known
    paired = compare(
        base, promoted, resamples=evaluation.bootstrap, confidence=evaluation.confidence, seed=run.spec.seed
    )
    return SetSummary(
        name=known.name,
        decides=known.decides,
        problems=known.problems,
        samples=known.samples,
        base=known.base,
        promoted=_interval(promoted),
        gain=(paired.difference, paired.low, paired.high),
        up=paired.up,
        down=paired.down,
    )


def _interval(result: EvaluationResult) -> tuple[float, float, float]:
    first = result.at(1)
    return first.value, first.low, first.high
