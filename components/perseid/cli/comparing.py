"""Two models side by side, in a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from perseid.cli.tables import percent
from perseid.cli.terminal import printable
from perseid.cli.view import duration
from perseid.report.gains import ProblemGain
from perseid.report.versus import SetVersus, Versus

ROWS_SHOWN = 10
"""Of gains, and of losses, of a set."""
VALUE_SHOWN = 60
"""Characters of a setting."""


def print_versus(console: Console, versus: Versus) -> None:
    """Print it."""
    for mark, side in (("A", versus.first), ("B", versus.second)):
        console.print(Text(f"{mark}  ", style="bold").append(f"{side.run}, {side.which}"), soft_wrap=True)
    if versus.changes:
        console.print(_changes(versus))
    elif versus.first.run != versus.second.run:
        console.print(Text("no setting differs", style="dim"))
    if versus.measured_differently:
        said = f"The two were not measured alike: {', '.join(versus.measured_differently)} differ."
        console.print(Text(said, style="yellow"))
    console.print(_scores(versus))
    for one in versus.sets:
        _print_problems(console, one)
    console.print(_work(versus))


def _changes(versus: Versus) -> Table:
    table = _table("settings that differ")
    for name in ("setting", "A", "B"):
        table.add_column(name, overflow="fold")
    for one in versus.changes:
        table.add_row(one.path, _plain(one.old), _plain(one.new))
    return table


def _scores(versus: Versus) -> Table:
    table = _table(f"pass@1 on problems that both were scored on, {versus.confidence:.0%} intervals, paired")
    for name in ("set", "problems", "A", "B", "B - A in points"):
        table.add_column(name, justify="left" if name == "set" else "right")
    for one in versus.sets:
        low, high = one.difference[1:]
        style = "green" if low > 0 else "red" if high < 0 else "default"
        name = one.first_name if one.first_name == one.second_name else f"{one.first_name} / {one.second_name}"
        points = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * value for value in one.difference))
        table.add_row(name, f"{one.problems}", percent(one.first), percent(one.second), Text(points, style=style))
    return table


def _print_problems(console: Console, one: SetVersus) -> None:
    same = one.problems - len(one.gained) - len(one.lost)
    gained = len(one.gained)
    head = (
        f"{one.second_name}: {gained} problem{'' if gained == 1 else 's'} gained, {len(one.lost)} lost, {same} the same"
    )
    console.print(Text(head, style="bold"))
    if one.left_out:
        console.print(
            Text(f"  {one.left_out} problems that only one of the two was scored on do not count", style="dim")
        )
    for problems, mark, style in ((one.gained, "▲", "green"), (one.lost, "▼", "red")):
        _print_rows(console, problems, mark, style)


def _print_rows(console: Console, problems: Sequence[ProblemGain], mark: str, style: str) -> None:
    for row in problems[:ROWS_SHOWN]:
        line = Text(f"{mark} ", style=style)
        line.append(f"{row.before:>4.0%} -> {row.after:>4.0%}  {printable(row.problem_id)}", style="default")
        console.print(Padding(line, (0, 0, 0, 2), expand=False))
    if len(problems) > ROWS_SHOWN:
        console.print(Text(f"    and {len(problems) - ROWS_SHOWN} more", style="dim"))


def _work(versus: Versus) -> Table:
    table = _table("work")
    table.add_column("")
    for name in ("calls", "prompt tokens", "tokens made", "time"):
        table.add_column(name, justify="right")
    for mark, side in (("A", versus.first), ("B", versus.second)):
        used = side.usage
        table.add_row(
            mark,
            f"{used.calls:,}",
            f"{used.prompt_tokens:,}",
            f"{used.completion_tokens:,}",
            duration(used.seconds),
        )
    return table


def _table(title: str) -> Table:
    return Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")


def _plain(value: object) -> Text:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return Text(text if len(text) <= VALUE_SHOWN else f"{text[:VALUE_SHOWN]}…")
