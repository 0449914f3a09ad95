"""A run at a glance, in a terminal of 80 columns or more, with or without colour."""

from __future__ import annotations

import time

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from perseid.api.reasons import Phase
from perseid.api.result import YieldCounts
from perseid.cli.tables import percent
from perseid.cli.view import duration, pace
from perseid.report.overview import GenerationLines, Overview, StageLine, missing_sentence

PHASE_STYLES = {"Completed": "green", "Promoted": "green", "Failed": "red", "Rejected": "yellow", "Skipped": "yellow"}
MARKS = {
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "begun": ("●", "yellow"),
    "to come": ("·", "dim"),
    "not run": ("·", "dim"),
}
BAR_WIDTH = 24


def print_overview(console: Console, overview: Overview, *, in_use: bool) -> None:
    """Print it. `in_use`: whether somebody drives the run now."""
    head = Text(overview.name, style="bold")
    head.append("  ").append(overview.phase, style=PHASE_STYLES.get(overview.phase, "yellow"))
    console.print(head)
    if overview.message:
        console.print(Text(overview.message))
    if overview.phase == Phase.RUNNING.value and not in_use:
        console.print(Text("No `perseid run` drives it now; the same command goes on with it.", style="yellow"))
    _print_models(console, overview)
    if overview.scores:
        console.print(_scores(overview))
    if overview.missing_generations:
        console.print(Text(missing_sentence(overview.missing_generations), style="yellow"))
    for generation in overview.generations:
        _print_generation(console, generation)
    used = overview.usage
    if used.seconds:
        console.print(
            Text(
                f"all stages: {duration(used.seconds)}, {used.calls:,} calls, {used.prompt_tokens:,} prompt tokens,"
                f" {used.completion_tokens:,} tokens made",
                style="bold",
            )
        )


def _print_models(console: Console, overview: Overview) -> None:
    rows = [("methods", ", ".join(overview.methods)), ("start", overview.start)]
    if overview.promoted_generation is None:
        rows.append(("model", "the one it started from"))
    else:
        rows.append(("model", f"{overview.model} (generation {overview.promoted_generation})"))
    for name, value in rows:
        console.print(Text(f"{name:<9}", style="dim").append(value, style="default"), soft_wrap=True)


def _scores(overview: Overview) -> Table:
    table = Table(
        box=SIMPLE_HEAD,
        title=f"pass@1, with {overview.confidence:.0%} intervals over problems",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("set")
    table.add_column("problems", justify="right")
    table.add_column("generation")
    table.add_column("pass@1")
    for scores in overview.scores:
        for place, one in enumerate(scores.points):
            named = place == 0
            table.add_row(
                f"{scores.name}{' (decides)' if scores.decides else ''}" if named else "",
                f"{scores.problems} x {scores.samples}" if named else "",
                one.label if place == 0 or not one.promoted else f"{one.label} promoted",
                Text(percent((one.value, one.low, one.high)), style="default" if one.promoted else "dim"),
            )
    return table


def _print_generation(console: Console, generation: GenerationLines) -> None:
    head = Text(f"generation {generation.index}", style="bold")
    head.append("  ").append(generation.phase, style=PHASE_STYLES.get(generation.phase, "yellow"))
    if generation.attempt:
        head.append(f", attempt {generation.attempt}", style="yellow")
    console.print(head)
    if generation.message:
        _indented(console, Text(generation.message))
    for failure in generation.failed_attempts:
        _indented(console, Text(f"failed attempt {failure}", style="red"))
    width = max((len(stage.name) for stage in generation.stages), default=0)
    for stage in generation.stages:
        _print_stage(console, stage, width)
    if generation.yields is not None:
        _print_yields(console, generation.yields)
    if generation.model is not None:
        _indented(console, Text(f"model: {generation.model}", style="dim"))


def _print_stage(console: Console, stage: StageLine, width: int) -> None:
    mark, style = MARKS[stage.state]
    line = Text(f"{mark} ", style=style).append(f"{stage.name:<{width}} ", style="bold")
    said: list[str] = []
    if stage.usage is not None:
        line.append(f"{duration(stage.usage.seconds):>7}  ", style="default")
        said = [f"{name} {count:,}" for name, count in stage.counts.items()]
        if stage.usage.calls:
            said.append(f"{stage.usage.calls:,} calls")
            said.append(f"{stage.usage.prompt_tokens:,} + {stage.usage.completion_tokens:,} tokens")
    elif stage.progress is not None:
        now = stage.progress
        line.append(f"{now.task} ", style="default")
        said = [f"{now.done:.0f}/{now.total:.0f} {now.unit}", pace(now, time.time())] if now.total else []
        said += [now.note] if now.note else []
    else:
        line.append(stage.state, style="dim")
    if stage.shards is not None:
        said.append(f"{stage.shards[0]} of {stage.shards[1]} shards")
    _indented(console, line.append(", ".join(said), style="dim"))
    if stage.error:
        _indented(console, Text(stage.error, style="red"), 4)


def _print_yields(console: Console, yields: YieldCounts) -> None:
    _indented(console, Text(f"training data: kept {yields.kept} of {yields.total} answers"))
    rows = [("kept", yields.kept, "green"), *((name, count, "yellow") for name, count in _sorted(yields.dropped))]
    width = max(len(name) for name, _, _ in rows)
    for name, count, style in rows:
        bar = "█" * max(round(BAR_WIDTH * count / yields.total) if yields.total else 0, 1 if count else 0)
        _indented(console, Text(f"{name:<{width}} {count:>6}  ").append(bar, style=style), 4)


def _sorted(dropped: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(dropped.items(), key=lambda item: (-item[1], item[0]))


def _indented(console: Console, text: Text, by: int = 2) -> None:
    console.print(Padding(text, (0, 0, 0, by), expand=False))
