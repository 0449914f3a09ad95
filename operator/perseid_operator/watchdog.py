"""Ends the process when the event loop is blocked for good. Two dogs, since the first can be kept from barking.

A thread watches, says in the log where the loop is stuck, and ends the process. Where the blocking call holds the
interpreter's lock (a regular expression without end does) no thread runs at all: then faulthandler's timer, which needs
no lock, writes the stacks and ends it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)

BLOCKED_SECONDS = 30.0
"""So long may the event loop be blocked."""
EXIT_CODE = 70
"""The process' exit status (EX_SOFTWARE). Where faulthandler ends it, that is 1."""
_LAST_WORDS_SECONDS = 2.0
_LOOKS = 30
"""How often the thread looks within the time allowed."""


class Watchdog:
    """Ends the process where `feed` has not been called for `seconds`. Enter and feed it in the thread to be watched.

    Time in which the whole process was stopped (SIGSTOP, a frozen container) does not count for the thread.
    """

    def __init__(self, seconds: float, die: Callable[[int], object] = os._exit) -> None:
        self._seconds = seconds
        self._die = die
        self._fed = 0
        self._watched = 0
        self._rearm_at = 0.0
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._watched = threading.get_ident()
        self.feed()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        faulthandler.cancel_dump_traceback_later()

    def feed(self) -> None:
        """Say that the thread is not stuck."""
        self._fed += 1
        now = time.monotonic()
        if now >= self._rearm_at:
            # Twice the time: the thread, which tells more, comes first. Each call starts a thread, so not at each feed.
            faulthandler.dump_traceback_later(2 * self._seconds, exit=True, file=sys.__stderr__ or 2)
            self._rearm_at = now + self._seconds / 4

    def _watch(self) -> None:
        pause = self._seconds / _LOOKS
        seen, stuck, looked_at = self._fed, 0.0, time.monotonic()
        while not self._over.wait(pause):
            now = time.monotonic()
            # A look that comes much too late says that the whole process stood still, not the loop alone.
            stuck = stuck + min(now - looked_at, 2 * pause) if seen == self._fed else 0.0
            seen, looked_at = self._fed, now
            if stuck >= self._seconds:
                self._end()
                return

    def _end(self) -> None:
        # The stuck thread may hold the lock of a log handler (a full pipe blocks it): last words must not hang as well.
        words = threading.Thread(target=self._last_words, name="last-words", daemon=True)
        words.start()
        words.join(_LAST_WORDS_SECONDS)
        self._die(EXIT_CODE)

    def _last_words(self) -> None:
        frame = sys._current_frames().get(self._watched)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "unknown"
        log.critical(
            "the event loop was blocked for more than %g s; the process ends, to be started again; it is stuck at:\n%s",
            self._seconds,
            stack,
        )
        for handler in logging.getLogger().handlers:
            with contextlib.suppress(OSError, ValueError):
                handler.flush()
