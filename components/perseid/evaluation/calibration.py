"""Did a score tell right answers from wrong ones? 0.5 is a coin, 1 is always, below 0.5 is the wrong way round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from perseid.data.records import Record


@dataclass(frozen=True, slots=True)
class Observation:
    """A score that was given to an answer, and whether the answer is right."""

    problem_id: str
    score: float | None
    """Larger means better, on any scale; None where the evaluator had none."""
    right: bool


class Calibration(Record):
    """How well one evaluator's scores told right from wrong."""

    evaluator: str
    observations: int
    """Scored answers."""
    unscored: int
    right: int
    """Scored answers that are right."""
    auc: float | None
    """Over all answers; easy problems' answers score higher, so this flatters. None without both right and wrong."""
    within_problem: float | None
    """Share of right/wrong pairs of one problem that are ordered rightly, a tie counting half: what a search needs.
    None where no problem has both."""
    pairs: int
    """Such pairs."""


def auc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """Area under the ROC curve: the chance that a right answer scores above a wrong one, a tie counting half.

    By the Mann-Whitney statistic from mid-ranks. None where there are not both right and wrong answers.
    """
    ordered, pairs = _ordered_pairs(scores, right)
    return ordered / pairs if pairs else None


def within_problem_ordering(observations: Iterable[Observation]) -> tuple[float | None, int]:
    """Share of rightly ordered right/wrong pairs inside the problems, and the number of pairs; (None, 0) without."""
    groups: dict[str, list[Observation]] = defaultdict(list)
    for observation in observations:
        groups[observation.problem_id].append(observation)
    ordered, pairs = 0.0, 0
    for group in groups.values():
        scored = [(one.score, one.right) for one in group if one.score is not None]
        group_ordered, group_pairs = _ordered_pairs([score for score, _ in scored], [right for _, right in scored])
        ordered += group_ordered
        pairs += group_pairs
    return (ordered / pairs if pairs else None), pairs


def calibrate(evaluator: str, observations: Sequence[Observation]) -> Calibration:
    """Everything above for one evaluator."""
    scored = [(one.score, one.right) for one in observations if one.score is not None]
    within, pairs = within_problem_ordering(observations)
    return Calibration(
        evaluator=evaluator,
        observations=len(scored),
        unscored=len(observations) - len(scored),
        right=sum(right for _, right in scored),
        auc=auc([score for score, _ in scored], [right for _, right in scored]),
        within_problem=within,
        pairs=pairs,
    )


def _ordered_pairs(scores: Sequence[float], right: Sequence[bool]) -> tuple[float, int]:
    """Rightly ordered right/wrong pairs, ties as halves, and all pairs; in O(n log n)."""
    ranking = sorted(zip(scores, right, strict=True))
    rights = sum(right)
    rank_sum = 0.0
    start = 0
    while start < len(ranking):
        stop = start
        while stop < len(ranking) and ranking[stop][0] == ranking[start][0]:
            stop += 1
        # Ranks start+1 to stop are tied: each gets their mean.
        rank_sum += (start + 1 + stop) / 2 * sum(is_right for _, is_right in ranking[start:stop])
        start = stop
    return rank_sum - rights * (rights + 1) / 2, rights * (len(ranking) - rights)
