"""Which of a run's models is meant, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus
from perseid.data.errors import DataError


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """One of a run's models."""

    ref: str
    """A directory, a URI, a hub id, or an embedded model's name."""
    revision: str | None
    """Of a hub id."""
    model_id: str | None
    """Identity of its weights, where it is known."""
    generation: int | None
    """The generation that made it; None for the model that the run started from."""

    @property
    def words(self) -> str:
        """As people call it."""
        return "the start model" if self.generation is None else f"the model of generation {self.generation}"


def choose_model(run: EvolutionRun, status: EvolutionRunStatus, which: int | Literal["best", "base"]) -> ChosenModel:
    """The best model so far, the run's start model, or that of a generation. Raises DataError."""
    first = next((one.start_model for one in status.generations if one.index == 0), None)
    base = ChosenModel(
        ref=run.spec.model.ref if first is None else first.uri,
        revision=run.spec.model.revision if first is None or first.uri == run.spec.model.ref else None,
        model_id=None if first is None else first.model_id,
        generation=None,
    )
    if which == "base":
        return base
    if which == "best":
        best = status.promoted
        if best is None or best.is_base:
            return base
        return ChosenModel(best.uri, None, best.model_id, best.generation)
    made = {one.index: one.candidate for one in status.generations if one.candidate is not None}
    if which not in made:
        there = f"there are those of {', '.join(map(str, made))}, counted from 0" if made else "none has made one yet"
        raise DataError(f"{run.metadata.name} has no model of generation {which}; {there}")
    return ChosenModel(made[which].uri, None, made[which].model_id, which)
