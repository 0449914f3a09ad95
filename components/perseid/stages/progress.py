"""How a stage tells its progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from perseid.api.progress import Progress, read_progress
from perseid.data.jsonl import write_json

MIN_INTERVAL = 0.3
"""Seconds between two writes. Nobody looks faster, and trees finish by the hundred."""


class ProgressWriter:
    """Rewrites the progress file, not more often than anybody looks."""

    def __init__(self, path: Path, stage: str, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._stage = stage
        self._clock = clock
        self._written = 0.0
        earlier = read_progress(path)
        # Wall clock, not monotonic: what an earlier try has used counts, and only files outlive a kill.
        self._since = clock() - (earlier.elapsed if earlier else 0.0)
        self._current = Progress(stage=stage, task="starting", done=0, total=0, unit="", started_at=clock())
        self._write()

    @property
    def seconds(self) -> float:
        """Seconds that the stage has run, over all its tries."""
        return max(0.0, self._clock() - self._since)

    def begin(self, task: str, total: float = 0, unit: str = "", done: float = 0) -> None:
        """A new task of the stage."""
        now = self._clock()
        self._current = Progress(
            stage=self._stage, task=task, done=done, total=total, unit=unit, started_at=now, done_at_start=done
        )
        self._write()

    def update(self, done: float, note: str = "") -> None:
        """The task has come this far."""
        self._set(done=done, note=note or self._current.note)

    def say(self, note: str) -> None:
        """Something worth saying while nothing is finished."""
        self._set(done=self._current.done, note=note)

    def _set(self, done: float, note: str) -> None:
        self._current = self._current.model_copy(update={"done": done, "note": note})
        if self._clock() - self._written >= MIN_INTERVAL or done >= self._current.total > 0:
            self._write()

    def _write(self) -> None:
        self._written = self._clock()
        current = self._current.model_copy(update={"elapsed": self.seconds})
        write_json(self._path, current.model_dump(mode="json"))
