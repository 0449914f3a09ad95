"""A stage whose files lie in object storage: it runs in a working copy, pushed while it runs and at its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator

from perseid.api.attempt import Attempt
from perseid.api.layout import PROGRESS, RESULT, Layout, StorageError
from perseid.api.result import StageResult
from perseid.api.spec import EvolutionRunSpec
from perseid.stages.context import StageBody, StageContext
from perseid.stages.endings import failed_result, timed_result, write_result
from perseid.stages.progress import ProgressWriter
from perseid.storage.pusher import Pusher, push_interval
from perseid.storage.stage import StageStorage

log = logging.getLogger(__name__)


def run_in_working_copy(
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

    pusher = Pusher(storage.mirror, interval, paid=_asks_endpoints(attempt.run.spec), on_failure=on_failure)
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
            failed = write_result(directory, failed_result(name, context, error))
            with _a_second_trouble_is_only_told():
                storage.finish((directory / RESULT).read_bytes(), done=failed.state == "done")
            raise
        pusher.stop()
        if pusher.failure is not None:
            raise pusher.failure
        result = write_result(directory, timed_result(result, context))
        storage.finish((directory / RESULT).read_bytes(), done=True)
        return result


def _asks_endpoints(spec: EvolutionRunSpec) -> bool:
    """Whether a lost answer may have to be paid for once more."""
    meteor = spec.meteor
    endpoints = [spec.synthesis.policy_endpoint, spec.synthesis.evaluator_endpoint]
    if "meteor" in spec.methods:
        endpoints += [role.openai for role in (meteor.mentor, meteor.judge) if role.type == "openai"]
    return any(endpoint is not None for endpoint in endpoints)


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
