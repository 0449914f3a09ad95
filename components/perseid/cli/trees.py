"""Search trees in a terminal: a list of them, and one of them with its steps, visits, values and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from perseid.cli.terminal import printable
from perseid.data.records import Candidate
from perseid.report.forest import Forest, GrownTree, TreeLine
from perseid.report.trees import NodeView, Steps

GOOD, FAIR = 7.0, 4.0
"""Values from here on are green, and yellow; below they are red."""
REFLECTION_SHOWN = 300
"""Characters."""


def print_forest(console: Console, forest: Forest) -> None:
    """All problems with a tree."""
    table = Table(
        box=SIMPLE_HEAD,
        title=f"search trees of generation {forest.generation}",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("problem", overflow="fold")
    for name in ("steps", "depth", "best path", "answers passed"):
        table.add_column(name, justify="right")
    table.add_column("ended by")
    for line in forest.lines:
        table.add_row(
            printable(line.problem_id),
            f"{line.nodes}",
            f"{line.depth}",
            _value(line.best_value),
            _verdict(line),
            "failure" if line.failure else line.stop_reason,
        )
    console.print(table)
    console.print(_sum(forest.lines))


def print_tree(console: Console, grown: GrownTree, depth: int | None) -> None:
    """One tree, down to `depth` steps from its root."""
    view = grown.view
    console.print(Text(printable(view.problem_id), style="bold"))
    console.print(Text(printable(view.question), style="default"))
    counted = ", ".join(f"{name} {count}" for name, count in view.counts.items())
    said = f"{view.nodes} steps, {view.depth} deep; ended by {view.stop_reason}{'; ' + counted if counted else ''}"
    console.print(Text(said, style="dim"))
    if view.failure:
        console.print(Text(f"the search failed: {printable(view.failure)}", style="red"))
    root = Tree(Text("question", style="dim").append(f"  N {view.root.visits}"), guide_style="dim")
    _grow(root, view.root, (), grown.answers, depth)
    console.print(root)
    console.print(Text("Q value, S evaluator's score, both from 0 to 10; N visits; ★ on the best path", style="dim"))


def _grow(
    parent: Tree, node: NodeView, path: Steps, answers: Mapping[Steps, Sequence[Candidate]], depth: int | None
) -> None:
    if depth is not None and len(path) >= depth and node.children:
        below = sum(1 for _ in _below(node))
        parent.add(Text(f"{below} more step{'' if below == 1 else 's'} below", style="dim"))
        return
    for child in node.children:
        steps = (*path, child.step)
        branch = parent.add(_label(child, answers.get(steps, ())))
        _grow(branch, child, steps, answers, depth)


def _label(node: NodeView, answers: Sequence[Candidate]) -> Text:
    text = Text("★ " if node.best else "", style="bold yellow")
    text.append("Q ", style="dim").append(_value(node.value))
    text.append("  S ", style="dim").append(_value(node.score)).append(f"  N {node.visits}", style="default")
    if node.simulated:
        text.append("  from a roll-out", style="dim")
    if node.terminal:
        text.append(f"  ends: {node.terminal}", style="dim")
    text.append(f"\n{printable(node.step.strip())}", style="bold" if node.best else "default")
    if node.reflection:
        said = printable(node.reflection.strip())
        more = "…" if len(said) > REFLECTION_SHOWN else ""
        text.append(f"\nreflection: {said[:REFLECTION_SHOWN]}{more}", style="italic dim")
    for answer in answers:
        text.append("\n").append(_answer(answer))
    return text


def _answer(answer: Candidate) -> Text:
    if answer.passed:
        return Text(f"✓ code {answer.sample_index} passes", style="green")
    why = f": {printable(answer.reason)}" if answer.reason else ""
    if answer.passed is None:
        return Text(f"· code {answer.sample_index} has no verdict{why}", style="dim")
    return Text(f"✗ code {answer.sample_index} fails{why}", style="red")


def _below(node: NodeView) -> list[NodeView]:
    return [each for child in node.children for each in (child, *_below(child))]


def _value(value: float | None) -> Text:
    if value is None:
        return Text("none", style="dim")
    style = "green" if value >= GOOD else "yellow" if value >= FAIR else "red"
    return Text(f"{value:.2f}", style=style)


def _verdict(line: TreeLine) -> Text:
    if line.outcome is None:
        return Text("")
    passed, total = line.outcome
    return Text(f"{passed} of {total}", style="green" if passed else "red")


def _sum(lines: Sequence[TreeLine]) -> Text:
    judged = [line.outcome for line in lines if line.outcome is not None]
    text = Text(f"{len(lines)} trees, {sum(line.nodes for line in lines):,} steps")
    if judged:
        solved = sum(1 for passed, _ in judged if passed)
        text.append(f"; {solved} of {len(judged)} problems with an answer that passes")
    return text
