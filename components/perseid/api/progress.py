"""Progress of a running stage: a small file that the stage rewrites and whoever drives the run shows."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Progress(BaseModel):
    """How far a stage is."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    stage: str
    task: str
    """What it does now, for people: `loading the model`, `search`, `base on pack-test`."""
    done: float
    total: float
    """0 where nobody knows."""
    unit: str
    started_at: float
    """Seconds since the epoch at which the task began."""
    done_at_start: float = 0.0
    """What an earlier, interrupted try had already done: rates leave it out."""
    elapsed: float = 0.0
    """Seconds that the stage has run, over all its tries."""
    note: str = ""
    """What else is worth saying: `kept 31`, `loss 0.42`."""


def read_progress(path: Path) -> Progress | None:
    """The progress file's content; None where there is none yet. Writes are atomic, so it is never torn."""
    try:
        return Progress.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
