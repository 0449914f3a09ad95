"""The records of an evaluation, which later stages, promotion and the report read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from perseid.data.records import Record
from perseid.evaluation.passk import bootstrap_interval, paired_difference, pass_at_k

Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]


class AnswerRecord(Record):
    """One answer and its verdict."""

    id: str
    """`problem_id/sample_index`."""
    problem_id: str
    sample_index: Count
    text: str
    """The model's whole answer; empty where the model could not be asked."""
    code: str | None
    """The code in it; None where none is complete."""
    passed: bool
    reason: str
    """Why it did not pass; empty where it did."""
    truncated: bool
    mean_logprob: float | None
    """Per token, natural logarithm; None where the engine cannot tell."""
    tokens: Count


class ProblemScore(Record):
    """What one problem's answers were worth."""

    problem_id: str
    n: Annotated[int, Field(ge=1)]
    """Answers, those included that could not be made."""
    passed: Count
    truncated: Count = 0
    closed_code: Count = 0
    """Answers with complete code in them."""
    error: str | None = None
    """Why the model could not be asked. Its answers then count as failed."""

    @property
    def pass_rate(self) -> float:
        """Share of the answers that passed: pass@1 of the problem."""
        return self.passed / self.n

    @model_validator(mode="after")
    def _parts_are_not_more_than_the_whole(self) -> Self:
        if max(self.passed, self.truncated, self.closed_code) > self.n:
            raise ValueError(f"problem {self.problem_id}: more answers passed, truncated or closed than the {self.n}")
        return self


class PassAtK(Record):
    """An estimate over a set of problems."""

    k: Annotated[int, Field(ge=1)]
    value: Rate
    low: Rate
    high: Rate


class EvaluationResult(Record):
    """A model's score on a set of problems."""

    set_name: str
    model_id: str
    n: Annotated[int, Field(ge=1)]
    """Answers to each problem."""
    confidence: float
    """Level of the intervals."""
    pass_at: tuple[PassAtK, ...]
    problems: tuple[ProblemScore, ...]
    """In the set's order."""
    tokens: Count
    """Tokens of all answers."""
    prompt_tokens: Count
    truncated: Count
    """Answers that were cut off."""
    closed_code_share: Rate
    """Share of the answers with complete code in them."""
    failed_problems: Count
    """Problems that the model could not be asked, counted as failed answers."""
    seconds: Annotated[float, Field(ge=0.0)]

    def at(self, k: int) -> PassAtK:
        """The estimate of pass@k. Raises KeyError where it was not asked for."""
        for estimate in self.pass_at:
            if estimate.k == k:
                return estimate
        raise KeyError(f"pass@{k} of {self.set_name} was not estimated, only {[e.k for e in self.pass_at]}")


class Comparison(Record):
    """Two models on the same problems, paired by problem."""

    set_name: str
    baseline_model_id: str
    candidate_model_id: str
    problems: Annotated[int, Field(ge=1)]
    baseline: Rate
    """pass@1 of the baseline."""
    candidate: Rate
    difference: Annotated[float, Field(ge=-1.0, le=1.0)]
    """candidate - baseline."""
    low: Annotated[float, Field(ge=-1.0, le=1.0)]
    high: Annotated[float, Field(ge=-1.0, le=1.0)]
    confidence: float
    up: Count
    """Problems on which the candidate is better."""
    down: Count
    same: Count


def estimate_pass_at(
    scores: Sequence[ProblemScore], ks: Sequence[int], *, resamples: int, confidence: float, seed: int
) -> tuple[PassAtK, ...]:
    """pass@k over problems with its bootstrap interval, for each k."""
    estimates = []
    for k in sorted(set(ks)):
        values = [pass_at_k(score.n, score.passed, k) for score in scores]
        interval = bootstrap_interval(values, resamples=resamples, confidence=confidence, seed=seed)
        estimates.append(PassAtK(k=k, value=_mean(values), low=_rate(interval.low), high=_rate(interval.high)))
    return tuple(estimates)


def pooled(
    set_name: str, results: Sequence[EvaluationResult], ks: Sequence[int], *, resamples: int, seed: int
) -> EvaluationResult:
    """One model's scores on several sets as those on one set, each item counted once. One result is itself.

    Raises ValueError unless all are of one model and with as many answers to each item.
    """
    first = results[0]
    if len(results) == 1:
        return first
    if len({(one.model_id, one.n, one.confidence) for one in results}) > 1:
        raise ValueError("scores of several models, or with different numbers of answers, cannot be put together")
    problems = tuple(
        score.model_copy(update={"problem_id": f"{one.set_name}/{score.problem_id}"})
        for one in results
        for score in one.problems
    )
    answers = sum(one.n * len(one.problems) for one in results)
    return EvaluationResult(
        set_name=set_name,
        model_id=first.model_id,
        n=first.n,
        confidence=first.confidence,
        pass_at=estimate_pass_at(problems, ks, resamples=resamples, confidence=first.confidence, seed=seed),
        problems=problems,
        tokens=sum(one.tokens for one in results),
        prompt_tokens=sum(one.prompt_tokens for one in results),
        truncated=sum(one.truncated for one in results),
        closed_code_share=sum(one.closed_code_share * one.n * len(one.problems) for one in results) / answers,
        failed_problems=sum(one.failed_problems for one in results),
        seconds=sum(one.seconds for one in results),
    )


def compare(
    baseline: EvaluationResult, candidate: EvaluationResult, *, resamples: int, confidence: float, seed: int
) -> Comparison:
    """The candidate's gain over the baseline. Raises ValueError unless both were scored on the same problems."""
    if baseline.set_name != candidate.set_name:
        raise ValueError(f"scores on {baseline.set_name} and on {candidate.set_name} cannot be compared")
    first = {score.problem_id: score.pass_rate for score in baseline.problems}
    second = {score.problem_id: score.pass_rate for score in candidate.problems}
    paired = paired_difference(first, second, resamples=resamples, confidence=confidence, seed=seed)
    return Comparison(
        set_name=baseline.set_name,
        baseline_model_id=baseline.model_id,
        candidate_model_id=candidate.model_id,
        problems=len(first),
        baseline=_mean(list(first.values())),
        candidate=_mean(list(second.values())),
        difference=paired.difference,
        low=paired.interval.low,
        high=paired.interval.high,
        confidence=confidence,
        up=paired.up,
        down=paired.down,
        same=paired.same,
    )


def _mean(values: Sequence[float]) -> float:
    return _rate(sum(values) / len(values))


def _rate(value: float) -> float:
    return min(1.0, max(0.0, value))  # sums of floats can end a hair outside
