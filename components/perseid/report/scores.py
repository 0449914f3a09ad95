"""Scores by generation: the base, and what each generation's model was worth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from perseid.api.reasons import GenerationPhase
from perseid.api.result import GenerationResult, SetResult


@dataclass(frozen=True, slots=True)
class ScorePoint:
    """A model's score on a set. Shares from 0 to 1."""

    label: str
    value: float
    low: float
    high: float
    promoted: bool


@dataclass(frozen=True, slots=True)
class ScoresView:
    """The scores of all generations' models on one set, the base first."""

    name: str
    decides: bool
    problems: int
    samples: int
    points: list[ScorePoint]


def score_views(generations: Iterable[tuple[GenerationResult | None, str]]) -> list[ScoresView]:
    """By set, in the order of the results: pairs of a generation's result, if it has one yet, and its phase."""
    found: dict[str, ScoresView] = {}
    for result, phase in generations:
        if result is None or result.dev is None:
            continue
        for one in (result.dev, *result.test):
            view = found.get(one.name)
            if view is None:
                start = "base" if result.generation == 0 else "start"
                view = ScoresView(one.name, one is result.dev, one.parent.problems, one.parent.samples, [])
                view.points.append(ScorePoint(start, one.parent.pass_at_1, one.parent.low, one.parent.high, True))
                found[one.name] = view
            view.points.extend(_point(one, result.generation, phase))
    return list(found.values())


def _point(one: SetResult, generation: int, phase: str) -> Iterator[ScorePoint]:
    score = one.candidate
    if score is not None:
        promoted = phase == GenerationPhase.PROMOTED.value
        yield ScorePoint(f"{generation}", score.pass_at_1, score.low, score.high, promoted)
