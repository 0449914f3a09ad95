"""Pushes a stage's files while the stage runs, in a thread of its own."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from perseid.api.layout import StorageError
from perseid.storage.errors import OwnershipLostError
from perseid.storage.mirror import DirectoryMirror

log = logging.getLogger(__name__)

PUSH_SECONDS = "PERSEID_PUSH_SECONDS"
DEFAULT_SECONDS = 30.0
JOURNAL_SECONDS = 1.0
"""How often the journal of paid calls is looked at."""
GRACE_SECONDS = 5.0
"""What a stage's body gets after SIGTERM, between two pushes. A pod has 30 for all."""


def push_interval() -> float:
    """Seconds between two pushes, from the environment. Raises StorageError for what is no time."""
    text = os.environ.get(PUSH_SECONDS, "")
    try:
        seconds = float(text) if text else DEFAULT_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0.1 <= seconds <= 86_400:
        raise StorageError(f"{PUSH_SECONDS} is {text!r}; give seconds from 0.1 to 86400, or nothing for 30")
    return seconds


class Pusher:
    """Pushes every `interval` seconds, and new lines of journals within about a second where calls are paid for.

    A push that fails is tried again at the next interval. One that finds the stage taken over, or anything else that a
    push should not meet, ends the thread: `failure` holds it, and `on_failure` is called with it.
    """

    def __init__(
        self, mirror: DirectoryMirror, interval: float, *, paid: bool, on_failure: Callable[[Exception], None]
    ) -> None:
        self.failure: Exception | None = None
        self._mirror = mirror
        self._interval = interval
        self._paid = paid
        self._on_failure = on_failure
        self._wake = threading.Event()
        self._body_ended = threading.Event()
        self._stopping = False
        self._terminating = False
        self._thread = threading.Thread(target=self._run, name="push", daemon=True)

    def start(self) -> None:
        """Begin to push."""
        self._thread.start()

    def stop(self) -> None:
        """Return when no push is under way any more. After `terminate` this does not return: the process ends."""
        self._stopping = True
        self._body_ended.set()
        self._wake.set()
        self._thread.join()

    def terminate(self) -> None:
        """Push at once, then end this process with the exit code of SIGTERM."""
        self._terminating = True
        self._wake.set()

    def _run(self) -> None:
        due = time.monotonic() + self._interval
        while True:
            wait = due - time.monotonic()
            self._wake.wait(max(0.0, min(wait, JOURNAL_SECONDS) if self._paid else wait))
            if self._terminating:
                self._end_process()
            if self._stopping:
                return
            everything = time.monotonic() >= due
            if everything or self._mirror.journals_have_grown():
                self._push(journals_only=not everything)
            if self.failure is not None:
                return
            if everything:
                due = time.monotonic() + self._interval

    def _push(self, *, journals_only: bool) -> None:
        try:
            self._mirror.push(journals_only=journals_only)
        except OwnershipLostError as error:
            self._fail(error)
        except StorageError as error:
            log.warning("not pushed, and tried again in at most %g s: %s", self._interval, error)
        except Exception as error:  # noqa: BLE001  # a thread's exception would be nobody's
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self._on_failure(error)

    def _end_process(self) -> NoReturn:
        log.info("SIGTERM: pushing before the end")
        self._push(journals_only=True)
        if self.failure is None:
            self._on_failure(StorageError("the stage was stopped by SIGTERM"))
            self._body_ended.wait(GRACE_SECONDS)
            self._push(journals_only=False)
        logging.shutdown()
        os._exit(128 + signal.SIGTERM)  # the main thread may be deep in somebody's C code: no exception would reach it
