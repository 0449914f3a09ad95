"""What `kubectl get evorun` shows; with `-o wide` also the columns of priority 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perseid_operator.crd.schema import Schema


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    path: tuple[str, ...]
    """Fields from the root of the object."""
    description: str
    type: Literal["string", "date"] = "string"
    priority: Literal[0, 1] = 0

    def as_schema(self) -> Schema:
        """The entry of `additionalPrinterColumns`."""
        entry: Schema = {
            "name": self.name,
            "type": self.type,
            "jsonPath": "".join(f".{part}" for part in self.path),
            "description": self.description,
        }
        return {**entry, "priority": self.priority} if self.priority else entry


COLUMNS = (
    Column("Phase", ("status", "phase"), "Where the run is, in one word."),
    Column("Gen", ("status", "columns", "generation"), "Generations that are done, of how many at most."),
    Column("Score", ("status", "columns", "score"), "pass@1 on dev of the newest generation's model."),
    Column("Best", ("status", "columns", "best"), "pass@1 on dev of the best model so far."),
    Column("GPU-h", ("status", "columns", "gpuHours"), "GPU hours used so far."),
    Column("Age", ("metadata", "creationTimestamp"), "Since when the EvolutionRun exists.", "date"),
    Column("Reason", ("status", "columns", "reason"), "Why the phase is what it is.", priority=1),
    Column("Run", ("status", "columns", "run"), "Id of the newest attempt's pipeline run.", priority=1),
    Column("Link", ("status", "columns", "link"), "Page of that run in the Kubeflow UI.", priority=1),
)
