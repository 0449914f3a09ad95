"""Where the files of an EvolutionRun lie, below its storage root.

status.json                                   (local runs)
evaluations/DIGEST/                           scores of a model on a set, by content: computed once
generations/000/attempts/0/STAGE/             a stage's outputs, with progress.json, journal.jsonl and result.json
generations/000/attempts/0/result.json        what the generation was worth
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perseid.api.attempt import Attempt
from perseid.api.result import StageResult

STAGES = ("synthesize", "convert", "finetune", "evaluate")
RESULT = "result.json"
PROGRESS = "progress.json"
JOURNAL = "journal.jsonl"


class StorageError(Exception):
    """Files of a run that are not where they must be. The message says which and what to do."""


def local_path(uri: str) -> Path:
    """The directory of a storage URI. Only local storage is supported: a path or a file:// URI."""
    if "://" in uri and not uri.startswith("file://"):
        raise StorageError(f"storage {uri} is not a local directory; this version of Perseid writes to paths only")
    return Path(uri.removeprefix("file://"))


def attempt_key(generation: int, attempt: int) -> str:
    """An attempt's directory, below the root of the run's files."""
    return f"generations/{generation:03d}/attempts/{attempt}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one attempt."""

    root: Path
    generation: int
    attempt: int

    @classmethod
    def of(cls, attempt: Attempt) -> Layout:
        """The layout of an attempt's parameters."""
        return cls(local_path(attempt.storage), attempt.generation, attempt.number)

    @property
    def attempt_directory(self) -> Path:
        """Everything that the attempt writes."""
        return self._attempt(self.attempt)

    def stage(self, name: str) -> Path:
        """A stage's directory."""
        return self.attempt_directory / name

    def earlier(self, name: str) -> list[Path]:
        """The same stage's directories in earlier attempts, the newest first."""
        return [self._attempt(number) / name for number in reversed(range(self.attempt))]

    @property
    def evaluations(self) -> Path:
        """The run's store of evaluations."""
        return self.root / "evaluations"

    @property
    def result(self) -> Path:
        """What the generation was worth."""
        return self.attempt_directory / RESULT

    def _attempt(self, number: int) -> Path:
        return self.root / attempt_key(self.generation, number)


def read_stage_result(directory: Path) -> StageResult | None:
    """A stage's result; None where it has not finished."""
    try:
        return StageResult.model_validate_json((directory / RESULT).read_bytes())
    except FileNotFoundError:
        return None
