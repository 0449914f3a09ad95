"""What `decide` answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from perseid.api.result import ModelRef
from perseid.api.status import EvolutionRunStatus, GenerationStatus


@dataclass(frozen=True, slots=True)
class Submit:
    """Make sure that the attempt's run exists: adopt a run of that id, create one where there is none."""

    generation: int
    attempt: int
    run_id: str
    start_model: ModelRef
    """What the generation starts from; `is_base` means `spec.model`."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """Stop a run that should not be alive."""

    run_id: str


@dataclass(frozen=True, slots=True)
class DeleteObject:
    """Delete the finished EvolutionRun: its time is up."""


Action: TypeAlias = Submit | Terminate | DeleteObject


@dataclass(frozen=True, slots=True)
class Plan:
    """Keep `evicted`, write `status`, then carry out `action`, then decide again when something changes."""

    status: EvolutionRunStatus
    action: Action | None = None
    """None: wait."""
    requeue_after: float | None = None
    """Seconds after which to decide again even where nothing has changed; None: only then."""
    evicted: tuple[GenerationStatus, ...] = ()
    """Ended generations that the status has no more room for."""
