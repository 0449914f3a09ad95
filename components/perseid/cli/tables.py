"""What came out of a run, as tables in a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perseid.cli.view import duration
from perseid.report.summary import GenerationSummary, SetSummary, StageSummary, Summary

Interval = tuple[float, float, float]
COUNTS = (
    "questions",
    "samples",
    "accepted",
    "revised",
    "quarantined",
    "pairs",
    "turns",
    "trainings",
    "rolled_back",
    "steps",
)
"""Of what a stage says of itself, in the order of a row."""


def print_summary(console: Console, summary: Summary) -> None:
    """Scores, yield, tokens and time, and where the model is."""
    if summary.sets:
        console.print(_scores(summary))
    if summary.generations:
        console.print(_work(summary))
    if any(len(generation.stages) > 1 or generation.wins for generation in summary.generations):
        console.print(_stages(summary))
    for generation in summary.generations:
        if generation.wins:
            console.print(_wins(generation))
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
    deciding = sum(1 for one in summary.sets if one.decides)
    for one in summary.sets:
        table.add_row(
            f"{one.name} ({_role(one, deciding)})",
            f"{one.problems} x {one.samples}",
            percent(one.base),
            "none" if one.promoted is None else percent(one.promoted),
            _points(one.gain),
            "" if one.gain is None else f"{one.up} / {one.down}",
        )
    return table


def _stages(summary: Summary) -> Table:
    table = Table(
        box=SIMPLE_HEAD, title="what each stage has changed, on dev", title_justify="left", title_style="bold"
    )
    for name in ("generation", "stage", "what it made", "score after it", "gain in points"):
        table.add_column(name, justify="right" if name in {"score after it", "gain in points"} else "left")
    for generation in summary.generations:
        for place, stage in enumerate(generation.stages):
            table.add_row(
                f"{generation.index}" if place == 0 else "",
                stage.name,
                _made(stage),
                "no model" if stage.score is None else percent(stage.score),
                _points(stage.gain),
            )
    return table


def _role(one: SetSummary, deciding: int) -> str:
    """What the set is there for. Where both methods have a dev set, promotion goes by the two as one."""
    if not one.decides:
        return "reported only"
    return "decides promotion" if deciding == 1 else "decides promotion with the other"


def _made(stage: StageSummary) -> str:
    """Its counts in words, and how the learner's own verdicts compare with the judge's, before and after."""
    counted = [f"{name.replace('_', ' ')} {stage.metrics[name]:.0f}" for name in COUNTS if name in stage.metrics]
    before, after = (stage.metrics.get(f"agreement_auc_{moment}") for moment in ("before", "after"))
    if before is not None and after is not None:
        counted.append(f"AUC of its own verdict {before:.2f} -> {after:.2f}")
    for name, words in (("agreement", "agreement with the judge"), ("called_right", "of it called right")):
        before, after = (stage.metrics.get(f"{name}_{moment}") for moment in ("before", "after"))
        if before is not None and after is not None:
            counted.append(f"{words} {before:.0%} -> {after:.0%}")
    return ", ".join(counted)


def _wins(generation: GenerationSummary) -> Table:
    table = Table(
        box=SIMPLE_HEAD,
        title=f"generation {generation.index}: answers against those of its start model, judged in both orders",
        title_justify="left",
        title_style="bold",
    )
    for name in ("set", "criterion", "questions", "won", "tied", "lost", "win rate"):
        table.add_column(name, justify="left" if name in {"set", "criterion"} else "right")
    for win in generation.wins:
        shares = (f"{share:.0%}" for share in (win.won, win.tied, win.lost))
        interval = percent((win.win_rate, win.low, win.high))
        table.add_row(win.set, win.criterion, f"{win.questions}", *shares, interval)
    return table


def _work(summary: Summary) -> Table:
    table = Table(box=SIMPLE_HEAD, title="work", title_justify="left", title_style="bold")
    for name in ("generation", "stage", "calls", "prompt tokens", "of them cached", "tokens made", "time"):
        table.add_column(name, justify="left" if name in {"generation", "stage"} else "right")
    for generation in summary.generations:
        for place, (stage, usage) in enumerate(generation.usage.items()):
            cached = usage["cached_tokens"] / usage["prompt_tokens"] if usage["prompt_tokens"] else 0.0
            table.add_row(
                f"{generation.index}" if place == 0 else "",
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
    line = Text(f"generation {index}: kept {kept} of {total} answers as training data", style="bold")
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items(), key=lambda item: -item[1]))
    return line.append(Text(f"; dropped {total - kept}: {reasons}" if dropped else "", style="default"))


def _points(gain: Interval | None) -> Text:
    if gain is None:
        return Text("")
    value, low, high = (100 * number for number in gain)
    style = "green" if low > 0 else "red" if high < 0 else "default"
    return Text(f"{value:+.1f} [{low:+.1f}, {high:+.1f}]", style=style)


def percent(interval: Interval) -> str:
    """`41.2 % [35.0, 47.9]`."""
    value, low, high = (100 * number for number in interval)
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"
