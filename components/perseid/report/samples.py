"""Answers as a page shows them: the plan, the code, what the tests said, and what became of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from perseid.api.files import CANDIDATES, DROPPED, SAMPLES
from perseid.data.records import Candidate, Dropped, TrainingSample
from perseid.evaluation.calibration import Observation
from perseid.report.files import read_places, read_record, read_records, spread
from perseid.report.trees import Steps

KEPT = "kept"


@dataclass(frozen=True, slots=True)
class SampleView:
    """One answer."""

    candidate: Candidate
    fate: str
    """`kept`, or why it was dropped."""
    detail: str


@dataclass(slots=True)
class AnswersView:
    """A generation's code answers to train problems."""

    total: int = 0
    with_code: int = 0
    judged: int = 0
    passed: int = 0
    kept: int = 0
    problems: int = 0
    solved: int = 0
    """Problems with an answer that passed."""
    fates: Counter[str] = field(default_factory=Counter)
    shown: list[SampleView] = field(default_factory=list)
    outcomes: dict[str, dict[Steps, list[bool]]] = field(default_factory=dict)
    """Verdicts by problem and plan."""
    observations: dict[str, list[Observation]] = field(default_factory=lambda: defaultdict(list))
    """Scores of answers against their verdicts, by what gave the score."""


def read_answers(stage: Path, most: int) -> AnswersView | None:
    """The answers of a convert stage's directory, `most` of them to be shown; None before it has ended.

    Raises DataError.
    """
    path = stage / CANDIDATES
    if not path.exists():
        return None
    kept = {one.id for one in read_records(stage / SAMPLES, TrainingSample)}
    dropped = {one.id: one for one in read_records(stage / DROPPED, Dropped)}
    view = AnswersView(kept=len(kept))
    problems: set[str] = set()
    solved: set[str] = set()
    ids: dict[str, list[str]] = defaultdict(list)
    places: dict[str, int] = {}
    for place, one in read_places(path, Candidate):
        places[one.id] = place
        problems.add(one.problem_id)
        view.total += 1
        view.with_code += one.code is not None
        fate = _fate(one, kept, dropped)
        view.fates[fate] += 1
        ids[fate].append(one.id)
        if one.passed is not None:
            view.judged += 1
            view.passed += one.passed
            view.outcomes.setdefault(one.problem_id, {}).setdefault(one.plan, []).append(one.passed)
            # One value for all answers of a plan: it cannot order them, and is not asked to.
            view.observations["plan-value"].append(
                Observation(one.problem_id, one.value, one.passed, scored=f"{one.plan_index}")
            )
            for name, score in (("likelihood", one.mean_logprob), ("ladder", one.score)):
                view.observations[name].append(Observation(one.problem_id, score, one.passed))
        if one.passed:
            solved.add(one.problem_id)
    view.problems, view.solved = len(problems), len(solved)
    chosen = _chosen(ids, most)
    for one in (read_record(path, place, Candidate) for name, place in places.items() if name in chosen):
        why = dropped.get(one.id)
        view.shown.append(SampleView(one, _fate(one, kept, dropped), "" if why is None else why.detail))
    return view


def _fate(one: Candidate, kept: set[str], dropped: dict[str, Dropped]) -> str:
    if one.id in kept:
        return KEPT
    return dropped[one.id].reason if one.id in dropped else "unknown"


def _chosen(ids: dict[str, list[str]], most: int) -> set[str]:
    """Some of every fate: a page of kept answers alone would look too good."""
    chosen: set[str] = set()
    for left, fate in zip(range(len(ids), 0, -1), sorted(ids, key=lambda name: len(ids[name])), strict=True):
        chosen.update(spread(ids[fate], (most - len(chosen)) // left))
    return chosen
