"""What a generation gained and lost, problem by problem: its model against the one it started from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perseid.api.result import GenerationResult
from perseid.api.spec import EvolutionRun
from perseid.evaluation.scores import Comparison, compare
from perseid.report.summary import evaluation_store

ROWS_SHOWN = 12
"""Of gains, and of losses."""


@dataclass(frozen=True, slots=True)
class ProblemGain:
    """A problem's share of right answers, before and after."""

    problem_id: str
    before: float
    after: float

    @property
    def gain(self) -> float:
        """After minus before, -1 to 1."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class GainsView:
    """One set's problems."""

    comparison: Comparison
    problems: list[ProblemGain]
    """All of them, the greatest gain first."""

    @property
    def gained(self) -> list[ProblemGain]:
        """The greatest gains."""
        return [one for one in self.problems if one.gain > 0][:ROWS_SHOWN]

    @property
    def lost(self) -> list[ProblemGain]:
        """The greatest losses."""
        return [one for one in reversed(self.problems) if one.gain < 0][:ROWS_SHOWN]


def read_gains(run: EvolutionRun, result: GenerationResult, root: Path) -> list[GainsView]:
    """By set, those that both models have scores of; none without a candidate."""
    if result.candidate is None:
        return []
    store = evaluation_store(root)
    spec = run.spec.evaluation
    views = []
    for (title, model), before in store.items():
        after = store.get((title, result.candidate.model_id))
        if model != result.parent_model_id or after is None:
            continue
        first = {one.problem_id: one.pass_rate for one in before.problems}
        rows = [ProblemGain(one.problem_id, first[one.problem_id], one.pass_rate) for one in after.problems]
        rows.sort(key=lambda one: (-one.gain, one.problem_id))
        compared = compare(before, after, resamples=spec.bootstrap, confidence=spec.confidence, seed=run.spec.seed)
        views.append(GainsView(compared, rows))
    deciding = None if result.dev is None else result.dev.name
    return sorted(views, key=lambda one: one.comparison.set_name != deciding)
