"""Search trees as a page shows them: bounded, with the outcome of each path, and how well each score foretold it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path

from perseid.api.files import TREES
from perseid.data.errors import DataError
from perseid.data.records import TreeRecord
from perseid.evaluation.calibration import Observation
from perseid.report.calibrations import PARTS
from perseid.report.files import read_places, read_record, spread
from perseid.search.evaluators import likelihood_score
from perseid.search.tree import Node, Tree

NODES_SHOWN = 60
"""Of one tree: those of its plans first, then the most visited."""

MOST = 10.0
"""An evaluator's highest score: of execution, that all tests passed with all code that was made."""

Steps = tuple[str, ...]
Outcome = tuple[int, int]
"""Answers that passed, and answers with a verdict."""


@dataclass(slots=True)
class NodeView:
    """A step, and those that follow it."""

    id: int
    """Of the tree's node; 0 is the root."""
    step: str
    visits: int
    value: float | None
    score: float | None
    logprob: float | None
    """Per token, natural logarithm."""
    reflection: str | None
    terminal: str | None
    simulated: bool
    evidence: dict[str, float | str | None]
    best: bool
    """On the best path."""
    outcome: Outcome | None
    """Of the answers that were made from the path that ends here; None where there are none."""
    children: list[NodeView] = field(default_factory=list)
    left_out: int = 0
    """Children that are not shown."""


@dataclass(frozen=True, slots=True)
class TreeView:
    """One problem's search."""

    problem_id: str
    question: str
    stop_reason: str
    solved: bool | None
    failure: str | None
    nodes: int
    """Steps of the whole tree."""
    shown: int
    depth: int
    counts: dict[str, int]
    outcome: Outcome | None
    """Of all answers to the problem."""
    root: NodeView
    best_path: list[str]


@dataclass(slots=True)
class SearchView:
    """A generation's searches."""

    trees: int = 0
    nodes: int = 0
    stopped: Counter[str] = field(default_factory=Counter)
    shown: list[TreeView] = field(default_factory=list)
    observations: dict[str, list[Observation]] = field(default_factory=lambda: defaultdict(list))
    """Scores of steps against verdicts on answers that were made from them, by what gave the score."""

    @property
    def without_plans(self) -> bool:
        """No plan was wanted (`search.algorithm: direct`): the trees are roots."""
        return self.nodes == 0 and self.stopped["complete"] == self.trees > 0


def read_search(stage: Path, outcomes: Mapping[str, Mapping[Steps, Sequence[bool]]], most: int) -> SearchView | None:
    """The searches of a synthesize stage's directory, with at most `most` trees in them; None before it has ended.

    `outcomes` are verdicts by problem and plan. Raises DataError.
    """
    path = stage / TREES
    if not path.exists():
        return None
    view = SearchView()
    places: dict[str, int] = {}
    for place, record in read_places(path, TreeRecord):
        tree = tree_of(record, path)
        places[record.problem_id] = place
        view.trees += 1
        view.nodes += len(tree.nodes) - 1
        view.stopped[record.stop_reason] += 1
        _observe(view, record, tree, outcomes.get(record.problem_id, {}))
    _drop_copies(view.observations)
    chosen = _chosen(places, outcomes, most)
    for record in (read_record(path, place, TreeRecord) for name, place in places.items() if name in chosen):
        view.shown.append(view_tree(record, tree_of(record, path), outcomes.get(record.problem_id, {}), NODES_SHOWN))
    return view


def tree_of(record: TreeRecord, path: Path) -> Tree:
    """The tree in a record of the file at `path`. Raises DataError."""
    try:
        return Tree.from_dict(record.tree)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: the tree of {record.problem_id} cannot be read: {error}") from error


def _chosen(
    problems: Iterable[str], outcomes: Mapping[str, Mapping[Steps, Sequence[bool]]], most: int
) -> frozenset[str]:
    """Problems whose trees are shown: as many solved ones as others, as far as there are both."""
    groups: dict[bool, list[str]] = {True: [], False: []}
    for problem in problems:
        groups[any(map(any, outcomes.get(problem, {}).values()))].append(problem)
    solved = min(len(groups[True]), max(most - len(groups[False]), most // 2))
    return frozenset([*spread(groups[True], solved), *spread(groups[False], most - solved)])


def _find(tree: Tree, steps: Sequence[str]) -> Node | None:
    """Where a path of these steps ends; None where the tree has none."""
    node = tree.root
    for step in steps:
        found = next((child for child in tree.children(node) if child.step == step), None)
        if found is None:
            return None
        node = found
    return node if steps else None


def _observe(view: SearchView, record: TreeRecord, tree: Tree, outcomes: Mapping[Steps, Sequence[bool]]) -> None:
    """A step whose code the search has run is judged by that code: by its own answers' verdicts where conversion has
    them, else by whether all of it passed. Any other step is judged by the answers to the plans that go through it."""
    through: dict[int, list[tuple[Steps, bool]]] = defaultdict(list)
    for steps, verdicts in outcomes.items():
        end = _find(tree, steps)
        for node in tree.lineage(end) if end is not None else ():
            through[node.id] += [(steps, right) for right in verdicts]
    for node in tree.nodes[1:]:
        path = tree.path(node)
        executed = _number(node.evidence.get("execution"))
        seen = through[node.id]
        if executed is not None:
            seen = [(path, right) for right in outcomes.get(path, (executed >= MOST,))]
        scores = {"step-value": node.value, "step-score": node.score, "step-likelihood": _per_token(node)}
        scores |= {f"part-{name}": _number(node.evidence[name]) for name in PARTS if name in node.evidence}
        for plan, right in seen:
            for name, score in scores.items():
                view.observations[name].append(
                    Observation(record.problem_id, score, right, scored=f"{node.id}", plan="\n".join(plan))
                )


def _drop_copies(observations: dict[str, list[Observation]]) -> None:
    """Where one score is the whole evaluator, it stands there once."""
    said = observations.get("step-score", [])
    if observations.get("part-ladder") == said:
        observations.pop("part-ladder", None)
    likelihoods = observations.get("step-likelihood", [])
    if any(one.score is not None for one in said) and all(
        (one.score is None) == (other.score is None)
        and (one.score is None or other.score is None or isclose(one.score, likelihood_score(other.score)))
        for one, other in zip(said, likelihoods, strict=True)
    ):
        observations.pop("step-score")


def view_tree(record: TreeRecord, tree: Tree, outcomes: Mapping[Steps, Sequence[bool]], most: int) -> TreeView:
    """The tree with at most `most` steps, and the verdicts on the answers that were made from its paths."""
    ends = {steps: _find(tree, steps) for steps in outcomes}
    best = _find(tree, [str(step) for step in record.paths[0]["steps"]]) if record.paths else None
    path = [] if best is None else tree.lineage(best)
    tried = [node for end in ends.values() if end is not None for node in tree.lineage(end)]
    shown = _shown(tree, [*path, *tried], most)
    verdicts: dict[int, list[bool]] = defaultdict(list)
    for steps, end in ends.items():
        if end is not None:
            verdicts[end.id] += outcomes[steps]
    on_path = {node.id for node in path}
    views: dict[int, NodeView] = {}
    for node in tree.nodes:  # a parent comes before its children
        if node.id not in shown:
            continue
        views[node.id] = one = NodeView(
            id=node.id,
            step=node.step,
            visits=node.visits,
            value=node.value,
            score=node.score,
            logprob=_per_token(node),
            reflection=node.reflection,
            terminal=node.terminal,
            simulated=node.simulated,
            evidence=node.evidence,
            best=node.id in on_path,
            outcome=outcome_of(verdicts.get(node.id, ())),
            left_out=sum(1 for child in node.children if child not in shown),
        )
        if node.parent is not None:
            views[node.parent].children.append(one)
    return TreeView(
        problem_id=record.problem_id,
        question=tree.question,
        stop_reason=record.stop_reason,
        solved=record.solved,
        failure=record.failure,
        nodes=len(tree.nodes) - 1,
        shown=len(shown) - 1,
        depth=max(node.depth for node in tree.nodes),
        counts=record.counts,
        outcome=outcome_of([right for each in outcomes.values() for right in each]),
        root=views[0],
        best_path=[node.step for node in path],
    )


def _shown(tree: Tree, first: Sequence[Node], most: int) -> set[int]:
    """Nodes to show, each with all that it stands on; the root is always one of them."""
    shown = {0}
    rest = sorted(tree.nodes[1:], key=lambda node: (-node.visits, -(node.value or 0.0), node.id))
    for node in [*first, *rest]:
        line = {each.id for each in tree.lineage(node)}
        if len(shown | line) <= most + 1:
            shown |= line
    return shown


def _number(evidence: float | str | None) -> float | None:
    return evidence if isinstance(evidence, int | float) else None


def _per_token(node: Node) -> float | None:
    return None if node.logprob is None or not node.tokens else node.logprob / node.tokens


def outcome_of(verdicts: Sequence[bool]) -> Outcome | None:
    """How many of the verdicts say right; None without any."""
    return (sum(verdicts), len(verdicts)) if verdicts else None
