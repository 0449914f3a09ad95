"""Turns at something that only a few may do at once, first come, first served."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable


class Turns:
    """Whoever gets no turn soon is woken when it may be his, and asks again."""

    def __init__(self, at_once: int, wake: Callable[[str], None]) -> None:
        """`wake(key)` is called for whoever is the next and does not wait here."""
        self._at_once = at_once
        self._wake = wake
        self._holding: set[str] = set()
        self._queue: dict[str, None] = {}
        self._waiting: dict[str, asyncio.Event] = {}

    async def take(self, key: str, seconds: float) -> bool:
        """Take a turn, waiting so long for it; else stay in the queue. Who has a turn has it until it is given back."""
        if self._try(key):
            return True
        called = self._waiting[key] = asyncio.Event()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while not self._try(key):
                        called.clear()
                        await called.wait()
        finally:
            del self._waiting[key]
        return key in self._holding

    def give_back(self, key: str) -> None:
        """The turn is over, or nobody wants it any more. Whoever follows hears of it."""
        self._holding.discard(key)
        self._queue.pop(key, None)
        for following in list(self._queue)[: self._at_once - len(self._holding)]:
            if following in self._waiting:
                self._waiting[following].set()
            else:
                self._wake(following)

    def _try(self, key: str) -> bool:
        if key in self._holding:
            return True
        self._queue.setdefault(key)
        if key not in list(self._queue)[: self._at_once - len(self._holding)]:
            return False
        del self._queue[key]
        self._holding.add(key)
        return True
