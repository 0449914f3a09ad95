"""What came out of a run, as tables in a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perseid.cli.view import duration
from perseid.report.summary import SetSummary, Summary

Interval = tuple[float, float, float]


def print_summary(console: Console, summary: Summary) -> None:
    """Scores, yield, tokens and time, and where the model is."""
    if summary.sets:
        console.print(_scores(summary))
    if summary.generations:
        console.print(_work(summary))
    for generation in summary.generations:
        console.print(_yield_line(generation.index, generation.kept, generation.total, generation.dropped))
    if summary.mentor_tokens or summary.mentor_cost:
        paid = f"mentors and judges: {summary.mentor_tokens:,} tokens, {summary.mentor_cost:.2f} {summary.currency}"
        console.print(Text(paid, style="bold"))
    style = {"Completed": "green", "Failed": "red"}.get(summary.phase, "yellow")
    console.print(Text(f"{summary.phase}. ", style=f"bold {style}").append(Text(summary.message, style="default")))
    if summary.promoted_generation is not None:
        console.print(f"Model: {summary.model}", highlight=False, markup=False, soft_wrap=True)


def _scores(summary: Summary) -> Table:
    table = Table(
        box=SIMPLE_HEAD,
        title=f"pass@1, with {summary.confidence:.0%} intervals over problems",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("set")
    table.add_column("problems", justify="right")
    table.add_column("base", justify="right")
    table.add_column("promoted", justify="right")
    table.add_column("gain in points", justify="right")
    table.add_column("better / worse", justify="right")
    for one in summary.sets:
        table.add_row(
            f"{one.name} ({'decides promotion' if one.decides else 'reported only'})",
            f"{one.problems} x {one.samples}",
            percent(one.base),
            "none" if one.promoted is None else percent(one.promoted),
            _gain(one),
            "" if one.gain is None else f"{one.up} / {one.down}",
        )
    return table


def _work(summary: Summary) -> Table:
    table = Table(box=SIMPLE_HEAD, title="work", title_justify="left", title_style="bold")
    for name in ("generation", "stage", "calls", "prompt tokens", "of them cached", "tokens made", "time"):
        table.add_column(name, justify="left" if name in {"generation", "stage"} else "right")
    for generation in summary.generations:
        for place, (stage, usage) in enumerate(generation.usage.items()):
            cached = usage["cached_tokens"] / usage["prompt_tokens"] if usage["prompt_tokens"] else 0.0
            table.add_row(
                f"{generation.index + 1}" if place == 0 else "",
                stage,
                *(f"{usage[name]:,.0f}" for name in ("calls", "prompt_tokens")),
                f"{cached:.0%}" if usage["calls"] else "",
                f"{usage['completion_tokens']:,.0f}",
                duration(usage["seconds"]),
            )
    table.add_section()
    table.add_row(
        "all", "", "", f"{summary.prompt_tokens:,}", "", f"{summary.completion_tokens:,}", duration(summary.seconds)
    )
    return table


def _yield_line(index: int, kept: int, total: int, dropped: dict[str, int]) -> Text:
    line = Text(f"generation {index + 1}: kept {kept} of {total} answers as training data", style="bold")
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items(), key=lambda item: -item[1]))
    return line.append(Text(f"; dropped {total - kept}: {reasons}" if dropped else "", style="default"))


def _gain(one: SetSummary) -> Text:
    if one.gain is None:
        return Text("")
    value, low, high = (100 * number for number in one.gain)
    style = "green" if low > 0 else "red" if high < 0 else "default"
    return Text(f"{value:+.1f} [{low:+.1f}, {high:+.1f}]", style=style)


def percent(interval: Interval) -> str:
    """`41.2 % [35.0, 47.9]`."""
    value, low, high = (100 * number for number in interval)
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"
