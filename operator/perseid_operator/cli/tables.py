"""Runs in a cluster, as tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from perseid.api.names import history_config_map
from perseid.api.reasons import AttemptState, ConditionStatus, ConditionType, GenerationPhase, StageState
from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus, GenerationStatus
from perseid_operator.cli.approval import waiting_generation
from perseid_operator.cli.runs import SeenRun

BAR = 10
"""Characters of a progress bar."""
ROOM_FOR_ALL = 120
"""Columns of a terminal from which on there is room for bars and reasons."""

_PHASES = {"Completed": "green", "Failed": "red", "Suspended": "yellow", "Running": "cyan"}
_GENERATIONS = {
    GenerationPhase.PROMOTED: "green",
    GenerationPhase.FAILED: "red",
    GenerationPhase.RUNNING: "cyan",
}
_STAGES = {StageState.SUCCEEDED: ("✓", "green"), StageState.FAILED: ("✗", "red"), StageState.RUNNING: ("▶", "cyan")}
_GOOD = {ConditionType.ACCEPTED, ConditionType.BACKEND_READY, ConditionType.PROGRESSING, ConditionType.COMPLETE}


def plain(text: str, style: str = "") -> Text:
    """Text from a cluster, without what would move a terminal's cursor or change its colours."""
    return Text("".join(one if one.isprintable() else " " for one in text), style=style)


def runs_table(runs: Sequence[SeenRun], now: datetime, *, namespaces: bool, width: int) -> Table:
    """A line for each run, in a terminal of so many columns."""
    table = _table("")
    if namespaces:
        table.add_column("namespace", no_wrap=True)
    narrow = width < ROOM_FOR_ALL
    for name in ("name", "phase", "progress"):
        table.add_column(name, no_wrap=True)
    table.add_column("doing" if narrow else "stage", overflow="ellipsis")  # gives way first
    for name in ("score", "best", "GPU-h", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    if not narrow:
        table.add_column("reason", no_wrap=True)
    for one in runs:
        row = one.row()
        progress = Text(row["generations"] or f"0/{one.generations_max}")
        table.add_row(
            *([plain(one.namespace)] if namespaces else []),
            plain(one.name, "bold"),
            plain(one.phase, _PHASES.get(one.phase, "")),
            progress if narrow else _bar(one.done).append(" ").append_text(progress),
            plain(one.stage or one.reason) if narrow else one.stage,
            plain(row["score"]),
            plain(row["best"]),
            plain(row["gpu_hours"]),
            age(one.created, now),
            *([] if narrow else [plain(one.reason)]),
        )
    return table


def links(runs: Sequence[SeenRun]) -> list[Text]:
    """A line for each run that has a page in the Kubeflow UI: they are too long for a column. Of several, only those
    that are not over: what has ended is asked for by its name."""
    shown = [one for one in runs if one.url and (len(runs) == 1 or not one.is_over)]
    return [plain(f"{one.name}: ", "bold").append_text(_link(one.url)) for one in shown]


def run_line(one: SeenRun) -> str:
    """A run in one line, for logs."""
    row = one.row()
    words = [f"{one.namespace}/{one.name}", one.phase, row["generations"] or f"0/{one.generations_max}", one.stage]
    words += [f"best {row['best']}" if row["best"] else "", one.reason, one.url or ""]
    return plain("  ".join(word for word in words if word)).plain


def print_run(console: Console, one: SeenRun, now: datetime) -> None:
    """Everything about a run that somebody wants to see: where it is, why, what it has, and what to do."""
    console.print(plain(f"{one.namespace}/{one.name}", "bold"), soft_wrap=True)
    _line(console, "phase", plain(one.phase, _PHASES.get(one.phase, "")).append_text(plain(_why(one))))
    _line(console, "progress", _bar(one.done).append(f" {one.row()['generations'] or f'0/{one.generations_max}'}"))
    _line(console, "age", Text(age(one.created, now)))
    _line(console, "uid", plain(one.uid))
    if one.managed_by is not None:
        _line(console, "managed by", plain(one.managed_by))
    status = one.status
    if status is None or status.current is None:
        _line(console, "stages", Text(", ".join(one.stages)))
    if status is None:
        return
    _line(console, "model", plain(status.best_model_message))
    _line(console, "used", plain(_used(status)))
    if status.snapshot is not None:
        _line(console, "pipeline", plain(f"{status.snapshot.pipeline_digest}, {status.snapshot.config_map}"))
        if status.snapshot.image is not None:
            _line(console, "image", plain(status.snapshot.image))
    _print_current(console, one, status)
    if one.url:
        _line(console, "link", _link(one.url))
    if status.generations:
        console.print(generations_table(status.generations))
        _print_failures(console, status.generations[-1])
        _print_history(console, one, status)
    if status.conditions:
        console.print(_conditions(status, now))
    waiting = waiting_generation(status)
    if waiting is not None:
        _line(console, "next", plain(f"`perseid approve {one.name} -n {one.namespace}` starts generation {waiting}"))


def _why(one: SeenRun) -> str:
    if one.problem:
        return f": the status cannot be read by this version of Perseid ({one.problem})"
    if one.status is None:
        return ": nobody has taken it up yet; is an operator running that watches this namespace?"
    return f": {one.reason}" if one.reason else ""


def _used(status: EvolutionRunStatus) -> str:
    used = status.usage
    said = [f"{status.columns.gpu_hours or '0.0'} GPU hours"]
    said += [f"cost of mentors {used.cost:.2f}"] if used.cost else []
    said += [f"{used.mentor_tokens:,} tokens of mentors"] if used.mentor_tokens else []
    return ", ".join(said)


def _print_current(console: Console, one: SeenRun, status: EvolutionRunStatus) -> None:
    current = status.current
    if current is None:
        return
    what = f"generation {current.generation}, attempt {current.attempt}, run {current.run_id}"
    _line(console, "under way", plain(what))
    stages = Text()
    for name in one.stages:
        state = current.stages.get(name)
        mark, style = ("·", "dim") if state is None else _STAGES[state]
        stages.append(f"{mark} {name}   ", style=style)
    _line(console, "stages", stages)


def _print_failures(console: Console, newest: GenerationStatus) -> None:
    for attempt in newest.attempts:
        if attempt.state is AttemptState.FAILED:
            charged = "" if attempt.charged else ", not counted"
            said = f"attempt {attempt.number} of generation {newest.index} failed ({attempt.reason}{charged}):"
            console.print(plain(f"{said} {attempt.message}", "red"), soft_wrap=True)


def _print_history(console: Console, one: SeenRun, status: EvolutionRunStatus) -> None:
    first = status.generations[0].index
    if first > 0:
        kept = history_config_map(one.name, one.uid, first - 1)
        console.print(
            plain(
                f"Generations 0 to {first - 1} are no longer in the status; the last of them is in ConfigMap {kept}."
            ),
            soft_wrap=True,
        )


def generations_table(generations: Iterable[GenerationStatus]) -> Table:
    """What each generation was worth."""
    table = _table("generations (pass@1 on dev)")
    for name in ("generation", "phase", "start", "own", "gain in points", "kept", "attempts"):
        table.add_column(name, justify="left" if name == "phase" else "right", no_wrap=True)
    table.add_column("message", overflow="fold")
    for one in generations:
        result = one.result
        last = one.attempts[-1] if one.attempts else None
        table.add_row(
            str(one.index),
            plain(one.phase.value, _GENERATIONS.get(one.phase, "")),
            _score(result.dev_parent if result else None),
            _score(result.dev_candidate if result else None),
            _gain(one),
            f"{result.samples_kept}/{result.samples_total}" if result else "",
            "" if last is None else str(last.number + 1),
            plain(result.message if result else last.message if last else ""),
        )
    return table


def print_status_report(console: Console, run: EvolutionRun, status: EvolutionRunStatus) -> None:
    """A report from the status alone."""
    if status.generations:
        console.print(generations_table(status.generations))
    console.print(
        plain(f"{status.phase}. ", f"bold {_PHASES.get(status.phase.value, 'default')}").append(_message(status))
    )
    if status.promoted is not None:
        console.print(plain(status.best_model_message), soft_wrap=True)
    else:
        console.print(plain(f"Base model: {run.spec.model.ref}"), soft_wrap=True)


def _message(status: EvolutionRunStatus) -> str:
    order = (ConditionType.FAILED, ConditionType.COMPLETE, ConditionType.SUSPENDED, ConditionType.PROGRESSING)
    told = (status.condition(kind) for kind in order)
    return next((plain(one.message).plain for one in told if one is not None and one.message), "")


def _conditions(status: EvolutionRunStatus, now: datetime) -> Table:
    table = _table("conditions")
    table.add_column("type")
    table.add_column("status")
    table.add_column("reason")
    table.add_column("for", justify="right")
    table.add_column("message", overflow="fold")
    for one in status.conditions:
        usual = (one.status is ConditionStatus.TRUE) == (one.type in _GOOD)
        table.add_row(
            one.type.value,
            Text(one.status.value, style="" if usual else "yellow"),
            one.reason.value,
            age(one.last_transition_time, now),
            plain(one.message),
        )
    return table


def age(since: datetime | None, now: datetime) -> str:
    """`42s`, `5m`, `3h12m`, `3d4h` or `9d`, as kubectl writes it."""
    if since is None:
        return ""
    seconds = max(0, round((now - since).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if hours < 3:
        return f"{minutes}m"
    if days < 2:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{days}d{hours % 24}h" if days < 8 and hours % 24 else f"{days}d"


def _bar(done: float) -> Text:
    full = int(done * BAR)
    return Text("█" * full, style="green").append("░" * (BAR - full), style="dim")


def _link(url: str | None) -> Text:
    if not url:
        return Text("")
    text = plain(url)
    # Terminals that know links open one even where the table has folded it.
    text.stylize(Style(link=text.plain))
    return text


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _gain(one: GenerationStatus) -> Text:
    result = one.result
    if result is None or result.gain is None or result.gain_low is None or result.gain_high is None:
        return Text("")
    value, low, high = (100 * number for number in (result.gain, result.gain_low, result.gain_high))
    style = "green" if low > 0 else "red" if high < 0 else ""
    return Text(f"{value:+.1f} [{low:+.1f}, {high:+.1f}]", style=style)


def _line(console: Console, label: str, value: Text) -> None:
    console.print(Text(f"{label:<12}", style="bold").append_text(value), soft_wrap=True)


def _table(title: str) -> Table:
    return Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold")
