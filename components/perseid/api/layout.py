"""Where the files of an EvolutionRun lie, below its storage root.

status.json                                   (local runs)
evaluations/DIGEST/                           scores of a model on a set, by content: computed once
generations/000/attempts/0/STAGE/             a stage's outputs, with progress.json, journal.jsonl and result.json
generations/000/attempts/0/synthesize-shard-00/  the same of a shard of the search, where it has several
generations/000/attempts/0/result.json        what the generation was worth

In object storage the keys are the same. There stages work on a copy in a scratch directory of their machine.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from perseid.api.attempt import Attempt
from perseid.api.result import StageResult, StageUsage
from perseid.api.stages import LAST_STAGE, SHARD, SHARDED_STAGE, StageName, shard_name, stage_of

GENERATIONS, EVALUATIONS = "generations", "evaluations"
RUN_DIRECTORIES = (GENERATIONS, EVALUATIONS)
"""All that stages write into, below a run's root."""
RESULT = "result.json"
PROGRESS = "progress.json"
JOURNAL = "journal.jsonl"


SCRATCH_DIRECTORY = "PERSEID_SCRATCH_DIR"
"""Environment variable: where working copies of files in object storage lie. A cache: losing it loses nothing."""


class StorageError(Exception):
    """Files of a run that are not where they must be. The message says which and what to do."""


def is_remote(uri: str) -> bool:
    """Whether a storage URI names object storage, and no directory."""
    return "://" in uri and not uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The directory of a storage URI that is a path or a file:// URI. Raises StorageError for another."""
    if is_remote(uri):
        raise StorageError(f"storage {uri} is not a local directory; give a path here")
    return Path(uri.removeprefix("file://"))


def scratch_directory() -> Path:
    """`$PERSEID_SCRATCH_DIR`, or a directory of this user's among the temporary files."""
    named = os.environ.get(SCRATCH_DIRECTORY)
    return Path(named or Path(tempfile.gettempdir()) / f"perseid-scratch-{os.getuid()}").resolve()


def working_copy(uri: str) -> Path:
    """Where the working copy of what is at a URI in object storage lies."""
    return scratch_directory() / hashlib.sha256(uri.rstrip("/").encode()).hexdigest()[:16]


def part_names(stage: StageName, shards: int) -> list[str]:
    """The names of a stage's directories, its own last."""
    several = stage == SHARDED_STAGE and shards > 1
    return [*map(shard_name, range(shards if several else 0)), stage]


def parts_in(attempt: Path, stage: StageName) -> list[Path]:
    """The directories of a stage that are there in that of an attempt, those of its shards before its own."""
    shards = sorted(attempt.glob(f"{SHARD}-[0-9][0-9]")) if stage == SHARDED_STAGE else []
    return [*shards, *(path for path in [attempt / stage] if path.is_dir())]


def attempt_key(generation: int, attempt: int) -> str:
    """An attempt's directory, below the root of the run's files."""
    return f"{GENERATIONS}/{generation:03d}/attempts/{attempt}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one attempt."""

    root: Path
    generation: int
    attempt: int
    uri: str | None = None
    """Of the storage that `root` is a working copy of; None where `root` is the storage."""

    @classmethod
    def of(cls, attempt: Attempt) -> Layout:
        """The layout of an attempt's parameters."""
        if is_remote(attempt.storage):
            uri = attempt.storage.rstrip("/")
            return cls(working_copy(uri), attempt.generation, attempt.number, uri)
        return cls(local_path(attempt.storage), attempt.generation, attempt.number)

    def key(self, path: Path) -> str:
        """A path below the root as it is called from there, with slashes."""
        return path.relative_to(self.root).as_posix()

    def location(self, path: Path) -> str:
        """Where others find the file at `path`: never in a working copy."""
        return str(path) if self.uri is None else f"{self.uri}/{self.key(path)}"

    @property
    def attempt_directory(self) -> Path:
        """Everything that the attempt writes."""
        return self._attempt(self.attempt)

    def stage(self, name: str) -> Path:
        """A stage's directory."""
        return self.attempt_directory / name

    def parts(self, stage: StageName) -> list[Path]:
        """The directories of the stage that are there: those of its shards, where it has several, and its own last."""
        return parts_in(self.attempt_directory, stage)

    def earlier(self, name: str) -> list[Path]:
        """The same stage's directories in earlier attempts, the newest first."""
        return [self._attempt(number) / name for number in reversed(range(self.attempt))]

    def attempts(self, generation: int) -> list[Path]:
        """The directories of a generation's attempts that are there, in their order."""
        directories = (self.root / attempt_key(generation, 0)).parent.glob("*")
        return sorted((path for path in directories if path.name.isdigit()), key=lambda path: int(path.name))

    @property
    def evaluations(self) -> Path:
        """The run's store of evaluations."""
        return self.root / EVALUATIONS

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


def newest_usage(attempts: Iterable[Path], stages: Iterable[str]) -> dict[str, StageUsage]:
    """What a generation's stages have used: of each the newest attempt's word, which has in it what earlier ones used.

    `attempts` are directories, the oldest first. A stage that has not ended in any of them is left out.
    """
    found: dict[str, StageUsage] = {}
    for attempt, stage in itertools.product(attempts, list(stages)):
        result = read_stage_result(attempt / stage)
        if result is not None:
            found[stage] = result.usage
    return found


def may_be_taken_over(name: str, result: StageResult) -> bool:
    """Whether a new attempt need not run the stage or shard `name` again after this result of an earlier one."""
    if result.state != "done" or name == LAST_STAGE:
        # The last stage writes the attempt's own result, in the attempt's own name.
        return False
    # A shard may be done with nothing but failed searches; where all shards are, the synthesis has failed.
    searched = result.counts.get("problems", 0)
    return stage_of(name) != SHARDED_STAGE or not 0 < searched <= result.metrics.get("stopped_failed", 0)
