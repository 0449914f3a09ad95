"""The tree of a search, pure: no model, no clock, no randomness of its own.

A node is a step; its state is the question and the steps from the root to it (SRA-MCTS section 3). Values are scores
from 0 to 10. Nodes are numbered in the order of their creation, so equal searches give equal bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Terminal = Literal["reflection", "depth", "dead-end"]
"""Why a node gets no children: the model called the steps complete, the depth limit, or no proposal could be used."""

Evidence = dict[str, float | str | None]


@dataclass(slots=True)
class Node:
    """A step of a plan. The root has an empty step."""

    id: int
    step: str
    parent: int | None
    depth: int
    """Steps from the root; the root's is 0."""
    score: float | None = None
    """What the evaluator said, 0 to 10; None where it had no answer."""
    value: float | None = None
    """The score, changed by roll-outs and backpropagation."""
    visits: int = 0
    logprob: float | None = None
    """Sum of the log-probabilities of the tokens that the step was made of."""
    tokens: int = 0
    reflection: str | None = None
    """None where there was none."""
    terminal: Terminal | None = None
    expanded: bool = False
    closed: bool = False
    """Nothing more to find below: terminal and visited, or all children closed."""
    simulated: bool = False
    """Made by a roll-out."""
    evidence: Evidence = field(default_factory=dict)
    children: list[int] = field(default_factory=list)

    def worth(self, by: Literal["value", "score"]) -> float | None:
        """What paths are ranked by: the backpropagated value or the evaluator's own score."""
        return self.value if by == "value" else self.score


class Tree:
    """The nodes of one problem's search."""

    def __init__(self, question: str) -> None:
        self.question = question
        self.nodes: list[Node] = [Node(id=0, step="", parent=None, depth=0)]

    @property
    def root(self) -> Node:
        """The question without steps."""
        return self.nodes[0]

    def add(self, parent: Node, step: str, **known: Any) -> Node:
        """Append a child: its state is its parent's and exactly one step."""
        if not step.strip():
            raise ValueError("a step must not be empty")
        node = Node(id=len(self.nodes), step=step, parent=parent.id, depth=parent.depth + 1, **known)
        self.nodes.append(node)
        parent.children.append(node.id)
        return node

    def children(self, node: Node) -> list[Node]:
        """A node's children, oldest first."""
        return [self.nodes[child] for child in node.children]

    def lineage(self, node: Node) -> list[Node]:
        """The nodes from the root's child to `node`; empty for the root."""
        line = []
        while node.parent is not None:
            line.append(node)
            node = self.nodes[node.parent]
        return line[::-1]

    def path(self, node: Node) -> tuple[str, ...]:
        """The steps of a node's state."""
        return tuple(each.step for each in self.lineage(node))

    def key(self, node: Node) -> str:
        """Where a node stands, for seeds: the indices of the children on the way, for example `r.2.0`."""
        places = [str(self.nodes[each.parent or 0].children.index(each.id)) for each in self.lineage(node)]
        return ".".join(["r", *places])

    def close(self, node: Node) -> None:
        """Mark that nothing more is to be found below `node`, and so perhaps below its ancestors."""
        node.closed = True
        while node.parent is not None:
            node = self.nodes[node.parent]
            if not all(child.closed for child in self.children(node)):
                return
            node.closed = True

    def ranked(self, min_steps: int, by: Literal["value", "score"] = "value") -> list[Node]:
        """All nodes but the root, the best first: by value, then the deeper, then the elder (methods A.2, stop b).

        Only nodes with at least `min_steps` steps if there is one; nodes without a value come last. `by="score"` takes
        what the evaluator said in place of the backpropagated value.
        """
        nodes = [node for node in self.nodes[1:] if node.depth >= min_steps] or self.nodes[1:]
        return sorted(nodes, key=lambda node: (-_known(node.worth(by)), -node.depth, node.id))

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads."""
        return {"question": self.question, "nodes": [asdict(node) for node in self.nodes]}

    def to_json(self) -> bytes:
        """The tree as JSON in UTF-8; equal trees give equal bytes."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Tree:
        """Rebuild a tree. Raises ValueError where the nodes do not form one."""
        tree = cls(data["question"])
        names = {each.name for each in fields(Node)}
        for entry in data["nodes"]:
            if set(entry) != names:
                raise ValueError(f"node {entry.get('id')} of a stored tree has other fields: {set(entry) ^ names}")
        tree.nodes = [Node(**entry) for entry in data["nodes"]]
        for place, node in enumerate(tree.nodes):
            linked = node.parent is None if place == 0 else node.parent is not None and 0 <= node.parent < place
            if node.id != place or not linked or any(tree.nodes[c].parent != place for c in node.children):
                raise ValueError(f"node {place} of a stored tree is not linked to its parent and children")
        return tree


def _known(value: float | None) -> float:
    return -math.inf if value is None else value


@dataclass(frozen=True, slots=True)
class Ucb:
    """UCB1 as SRA-MCTS uses it: V + c * sqrt(2 ln N / n), N the parent's visits and n the child's.

    A child without visits has V + `unvisited_bonus`, or with `unvisited="first"` comes before every visited one. A
    child without a value comes after every child that has one: there is no evidence for it.
    """

    exploration: float
    unvisited: Literal["bonus", "first"]
    unvisited_bonus: float

    def score(self, parent: Node, child: Node) -> float:
        """The child's UCB1 score; infinite for unvisited-first, minus infinite without a value."""
        if child.value is None:
            return -math.inf
        if child.visits == 0:
            return math.inf if self.unvisited == "first" else child.value + self.unvisited_bonus
        return child.value + self.exploration * math.sqrt(2 * math.log(max(parent.visits, 1)) / child.visits)

    def best(self, parent: Node, children: Sequence[Node]) -> list[Node]:
        """The open children with the highest score; among unvisited-first ones, those of the highest value."""
        options = [child for child in children if not child.closed]
        scores = {child.id: (self.score(parent, child), _known(child.value)) for child in options}
        ties = [(score, value if math.isinf(score) else 0.0) for score, value in scores.values()]
        top = max(ties, default=None)
        return [child for child, tie in zip(options, ties, strict=True) if tie == top]


def blend(value: float | None, best_simulated: float | None, alpha: float) -> float | None:
    """A child's value after its roll-out: (1 - alpha) * value + alpha * the best score of the roll-out (methods A.2).

    A side without a value leaves the other's.
    """
    if value is None or best_simulated is None:
        return best_simulated if value is None else value
    return (1 - alpha) * value + alpha * best_simulated


def backpropagate(tree: Tree, starts: Sequence[Node]) -> None:
    """Count a visit for each of `starts`, siblings, and bring their values up to the root.

    Each ancestor's visits grow by the number of starts, and its value becomes the mean of its children's values
    weighted by their visits; children without a value are left out, and with no valued and visited child it keeps the
    one it had. The reference starts from the child that was rolled out, so that only children that were walked through
    count; the paper's figure starts from all new children (methods A.2).
    """
    if not starts or len({node.parent for node in starts}) != 1:
        raise ValueError("backpropagation starts from one or more siblings")
    for node in starts:
        node.visits += 1
    parent = starts[0].parent
    while parent is not None:
        ancestor = tree.nodes[parent]
        ancestor.visits += len(starts)
        seen = [(child.value, child.visits) for child in tree.children(ancestor) if child.visits]
        weighted = [(value * visits, visits) for value, visits in seen if value is not None]
        if weighted:
            ancestor.value = sum(part for part, _ in weighted) / sum(visits for _, visits in weighted)
        parent = ancestor.parent
