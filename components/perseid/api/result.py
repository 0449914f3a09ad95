"""What stages write when they end: a `result.json` each; the last one says what the generation was worth.

Scores are pass@1 as fractions from 0 to 1; intervals are bootstrap intervals over problems at the level that
`spec.evaluation.confidence` names. A number that is not finite is refused: a NaN score is a failure, not a bad score.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from perseid.api.base import Fraction, RecordedModel, Text
from perseid.api.lifecycle import BudgetSpec

RESULT_SCHEMA: Literal[1] = 1
"""Version of the files' shape. Fields may be added under the same version; anything else needs the next one."""

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0.0)]
Difference = Annotated[float, Field(ge=-1.0, le=1.0)]
Uri = Annotated[str, Field(min_length=1, max_length=1024)]
RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", max_length=36)]
Message = Annotated[str, Field(max_length=1024)]


class ModelRef(RecordedModel):
    """A model of the run's lineage."""

    uri: Uri
    """Where its directory lies. For the base model: `spec.model.ref`."""
    model_id: Text | None = None
    """Identity of the weights, the same wherever they lie. None for a base model that nothing has read yet."""
    generation: Annotated[int, Field(ge=-1)]
    """The generation that made it; -1 for the base."""

    @property
    def is_base(self) -> bool:
        """Whether it is the model that the run started from."""
        return self.generation < 0


class Score(RecordedModel):
    """pass@1 of one model on one set."""

    pass_at_1: Fraction
    low: Fraction
    high: Fraction
    problems: Annotated[int, Field(ge=1)]
    """Problems that were scored."""
    samples: Annotated[int, Field(ge=1)]
    """Answers to each problem."""
    pass_at: dict[str, Fraction] = {}
    """pass@k by k, for every k of `spec.evaluation.k`."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low <= self.high:
            raise ValueError(f"the interval runs from {self.low} to {self.high}")
        return self


class Gain(RecordedModel):
    """Difference in pass@1, candidate minus parent, paired by problem."""

    value: Difference
    low: Difference
    high: Difference

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low <= self.high:
            raise ValueError(f"the interval runs from {self.low} to {self.high}")
        return self


class SetResult(RecordedModel):
    """Both models on one set of problems."""

    name: Text
    """The set's title."""
    parent: Score
    """The model that the generation started from."""
    candidate: Score | None = None
    """The generation's own model; None where it made none."""
    gain: Gain | None = None
    """None where there is no candidate."""

    @model_validator(mode="after")
    def _gain_needs_a_candidate(self) -> Self:
        if (self.candidate is None) != (self.gain is None):
            raise ValueError("candidate and gain stand together or not at all")
        return self


class YieldCounts(RecordedModel):
    """What became of the answers: kept + dropped by reason = total."""

    total: Count
    kept: Count
    dropped: dict[str, Count] = {}
    """Count by reason."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        dropped = sum(self.dropped.values())
        if self.kept + dropped != self.total:
            raise ValueError(f"kept {self.kept} + dropped {dropped} is not total {self.total}")
        return self

    @staticmethod
    def sum(parts: Iterable[YieldCounts]) -> YieldCounts:
        """Those of several stages together."""
        known = list(parts)
        reasons = sorted({reason for one in known for reason in one.dropped})
        return YieldCounts(
            total=sum(one.total for one in known),
            kept=sum(one.kept for one in known),
            dropped={reason: sum(one.dropped.get(reason, 0) for one in known) for reason in reasons},
        )


class StageUsage(RecordedModel):
    """What a stage used."""

    calls: Count = 0
    """Model calls."""
    prompt_tokens: Count = 0
    cached_tokens: Count = 0
    """Prompt tokens that came from the prefix cache."""
    completion_tokens: Count = 0
    seconds: Seconds = 0.0
    """Wall-clock time, over all restarts of the stage; that of shards is added up."""
    cost: Annotated[float, Field(ge=0.0)] = 0.0
    """Of paid models, in the currency of their price table."""
    paid_tokens: Count = 0
    """Of paid models, prompts and answers; the counts above have them too."""

    @staticmethod
    def sum(parts: Iterable[StageUsage]) -> StageUsage:
        """Of several stages together."""
        values = [one.model_dump(by_alias=False) for one in parts]
        return StageUsage(**{name: sum(value[name] for value in values) for name in StageUsage.model_fields})


class PaidUsage(RecordedModel):
    """What paid mentors and judges have cost."""

    cost: Annotated[float, Field(ge=0.0)] = 0.0
    """In the currency of their price table."""
    tokens: Count = 0
    """Prompts and answers."""

    @staticmethod
    def of(usages: Iterable[StageUsage]) -> PaidUsage:
        """Of several stages together."""
        known = list(usages)
        return PaidUsage(cost=sum(one.cost for one in known), tokens=sum(one.paid_tokens for one in known))


class MentorBudget(RecordedModel):
    """What paid models might cost, as `spec.budget` said when the attempt began."""

    mentor_cost: float | None = None
    mentor_tokens: int | None = None

    @staticmethod
    def of(budget: BudgetSpec) -> MentorBudget:
        """The part of a budget that is for paid models."""
        return MentorBudget(mentor_cost=budget.mentor_cost, mentor_tokens=budget.mentor_tokens)


class StageResult(RecordedModel):
    """The `result.json` of one stage."""

    schema_version: Literal[1] = RESULT_SCHEMA
    stage: Text
    state: Literal["done", "failed"]
    counts: dict[str, Count] = {}
    """What the stage made, by name."""
    metrics: dict[str, float] = {}
    """Scalars for a user interface, by name."""
    usage: StageUsage = StageUsage()
    error: Message | None = None
    """Why it failed, and what to do."""
    spent_budget: MentorBudget | None = None
    """The budget that kept it from getting on, where one did: with this one another try fails like this one."""

    @model_validator(mode="after")
    def _failure_has_its_error(self) -> Self:
        if (self.state == "failed") != (self.error is not None):
            raise ValueError("a failed stage says its error, and only a failed one")
        if self.spent_budget is not None and self.state != "failed":
            raise ValueError("a stage that is done was not kept from it by a budget")
        return self


class StageScore(RecordedModel):
    """What a stage changed: the dev score of the model that it made."""

    stage: Text
    model_id: Text
    score: Score
    gain: Gain
    """Over the model that the stage started from, paired by problem."""


class WinRate(RecordedModel):
    """A set's answers of the generation's model against those of its start model, judged in both orders."""

    set: Text
    """The set's title."""
    criterion: Text
    questions: Count
    """With a verdict."""
    unjudged: Count = 0
    won: Fraction
    tied: Fraction
    """Orders that disagree are a tie."""
    lost: Fraction
    win_rate: Fraction
    """Won, and half of what was tied: 0.5 is a draw."""
    low: Fraction
    high: Fraction


JudgeScore = Annotated[float, Field(ge=0.0, le=10.0)]


class MeanScore(RecordedModel):
    """A judge's scores of one model's answers to a set, each by itself."""

    set: Text
    """The set's title."""
    model: Literal["parent", "candidate"]
    mean: JudgeScore
    low: JudgeScore
    high: JudgeScore
    scored: Count
    """Questions with a score."""
    unscored: Count = 0


class GenerationResult(RecordedModel):
    """The `result.json` of an attempt, written by its last stage. Without it a run that succeeded is not a success."""

    schema_version: Literal[1] = RESULT_SCHEMA
    generation: Count
    attempt: Count
    run_id: RunId
    candidate: ModelRef | None
    """The generation's model; None when training was skipped."""
    parent_model_id: Text | None = None
    """Identity of the weights that the generation started from."""
    reason: Message | None = None
    """Why there is no candidate."""
    dev: SetResult | None = None
    """Decides the promotion. May be absent only where there is no candidate."""
    test: Annotated[list[SetResult], Field(max_length=40)] = []
    """For the report only. Where two dev sets decide together, their own scores come first."""
    lineage: Annotated[list[StageScore], Field(max_length=8)] = []
    """Models that the attempt's stages have made on its way, in their order; the last one is the candidate."""
    wins: Annotated[list[WinRate], Field(max_length=128)] = []
    """By set and criterion, where a model judges."""
    judged: Annotated[list[MeanScore], Field(max_length=64)] = []
    """By set and model, where a model judges."""
    yields: YieldCounts
    """What became of the answers that could have been training data."""
    usage: dict[str, StageUsage] = {}
    """By stage."""
    metrics: dict[str, dict[str, float]] = {}
    """What the stages before the last have said of themselves, by stage and name."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.candidate is None:
            if self.reason is None:
                raise ValueError("a generation without a candidate says its reason")
            if self.dev is not None and self.dev.candidate is not None:
                raise ValueError("dev scores a candidate, but there is none")
            return self
        if self.dev is None or self.dev.gain is None:
            raise ValueError("a generation with a candidate needs its score and gain on dev")
        if self.candidate.generation != self.generation:
            raise ValueError(f"the candidate is of generation {self.candidate.generation}, not {self.generation}")
        return self


class ResultError(Exception):
    """A `result.json` that cannot be trusted; the message says which field and why."""


def parse_result(text: str | bytes) -> GenerationResult:
    """Read a generation's `result.json`. Raises ResultError."""
    try:
        return GenerationResult.model_validate_json(text)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, details['loc'])) or 'result.json'}: {details['msg'].removeprefix('Value error, ')}"
            for details in error.errors(include_url=False)
        ]
        raise ResultError("; ".join(problems[:5])) from error
