"""What a stage's body gets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perseid.api.attempt import Attempt
from perseid.api.layout import Layout
from perseid.api.result import StageResult
from perseid.api.spec import EvolutionRunSpec
from perseid.api.stages import StageName, stage_of
from perseid.stages.progress import ProgressWriter
from perseid.storage.stage import StageStorage

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
