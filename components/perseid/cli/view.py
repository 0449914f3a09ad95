"""A run while it goes on: a bar for what is being done, a line for each stage that is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from perseid.api.layout import PROGRESS, Layout, part_names, read_stage_result
from perseid.api.progress import Progress, read_progress
from perseid.api.reasons import AttemptState
from perseid.api.result import StageResult
from perseid.api.spec import EvolutionRun
from perseid.api.stages import STAGES
from perseid.api.status import EvolutionRunStatus

RATE_AFTER_SECONDS = 2.0
"""A rate of the first moments says nothing."""


class View(Protocol):
    """Shows a run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, status: EvolutionRunStatus) -> None:
        """Look at the run again."""
        ...


class SilentView:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, status: EvolutionRunStatus) -> None:
        """Nothing to do."""


class LinesView(SilentView):
    """For logs: a line for each stage that begins and ends, without control characters."""

    def __init__(self, console: Console, root: Path, run: EvolutionRun) -> None:
        self._console = console
        self._root = root
        self._run = run
        self._news = News()

    def update(self, status: EvolutionRunStatus) -> None:
        """Print what is new."""
        for text in self._news.of(self._run, status, self._root):
            self._print(text)

    def _print(self, text: Text) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


class LiveView(LinesView):
    """For terminals: the same lines, and below them what is being done."""

    def __init__(self, console: Console, root: Path, run: EvolutionRun) -> None:
        super().__init__(console, root, run)
        self._live = Live(console=console, refresh_per_second=5, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, status: EvolutionRunStatus) -> None:
        """Print what is new and redraw the bar."""
        super().update(status)
        progress = current_progress(status, self._root)
        self._live.update(Group() if progress is None else _bar(progress, time.time()))


class News:
    """What has happened since the last look, as lines."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def of(self, run: EvolutionRun, status: EvolutionRunStatus, root: Path) -> Iterator[Text]:
        """Lines about generations, attempts and stages that were not told yet."""
        for generation in status.generations:
            if self._first(f"g{generation.index}"):
                yield Text(
                    f"generation {generation.index} ({generation.index + 1} of {run.spec.generations.max}), from"
                    f" {generation.start_model.uri}",
                    style="bold",
                )
            for attempt in generation.attempts:
                if attempt.number and self._first(f"g{generation.index}a{attempt.number}"):
                    yield Text(f"  attempt {attempt.number}", style="yellow")
                layout = Layout(root, generation.index, attempt.number)
                parts = [name for one in run.spec.stages for name in part_names(one, run.spec.pipeline.shards)]
                for name, result in _finished(layout, parts):
                    if self._first(f"g{generation.index}a{attempt.number}{name}{result.state}"):
                        yield _stage_line(name, result, max(map(len, parts)))
                if attempt.state is AttemptState.FAILED and self._first(f"{attempt.run_id}failed"):
                    yield Text(f"  attempt failed: {attempt.message}", style="red")
            if generation.finished_at and generation.result and self._first(f"g{generation.index}done"):
                yield Text(f"  {generation.phase.lower()}: {generation.result.message}", style="bold")

    def _first(self, key: str) -> bool:
        new = key not in self._seen
        self._seen.add(key)
        return new


def _finished(layout: Layout, names: Sequence[str]) -> Iterator[tuple[str, StageResult]]:
    for name in names:
        result = read_stage_result(layout.stage(name))
        if result is not None:
            yield name, result


def _stage_line(name: str, result: StageResult, width: int) -> Text:
    mark, style = ("✓", "green") if result.state == "done" else ("✗", "red")
    counts = ", ".join(f"{name} {count}" for name, count in result.counts.items())
    line = Text(f"  {mark} ", style=style)
    line.append(f"{name:<{width}} ", style="bold")
    line.append(f"{duration(result.usage.seconds):>7}  ")
    line.append(counts, style="dim")
    return line


def current_progress(status: EvolutionRunStatus, root: Path) -> Progress | None:
    """What the stage that runs now says, or its shard; None between stages."""
    if status.current is None:
        return None
    layout = Layout(root, status.current.generation, status.current.attempt)
    for stage in reversed(STAGES):
        for directory in reversed(layout.parts(stage)):
            return None if read_stage_result(directory) else read_progress(directory / PROGRESS)
    return None


def _bar(progress: Progress, now: float) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for _ in range(6):
        table.add_column(no_wrap=True)
    known = progress.total > 0
    bar = ProgressBar(
        total=progress.total if known else None, completed=progress.done, pulse=not known, width=30, animation_time=now
    )
    amount = f"{progress.done:.0f}/{progress.total:.0f} {progress.unit}" if known else ""
    table.add_row(
        Text(f"  {progress.stage}", style="bold"), progress.task, bar, amount, pace(progress, now), progress.note
    )
    return table


def pace(progress: Progress, now: float) -> str:
    """Rate and time left, once there is something to judge by."""
    elapsed = now - progress.started_at
    new = progress.done - progress.done_at_start
    if new <= 0 or elapsed < RATE_AFTER_SECONDS or progress.total <= 0:
        return duration(max(elapsed, 0.0))
    rate = new / elapsed
    left = (progress.total - progress.done) / rate
    speed = f"{rate:.1f}/s" if rate >= 1 else f"{rate * 60:.0f}/min" if rate * 60 >= 1 else f"{rate * 3600:.0f}/h"
    return f"{speed}, {duration(left)} left"


def duration(seconds: float) -> str:
    """`42 s`, `3:05` or `1:02:03`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
