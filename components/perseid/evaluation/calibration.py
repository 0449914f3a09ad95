"""Did a score tell right answers from wrong ones? 0.5 is a coin, 1 is always, below 0.5 is the wrong way round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from perseid.data.records import Record


@dataclass(frozen=True, slots=True)
class Observation:
    """A score that was given to an answer, and whether the answer is right."""

    problem_id: str
    score: float | None
    """Larger means better, on any scale; None where the evaluator had none."""
    right: bool
    scored: str = ""
    """What the score was given to, where several answers share it: a plan, a step. Empty: this answer alone."""
    plan: str = ""
    """What the answer was made from, where an answer is observed with several scores. Empty: nothing like it."""


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
    A pair that shares its score because it shares what was scored, or that is of one plan, is no pair: no score could
    order it. None where no problem has a pair."""
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
    counted = [ordered_inside(group) for group in groups.values()]
    ordered, pairs = sum(each for each, _ in counted), sum(each for _, each in counted)
    return (ordered / pairs if pairs else None), pairs


def ordered_inside(observations: Iterable[Observation]) -> tuple[float, int]:
    """Rightly ordered right/wrong pairs of one problem, a tie counting half, and all such pairs.

    Two answers of one plan share its value, and a step with the step that follows it shares their answers: such pairs
    come out as halves whatever a score is worth, so they are left out.
    """
    known = [one for one in observations if one.score is not None]
    same_scored, same_plan, same_both = (
        _pairs_by(known, key)
        for key in (
            lambda one: one.scored,
            lambda one: one.plan,
            lambda one: one.scored and one.plan and (one.scored, one.plan),
        )
    )
    every = _pairs_by(known, lambda one: "all")
    ordered, pairs = (
        whole - scored - plan + both
        for whole, scored, plan, both in zip(every, same_scored, same_plan, same_both, strict=True)
    )
    return ordered, int(pairs)


def _pairs_by(known: Sequence[Observation], key: Callable[[Observation], Hashable]) -> tuple[float, int]:
    """Ordered and all right/wrong pairs of observations with the same key; an empty key is nobody's."""
    groups: dict[Hashable, list[Observation]] = defaultdict(list)
    for one in known:
        if name := key(one):
            groups[name].append(one)
    ordered, pairs = 0.0, 0
    for group in groups.values():
        found = _ordered_pairs([one.score or 0.0 for one in group], [one.right for one in group])
        ordered, pairs = ordered + found[0], pairs + found[1]
    return ordered, pairs


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
