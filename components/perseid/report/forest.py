"""The search trees of one generation, to be listed and looked at one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from perseid.api.fields import nearest
from perseid.api.files import CANDIDATES, TREES
from perseid.api.layout import Layout
from perseid.api.spec import EvolutionRun
from perseid.api.stages import SHARDED_STAGE
from perseid.api.status import EvolutionRunStatus
from perseid.data.errors import DataError
from perseid.data.records import Candidate, TreeRecord
from perseid.report.files import read_places, read_record, read_records
from perseid.report.stages import shown_attempt
from perseid.report.trees import Outcome, Steps, TreeView, outcome_of, tree_of, view_tree

ALL_NODES = 100_000
"""More than any tree has: a terminal shows all of it."""


@dataclass(frozen=True, slots=True)
class TreeLine:
    """A problem's search in a line."""

    problem_id: str
    nodes: int
    """Steps, the root not counted."""
    depth: int
    best_value: float | None
    """What its best path was ranked by, 0 to 10: value or score, as the profile says. None where it has none."""
    solved: bool | None
    """The model's own word on its best path; None where it was not asked."""
    stop_reason: str
    failure: str | None
    outcome: Outcome | None
    """Answers that passed, and answers with a verdict; None before there are any."""


@dataclass(frozen=True, slots=True)
class GrownTree:
    """A tree with the answers that were made from its paths."""

    view: TreeView
    answers: dict[Steps, list[Candidate]]
    """By plan, in the order of the answers."""


@dataclass(frozen=True, slots=True)
class Forest:
    """A generation's trees."""

    generation: int
    layout: Layout
    places: Mapping[str, tuple[Path, int]]
    """By problem: the file, and the byte at which its record begins."""
    lines: list[TreeLine]

    def tree(self, problem_id: str) -> GrownTree:
        """A problem's tree, whole. Raises DataError."""
        if problem_id not in self.places:
            raise DataError(self._unknown(problem_id))
        path, place = self.places[problem_id]
        record = read_record(path, place, TreeRecord)
        answers: dict[Steps, list[Candidate]] = {}
        for one in read_records(self.layout.stage("convert") / CANDIDATES, Candidate):
            if one.problem_id == problem_id:
                answers.setdefault(one.plan, []).append(one)
        verdicts = {
            steps: [one.passed for one in made if one.passed is not None]
            for steps, made in answers.items()
        }  # fmt: skip
        return GrownTree(view_tree(record, tree_of(record, path), verdicts, ALL_NODES), answers)

    def _unknown(self, problem_id: str) -> str:
        near = [name for name in self.places if problem_id.lower() in name.lower()][:3]
        guess = nearest(problem_id, self.places)
        meant = list(dict.fromkeys([*([] if guess is None else [guess]), *near]))
        hint = (
            f"did you mean {' or '.join(meant)}?" if meant else "without a problem, `perseid tree` lists those it has"
        )
        return f"generation {self.generation} has no tree of a problem {problem_id}; {hint}"


def read_forest(run: EvolutionRun, status: EvolutionRunStatus, root: Path, generation: int | None = None) -> Forest:
    """The trees of a generation, by default of the newest that has any: also of shards that are not joined yet.

    Raises DataError.
    """
    if SHARDED_STAGE not in run.spec.stages:
        raise DataError(
            f"{run.metadata.name} has no search trees: its method is {', '.join(run.spec.methods)}, and only sra-mcts"
            " keeps trees"
        )
    known = {one.index: Layout(root, one.index, shown_attempt(status, one)) for one in status.generations}
    if generation is not None and generation not in known:
        has = f"it has {', '.join(map(str, known))}" if known else "it has none yet"
        raise DataError(f"{run.metadata.name} has no generation {generation}; {has}, counted from 0")
    asked = [generation] if generation is not None else sorted(known, reverse=True)
    for index in asked:
        files = _files(known[index])
        if files:
            return _forest(index, known[index], files)
    which = "no generation" if generation is None else f"generation {generation}"
    raise DataError(
        f"{run.metadata.name} has no search trees yet ({which}): a search writes them when it has ended; `perseid show"
        f" {root}` tells how far it is"
    )


def _files(layout: Layout) -> list[Path]:
    """The stage's own file, which has the trees of all its shards; those of the shards before it is there."""
    own = layout.stage(SHARDED_STAGE) / TREES
    files = [own] if own.exists() else [part / TREES for part in layout.parts(SHARDED_STAGE)]
    return [file for file in files if file.exists()]


def _forest(index: int, layout: Layout, files: list[Path]) -> Forest:
    verdicts: dict[str, list[bool]] = {}
    for answer in read_records(layout.stage("convert") / CANDIDATES, Candidate):
        if answer.passed is not None:
            verdicts.setdefault(answer.problem_id, []).append(answer.passed)
    places: dict[str, tuple[Path, int]] = {}
    lines = []
    for file in files:
        for place, record in read_places(file, TreeRecord):
            places[record.problem_id] = (file, place)
            tree = tree_of(record, file)
            best = record.paths[0]["value"] if record.paths else None
            lines.append(
                TreeLine(
                    problem_id=record.problem_id,
                    nodes=len(tree.nodes) - 1,
                    depth=max(node.depth for node in tree.nodes),
                    best_value=best,
                    solved=record.solved,
                    stop_reason=record.stop_reason,
                    failure=record.failure,
                    outcome=outcome_of(verdicts.get(record.problem_id, ())),
                )
            )
    return Forest(index, layout, places, lines)
