"""Time for the double: the real one, or one that a test moves."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since the epoch."""

    is_virtual: bool

    def now(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class RealClock:
    is_virtual = False

    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class VirtualClock:
    """Moves when it is told to, and jumps over whatever somebody sleeps."""

    is_virtual = True

    def __init__(self, start: float = 1_790_000_000.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds

    async def sleep(self, seconds: float) -> None:
        until = self._now + seconds
        await asyncio.sleep(0)
        self._now = max(self._now, until)
