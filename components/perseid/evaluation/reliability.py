"""How sure it is that a score tells right answers from wrong ones: intervals, and value against outcome.

Pure functions. Intervals are percentile bootstraps over problems, because answers to one problem are not independent of
each other. A draw that has not both right and wrong answers has no figure, and is left out of the interval. Shares of
few answers are often 0 or 1, where a bootstrap has no width at all: they have Wilson's interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from perseid.data.estimates import Estimate, Floats, draws, percentile_estimate
from perseid.data.records import Record
from perseid.evaluation.calibration import Calibration, Observation, calibrate, ordered_inside

Judgement = Literal["informative", "noise", "inverted", "unknown"]
"""`noise`: the interval contains 0.5, a coin. `inverted`: it lies below: the lower the score, the better. `unknown`: no
interval."""

LEAST_PROBLEMS = 5
"""A bootstrap over fewer problems claims a certainty that is not there; over one alone it has no width at all."""
MOST_BINS, ANSWERS_IN_BIN = 10, 10
"""Bins, and answers that are wanted in each: of fewer, a share says nothing."""


class Bin(Record):
    """Answers with nearly the same score, and how many of them are right."""

    lowest: float
    """Score, as the two that follow."""
    mean: float
    highest: float
    answers: Annotated[int, Field(ge=1)]
    right_share: float
    interval: Estimate
    """Of `right_share`: Wilson's, with each problem as one answer."""


class Reliability(Record):
    """A calibration with its uncertainty."""

    calibration: Calibration
    problems: int
    """With a scored answer: what is drawn again."""
    confidence: float
    auc: Estimate | None
    """None where the calibration has none, or of fewer than LEAST_PROBLEMS problems."""
    within_problem: Estimate | None
    """The same for the order inside problems; counted are problems that have a pair of a right and a wrong answer."""
    bins: tuple[Bin, ...]
    """In the order of the score, of about as many answers each; equal scores are in one bin."""

    @property
    def judgement(self) -> Judgement:
        """What the order inside problems says of the score, because there something is chosen by it; where that has no
        interval, what the AUC says."""
        return judge(self.auc if self.within_problem is None else self.within_problem)


def judge(estimate: Estimate | None) -> Judgement:
    """What an interval of the share of pairs in order says."""
    if estimate is None:
        return "unknown"
    if estimate.contains(0.5):
        return "noise"
    return "informative" if estimate.low > 0.5 else "inverted"


def reliability(
    evaluator: str, observations: Sequence[Observation], *, resamples: int, confidence: float, seed: int
) -> Reliability:
    """Everything above for one evaluator. The order of the observations does not count."""
    table = _Table.of(observations)
    calibration = calibrate(evaluator, observations)
    edges = _bin_edges(table.score)
    inside = table.right_pairs()
    drawn = _Drawn(table, resamples, confidence, seed)
    return Reliability(
        calibration=calibration,
        problems=table.problems,
        confidence=confidence,
        auc=drawn.estimate(calibration.auc, table.auc, table.problems),
        within_problem=drawn.estimate(
            calibration.within_problem, lambda weights: _ratio(weights, *inside), int((inside[1] > 0).sum())
        ),
        bins=tuple(_bin(table, confidence, start, stop) for start, stop in edges),
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """Scored answers in the order of their scores, as arrays of the shape (answers,)."""

    seen: list[Observation]
    score: Floats
    right: npt.NDArray[np.bool_]
    problem: npt.NDArray[np.int64]
    """Number of the answer's problem."""
    problems: int

    @classmethod
    def of(cls, observations: Sequence[Observation]) -> _Table:
        # Sorted by all that counts: equal observations in another order give equal draws.
        scored = sorted(
            ((one.score, one.problem_id, one.right, one) for one in observations if one.score is not None),
            key=lambda each: each[:3],
        )
        numbers = {name: number for number, name in enumerate(sorted({problem for _, problem, _, _ in scored}))}
        return cls(
            seen=[one for *_, one in scored],
            score=np.array([score for score, *_ in scored], dtype=np.float64),
            right=np.array([right for _, _, right, _ in scored], dtype=np.bool_),
            problem=np.array([numbers[problem] for _, problem, *_ in scored], dtype=np.int64),
            problems=len(numbers),
        )

    def auc(self, weights: Floats) -> Floats:
        """AUC under weights of problems, shape (draws, problems) to (draws,); NaN without both right and wrong."""
        of_answers = weights[:, self.problem]
        starts = np.flatnonzero(np.r_[True, self.score[1:] != self.score[:-1]])
        rights = np.add.reduceat(of_answers * self.right, starts, axis=1)
        wrongs = np.add.reduceat(of_answers * ~self.right, starts, axis=1)
        below = np.cumsum(wrongs, axis=1) - wrongs
        ordered = (rights * (below + 0.5 * wrongs)).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            quotient: Floats = ordered / (rights.sum(axis=1) * wrongs.sum(axis=1))
        return quotient

    def right_pairs(self) -> tuple[Floats, Floats]:
        """Rightly ordered right/wrong pairs inside each problem, and all such pairs; shape (problems,) each."""
        groups: list[list[Observation]] = [[] for _ in range(self.problems)]
        for number, one in zip(self.problem, self.seen, strict=True):
            groups[number].append(one)
        counted = np.array([ordered_inside(group) for group in groups], dtype=np.float64).reshape(-1, 2)
        return counted[:, 0], counted[:, 1]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The same draws of problems for every figure."""

    table: _Table
    resamples: int
    confidence: float
    seed: int

    def estimate(self, value: float | None, figure: Callable[[Floats], Floats], problems: int) -> Estimate | None:
        """The value with its interval; `problems` are those that the figure is of."""
        if value is None or problems < LEAST_PROBLEMS:
            return None
        drawn = [
            figure(weights)
            for weights in draws(self.table.problems, self.table.problem.size, self.resamples, self.seed)
        ]
        return percentile_estimate(value, np.concatenate(drawn), self.confidence)


def _ratio(weights: Floats, part: Floats, whole: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Floats = (weights @ part) / (weights @ whole)
    return quotient


def _bin_edges(scores: Floats) -> list[tuple[int, int]]:
    """Start and stop of each bin among the sorted scores."""
    edges: list[tuple[int, int]] = []
    start = 0
    bins = max(2, min(MOST_BINS, scores.size // ANSWERS_IN_BIN))
    for number in range(1, bins + 1):
        stop = number * scores.size // bins
        while 0 < stop < scores.size and scores[stop] == scores[stop - 1]:
            stop += 1
        if stop > start:
            edges.append((start, stop))
            start = stop
    return edges


def _bin(table: _Table, confidence: float, start: int, stop: int) -> Bin:
    share = float(table.right[start:stop].mean())
    return Bin(
        lowest=float(table.score[start]),
        mean=float(table.score[start:stop].mean()),
        highest=float(table.score[stop - 1]),
        answers=stop - start,
        right_share=share,
        interval=_wilson(share, np.unique(table.problem[start:stop]).size, confidence),
    )


def _wilson(share: float, size: int, confidence: float) -> Estimate:
    """Score interval of a share of `size` independent draws (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * size)) / (1 + z * z / size)
    reach = z / (1 + z * z / size) * math.sqrt(share * (1 - share) / size + z * z / (4 * size * size))
    return Estimate(value=share, low=max(0.0, middle - reach), high=min(1.0, middle + reach))
