"""What a body shows to `decide`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from perseid.api.result import GenerationResult


class RunState(StrEnum):
    """What the backend says about a run."""

    PENDING = "Pending"
    RUNNING = "Running"
    """Also while it is being terminated."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"
    """The backend, or the storage that holds the result, could not be asked or gave no clear answer: wait."""
    MISSING = "Missing"
    """The backend says for certain that there is no such run."""

    @property
    def is_live(self) -> bool:
        """Whether the run uses or waits for resources."""
        return self in (RunState.PENDING, RunState.RUNNING)


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """One run."""

    state: RunState
    result: GenerationResult | None = None
    """Of a run that succeeded: its `result.json`."""
    result_error: str | None = None
    """Why the `result.json` cannot be trusted (`ResultError`); None where it is good or absent."""
    error: str | None = None
    """Why the run failed, for people."""
    infrastructure: bool = False
    """The failure was not the run's own: a lost node, an eviction, a doubtful submission. It uses up no attempt."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that is seen at one moment."""

    runs: Mapping[str, ObservedRun] = field(default_factory=dict)
    """By run id; runs of this lineage only. A run that is not in here was not asked for: nothing follows from that."""
    backend_reachable: bool = True
    backend_message: str = ""
    """Why the backend is not reachable, for people."""
    spec_generation: int = 0
    """`metadata.generation` of the spec; 0 where there is none."""
