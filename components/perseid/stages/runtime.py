"""What every stage shares: its directory and lock, what an earlier try has left, its progress and its result.

A stage that is done returns its result at once; one that was killed goes on from its journal and checkpoints; a new
attempt takes over what the last one had finished. Where the run's storage is object storage, all of that is true of a
working copy, which `perseid.storage` keeps in step.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from perseid.api.attempt import Attempt
from perseid.api.layout import PROGRESS, RESULT, Layout, is_remote, may_be_taken_over, read_stage_result
from perseid.api.result import StageResult
from perseid.stages.context import StageBody, StageContext
from perseid.stages.endings import failed_result, timed_result, write_result
from perseid.stages.files import link_or_copy
from perseid.stages.progress import ProgressWriter
from perseid.stages.working_copy import run_in_working_copy
from perseid.storage.stage import StageStorage

log = logging.getLogger(__name__)


def run_stage(name: str, attempt: Attempt, body: StageBody) -> StageResult:
    """Run a stage (or a shard, by its `shard_name`), or return the result that it has already.

    Raises whatever stopped the stage, after writing it to the stage's result.json; StorageError where the storage
    cannot be used, and OwnershipLostError (a StorageError) where another try has taken the stage over.
    """
    layout = Layout.of(attempt)
    storage = StageStorage(layout, name) if is_remote(attempt.storage) else None
    directory = layout.stage(name)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _locked(directory.with_suffix(".lock")):
        if storage is not None:
            return run_in_working_copy(name, attempt, layout, storage, body)
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
            write_result(directory, failed_result(name, context, error))
            raise
        return write_result(directory, timed_result(result, context))


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
    shutil.copytree(source, scratch, copy_function=link_or_copy)
    ended = read_stage_result(scratch)
    if ended is not None and not may_be_taken_over(directory.name, ended):
        (scratch / RESULT).unlink()
    scratch.rename(directory)
    log.info("took over what %s had done", source)
