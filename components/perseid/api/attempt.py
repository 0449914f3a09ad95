"""What a stage is told: which run, which generation and attempt, where to write, what to start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field

from perseid.api.base import ApiModel, Text, replace
from perseid.api.identity import definition
from perseid.api.passage import unwrap, wrap
from perseid.api.spec import EvolutionRun


class Attempt(ApiModel):
    """One try at one generation: the parameter of its pipeline."""

    run: EvolutionRun
    """Name and spec. Paths in it are absolute: a stage has no idea where the user's file lay."""
    run_id: Text
    """Id of the pipeline run."""
    generation: Annotated[int, Field(ge=0)]
    """Counted from 0."""
    number: Annotated[int, Field(ge=0)]
    """Which try at the generation, counted from 0."""
    storage: Text
    """Root of the EvolutionRun's files. Stages write under `generations/NNN/attempts/N/STAGE` in it."""
    start_model: Text
    """The model that the generation starts from: a reference as in spec.model.ref, or a directory."""

    @property
    def start_revision(self) -> str | None:
        """Revision of the start model where that is the spec's own hub id."""
        return self.run.spec.model.revision if self.start_model == self.run.spec.model.ref else None

    def arguments(self) -> dict[str, Any]:
        """The attempt as the arguments of its pipeline: the run without what may change while it is under way, but for
        what stages go by, budget and retainModels, which hold for each attempt as they are at its start; and without
        null, which KFP lacks. Their texts are wrapped, so that they come through KFP as they are."""
        run, spec = definition(self.run), self.run.spec
        run = replace(run, spec=replace(run.spec, budget=spec.budget, retain_models=spec.retain_models))
        arguments: dict[str, Any] = {
            "run": run.model_dump(mode="json", by_alias=True, exclude_none=True),
            "run_id": self.run_id,
            "generation": self.generation,
            "attempt": self.number,
            "storage": self.storage,
            "start_model": self.start_model,
        }
        return {name: wrap(value) for name, value in arguments.items()}

    @classmethod
    def of_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """The attempt whose `arguments` came out of the pipeline, where every number is a float."""
        return cls.model_validate(
            {"number" if name == "attempt" else name: unwrap(value) for name, value in arguments.items()}
        )
