"""What every stage shares: its directory and lock, what an earlier try has left, its progress and its result.

A stage that is done returns its result at once; one that was killed goes on from its journal and checkpoints; a new
attempt takes over what the last one had finished. Where the run's storage is object storage, all of that is true of a
working copy, which `perseid.storage` keeps in step.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perseid.api.attempt import Attempt
from perseid.api.base import replace
from perseid.api.layout import PROGRESS, RESULT, STAGES, Layout, StorageError, is_remote, read_stage_result
from perseid.api.result import StageResult, StageUsage
from perseid.api.spec import EvolutionRunSpec
from perseid.data.jsonl import write_json
from perseid.stages.progress import ProgressWriter
from perseid.storage.pusher import Pusher, push_interval
from perseid.storage.stage import StageStorage

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
    storage: StageStorage | None = None
    """Where the directories are a working copy; None where they are the storage itself."""

    def output(self, stage: str, name: str) -> Path:
        """The path of a file that a stage of this attempt has written. It is there if the stage has written it."""
        if self.storage is not None and self.layout.stage(stage) != self.directory:
            self.storage.fetch_output(stage, name)
        return self.layout.stage(stage) / name

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

    Raises whatever stopped the stage, after writing it to the stage's result.json; StorageError where the storage
    cannot be used, and OwnershipLostError (a StorageError) where another try has taken the stage over.
    """
    layout = Layout.of(attempt)
    storage = StageStorage(layout, name) if is_remote(attempt.storage) else None
    directory = layout.stage(name)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _locked(directory.with_suffix(".lock")):
        if storage is not None:
            return _run_in_working_copy(name, attempt, layout, storage, body)
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
            _write_result(directory, _failed(name, context, error))
            raise
        return _write_result(directory, _timed(result, context))


def _run_in_working_copy(
    name: str, attempt: Attempt, layout: Layout, storage: StageStorage, body: StageBody
) -> StageResult:
    """The same with a storage that is kept in step while the body runs."""
    interval = push_interval()
    finished = storage.result()
    if finished is not None and finished.state == "done":
        log.info("%s is done already", name)
        return finished
    storage.mirror.take_over()
    storage.mirror.pull()
    directory = layout.stage(name)
    progress = _StoppableProgress(directory / PROGRESS, name)
    context = StageContext(attempt, layout, directory, progress, storage)
    stop: Callable[[], None] = lambda: None  # noqa: E731  # until there is a body

    def on_failure(error: Exception) -> None:
        progress.stop_with(error)
        stop()

    async def stoppable() -> StageResult:
        nonlocal stop
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # a coroutine runs in a task

        def cancel() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing left to stop
                loop.call_soon_threadsafe(task.cancel)

        stop = cancel
        return await body(context)

    synthesis = attempt.run.spec.synthesis
    paid = synthesis.policy_endpoint is not None or synthesis.evaluator_endpoint is not None
    pusher = Pusher(storage.mirror, interval, paid=paid, on_failure=on_failure)
    with _sigterm_calls(pusher.terminate):
        pusher.start()
        try:
            result = asyncio.run(stoppable())
        except BaseException as error:
            pusher.stop()
            if pusher.failure is not None:
                raise pusher.failure from error
            if not isinstance(error, Exception):
                _push_what_there_is(storage)
                raise
            failed = _write_result(directory, _failed(name, context, error))
            with _a_second_trouble_is_only_told():
                storage.finish(_content(directory), done=failed.state == "done")
            raise
        pusher.stop()
        if pusher.failure is not None:
            raise pusher.failure
        result = _write_result(directory, _timed(result, context))
        storage.finish(_content(directory), done=True)
        return result


class _StoppableProgress(ProgressWriter):
    """Progress that raises where the stage must not go on: training runs in a thread, which nothing else can stop."""

    _stop: Exception | None = None

    def stop_with(self, error: Exception) -> None:
        """Raise this from now on."""
        self._stop = error

    def _write(self) -> None:
        if self._stop is not None:
            raise self._stop
        super()._write()


@contextlib.contextmanager
def _sigterm_calls(action: Callable[[], None]) -> Iterator[None]:
    """Have SIGTERM do that, as long as the context lasts. Only a main thread can; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _push_what_there_is(storage: StageStorage) -> None:
    with _a_second_trouble_is_only_told():
        storage.mirror.push()


@contextlib.contextmanager
def _a_second_trouble_is_only_told() -> Iterator[None]:
    """The first one is what the user must see."""
    try:
        yield
    except StorageError as error:
        log.error("and what was done could not be stored: %s", error)


def _failed(name: str, context: StageContext, error: Exception) -> StageResult:
    usage = StageUsage(seconds=context.progress.seconds)
    return StageResult(stage=name, state="failed", error=_describe(error, context.layout), usage=usage)


def _timed(result: StageResult, context: StageContext) -> StageResult:
    return replace(result, usage=replace(result.usage, seconds=context.progress.seconds))


def _content(directory: Path) -> bytes:
    return (directory / RESULT).read_bytes()


def _write_result(directory: Path, result: StageResult) -> StageResult:
    write_json(directory / RESULT, result.model_dump(mode="json", by_alias=True))
    return result


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


def _describe(error: BaseException, layout: Layout) -> str:
    """The error as a user reads it, within the bounds of a result's message, and with the files' lasting places."""
    text = str(error).strip() or type(error).__name__
    if layout.uri is not None:
        text = text.replace(str(layout.root), layout.uri)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
