"""Two models of two runs, or of one, side by side: settings, scores paired by problem, tokens and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from perseid.api.identity import Change, spec_changes
from perseid.api.layout import Layout
from perseid.api.result import GenerationResult, StageUsage
from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus, GenerationStatus
from perseid.data.errors import DataError
from perseid.evaluation.passk import bootstrap_interval, paired_difference
from perseid.evaluation.scores import EvaluationResult
from perseid.report.files import read_document
from perseid.report.gains import ProblemGain
from perseid.report.overview import read_overview
from perseid.report.stages import shown_attempt
from perseid.report.summary import evaluation_store

Which = int | Literal["base", "best"]
"""A generation's own model, the model that the run started from, or the best one so far."""
MEASURES = ("spec.evaluation", "spec.sandbox", "spec.meteor.judge")
"""Settings under which a score means something else."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models."""

    run: str
    which: str
    """In words: `best model (generation 1)`."""
    model_id: str
    usage: StageUsage
    """Of the run's stages that have ended; of the model's own generation where the two are of one run, none of the
    base."""


@dataclass(frozen=True, slots=True)
class SetVersus:
    """Both models on the problems that both were scored on."""

    first_name: str
    second_name: str
    """What the set is called in each run."""
    problems: int
    left_out: int
    """Problems that only one of them was scored on."""
    first: tuple[float, float, float]
    """pass@1 on the shared problems, and the ends of its interval."""
    second: tuple[float, float, float]
    difference: tuple[float, float, float]
    """Second minus first, paired by problem."""
    gained: list[ProblemGain]
    """Problems on which the second passes more, the greatest gain first."""
    lost: list[ProblemGain]


@dataclass(frozen=True, slots=True)
class Versus:
    """The comparison."""

    first: Side
    second: Side
    confidence: float
    sets: list[SetVersus]
    changes: list[Change]
    """Settings that differ."""

    @property
    def measured_differently(self) -> list[str]:
        """Settings that differ and say what a score is."""
        return [one.path for one in self.changes if one.path.startswith(MEASURES)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        for name, side in (("first", self.first), ("second", self.second)):
            plain[name]["usage"] = side.usage.model_dump(by_alias=False)
        return {**plain, "measured_differently": self.measured_differently}


@dataclass(frozen=True, slots=True)
class RunFiles:
    """A run, what is known of it, and its directory."""

    run: EvolutionRun
    status: EvolutionRunStatus
    root: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.metadata.name


class NothingSharedError(DataError):
    """Two models were scored on no problem in common."""


def compare_models(first: RunFiles, second: RunFiles, of_first: Which, of_second: Which) -> Versus:
    """The second model against the first.

    Raises DataError where one is not there, and NothingSharedError where they share no problem.
    """
    one_run = first.root == second.root
    sides = [_side(files, which, alone=one_run) for files, which in ((first, of_first), (second, of_second))]
    stores = [_scores(files, side) for files, side in zip((first, second), sides, strict=True)]
    spec = first.run.spec.evaluation
    sets = [
        _set(mine, other, resamples=spec.bootstrap, confidence=spec.confidence, seed=first.run.spec.seed)
        for mine in stores[0]
        if (other := _counterpart(mine, stores[1])) is not None
    ]
    if not sets:
        raise NothingSharedError(
            f"{first.name} and {second.name} share no problem: {_told(first, stores[0])}, {_told(second, stores[1])};"
            " compare runs with an evaluation set in common (spec.problems.dev or test)"
        )
    return Versus(sides[0], sides[1], spec.confidence, sets, spec_changes(first.run.spec, second.run.spec))


def _side(files: RunFiles, which: Which, *, alone: bool) -> Side:
    results = {one.index: _result(files, one) for one in files.status.generations}
    base = next((one.parent_model_id for index, one in results.items() if index == 0 and one is not None), None)
    usage = read_overview(files.run, files.status, files.root).usage
    promoted = files.status.promoted
    if which == "best" and promoted is not None and not promoted.is_base:
        best = None if promoted.generation is None else results.get(promoted.generation)
        own = StageUsage() if best is None else StageUsage.sum(best.usage.values())
        words = f"best model (generation {promoted.generation})"
        return Side(files.name, words, promoted.model_id or "", own if alone else usage)
    if which in ("base", "best"):
        if base is None:
            raise DataError(
                f"{files.name} has no scores yet: its first generation is not over; `perseid show {files.root}` tells"
                " how far it is"
            )
        words = "base model" if which == "base" else "base model (nothing was promoted)"
        return Side(files.name, words, base, StageUsage() if alone else usage)
    result = results.get(which) if isinstance(which, int) else None
    if result is None or result.candidate is None:
        made = [str(index) for index, one in results.items() if one is not None and one.candidate is not None]
        there = f"those of generation {', '.join(made)} are there" if made else "none has made one yet"
        raise DataError(f"{files.name} has no model of generation {which}; {there}, counted from 0")
    own = StageUsage.sum(result.usage.values()) if alone else usage
    return Side(files.name, f"model of generation {which}", result.candidate.model_id or "", own)


def _result(files: RunFiles, known: GenerationStatus) -> GenerationResult | None:
    return read_document(Layout(files.root, known.index, shown_attempt(files.status, known)).result, GenerationResult)


def _scores(files: RunFiles, side: Side) -> list[EvaluationResult]:
    store = evaluation_store(files.root)
    return [result for (_, model), result in store.items() if model == side.model_id]


def _counterpart(mine: EvaluationResult, others: Sequence[EvaluationResult]) -> EvaluationResult | None:
    """The set with the most problems of `mine`, one of its name before others; None where none shares any."""
    ids = {one.problem_id for one in mine.problems}
    shared = [(len(ids & {one.problem_id for one in other.problems}), other) for other in others]
    ranked = sorted(shared, key=lambda pair: (-pair[0], pair[1].set_name != mine.set_name))
    return ranked[0][1] if ranked and ranked[0][0] else None


def _set(
    first: EvaluationResult, second: EvaluationResult, *, resamples: int, confidence: float, seed: int
) -> SetVersus:
    rates = [{one.problem_id: one.pass_rate for one in result.problems} for result in (first, second)]
    shared = sorted(rates[0].keys() & rates[1].keys())
    pair = [{name: rate[name] for name in shared} for rate in rates]
    found = paired_difference(pair[0], pair[1], resamples=resamples, confidence=confidence, seed=seed)
    values = []
    for rate in pair:
        numbers = list(rate.values())
        interval = bootstrap_interval(numbers, resamples=resamples, confidence=confidence, seed=seed)
        values.append((sum(numbers) / len(numbers), interval.low, interval.high))
    rows = sorted((ProblemGain(name, pair[0][name], pair[1][name]) for name in shared), key=lambda one: -one.gain)
    return SetVersus(
        first_name=first.set_name,
        second_name=second.set_name,
        problems=len(shared),
        left_out=len(rates[0].keys() ^ rates[1].keys()),
        first=values[0],
        second=values[1],
        difference=(found.difference, found.interval.low, found.interval.high),
        gained=[one for one in rows if one.gain > 0],
        lost=[one for one in reversed(rows) if one.gain < 0],
    )


def _told(files: RunFiles, results: Sequence[EvaluationResult]) -> str:
    sets = ", ".join(f"{one.set_name} ({len(one.problems)})" for one in results)
    return f"{files.name} was scored on {sets or 'nothing'}"
