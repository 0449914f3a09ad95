"""What a stage's body gets, and what is kept of how it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perseid.api.attempt import Attempt
from perseid.api.base import replace
from perseid.api.layout import RESULT, Layout
from perseid.api.result import MentorBudget, StageResult, StageUsage
from perseid.api.spec import EvolutionRunSpec
from perseid.api.stages import StageName, stage_of
from perseid.data.jsonl import write_json
from perseid.stages.errors import BudgetSpentError
from perseid.stages.progress import ProgressWriter
from perseid.storage.stage import StageStorage

MAX_MESSAGE = 1024
ANYWHERE = Path("/")
"""Where relative paths of problem sets would start: a run's paths are absolute since it was accepted."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a stage's body gets."""

    attempt: Attempt
    layout: Layout
    directory: Path
    """Where the stage writes."""
    progress: ProgressWriter
    storage: StageStorage | None = None
    """Where the directories are a working copy; None where they are the storage itself."""

    def output(self, stage: str, name: str) -> Path:
        """The path of a file that a stage of this attempt has written. It is there if the stage has written it."""
        if self.storage is not None and self.layout.stage(stage) != self.directory:
            self.storage.fetch_output(stage, name)
        return self.layout.stage(stage) / name

    @property
    def stage(self) -> StageName:
        """The stage's name."""
        found = stage_of(self.directory.name)
        assert found is not None  # the layout calls it so
        return found

    @property
    def spec(self) -> EvolutionRunSpec:
        """The run's spec."""
        return self.attempt.run.spec

    @property
    def seed(self) -> int:
        """The generation's own seed: the same problems must not get the same samples again from a model that stayed."""
        digest = hashlib.sha256(f"{self.spec.seed}/{self.attempt.generation}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1


StageBody = Callable[[StageContext], Coroutine[Any, Any, StageResult]]


def failed_result(name: str, context: StageContext, error: Exception) -> StageResult:
    """The result of a stage that an error has stopped."""
    usage = StageUsage(seconds=context.progress.seconds)
    return StageResult(
        stage=name,
        state="failed",
        error=_describe(error, context.layout),
        spent_budget=MentorBudget.of(context.spec.budget) if isinstance(error, BudgetSpentError) else None,
        usage=usage,
    )


def timed_result(result: StageResult, context: StageContext) -> StageResult:
    """The result with the time that the stage took, over all its tries, beside what its shards took."""
    seconds = result.usage.seconds + context.progress.seconds
    return replace(result, usage=replace(result.usage, seconds=seconds))


def write_result(directory: Path, result: StageResult) -> StageResult:
    """Write the stage's result.json; returns the result."""
    write_json(directory / RESULT, result.model_dump(mode="json", by_alias=True))
    return result


def _describe(error: BaseException, layout: Layout) -> str:
    """The error as a user reads it, within the bounds of a result's message, and with the files' lasting places."""
    text = str(error).strip() or type(error).__name__
    if layout.uri is not None:
        text = text.replace(str(layout.root), layout.uri)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
