"""What every stage shares: its directory and lock, what an earlier try has left, its progress and its result.

A stage that is done returns its result at once; one that was killed goes on from its journal and checkpoints; a new
attempt takes over what the last one had finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perseid.api.attempt import Attempt
from perseid.api.base import replace
from perseid.api.layout import PROGRESS, RESULT, STAGES, Layout, read_stage_result
from perseid.api.result import StageResult, StageUsage
from perseid.api.spec import EvolutionRunSpec
from perseid.data.jsonl import write_json
from perseid.stages.progress import ProgressWriter

log = logging.getLogger(__name__)

MAX_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a stage's body gets."""

    attempt: Attempt
    layout: Layout
    directory: Path
    """Where the stage writes."""
    progress: ProgressWriter

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


def run_stage(name: str, attempt: Attempt, body: StageBody) -> StageResult:
    """Run a stage, or return the result that it has already.

    Raises whatever stopped the stage, after writing it to the stage's result.json.
    """
    layout = Layout.of(attempt)
    directory = layout.stage(name)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _locked(directory.with_suffix(".lock")):
        if not directory.exists():
            _inherit(layout.earlier(name), directory)
        finished = read_stage_result(directory)
        if finished is not None and finished.state == "done":
            log.info("%s is done already", name)
            return finished
        directory.mkdir(exist_ok=True)
        context = StageContext(attempt, layout, directory, ProgressWriter(directory / PROGRESS, name))
        try:
            result = asyncio.run(body(context))
        except Exception as error:
            usage = StageUsage(seconds=context.progress.seconds)
            _write_result(directory, StageResult(stage=name, state="failed", error=_describe(error), usage=usage))
            raise
        usage = replace(result.usage, seconds=context.progress.seconds)
        result = replace(result, usage=usage)
        _write_result(directory, result)
        return result


def _write_result(directory: Path, result: StageResult) -> None:
    write_json(directory / RESULT, result.model_dump(mode="json", by_alias=True))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until no other process runs this stage. One that was orphaned by a kill may need a moment to die."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _inherit(earlier: list[Path], directory: Path) -> None:
    """Take over the newest earlier attempt's files. They are linked where they can be: models are big.

    Files that grow (journals) are copied, for a link would let this attempt write into the earlier one's.
    """
    source = next((path for path in earlier if path.exists()), None)
    if source is None:
        return
    scratch = directory.with_name(f".{directory.name}.inherited")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source, scratch, copy_function=_link_or_copy)
    ended = read_stage_result(scratch)
    # The last stage is never done for a new attempt: it writes the attempt's own result, in the attempt's own name.
    if ended is not None and (ended.state != "done" or directory.name == STAGES[-1]):
        (scratch / RESULT).unlink()
    scratch.rename(directory)
    log.info("took over what %s had done", source)


def _link_or_copy(source: str, target: str) -> None:
    if Path(source).suffix == ".safetensors":
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


def _describe(error: BaseException) -> str:
    """The error as a user reads it, within the bounds of a result's message."""
    text = str(error).strip() or type(error).__name__
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
