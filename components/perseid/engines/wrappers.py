"""Small engines around another engine: a cap on requests in flight, and a log of calls."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from perseid.engines.journal import request_key
from perseid.engines.protocol import Engine, Generation, Request

CALL_LOG_VARIABLE = "PERSEID_CALL_LOG"


class LimitedEngine:
    """Lets at most `max_in_flight` requests through at once; the others wait in order."""

    def __init__(self, engine: Engine, max_in_flight: int) -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight is {max_in_flight}, but must be at least 1")
        self._engine = engine
        self._slots = asyncio.Semaphore(max_in_flight)

    @property
    def model_id(self) -> str:
        """The inner engine's."""
        return self._engine.model_id

    async def generate(self, request: Request) -> Generation:
        """Answer one request when there is a slot."""
        async with self._slots:
            return await self._engine.generate(request)

    async def close(self) -> None:
        """Close the inner engine."""
        await self._engine.close()


class CallLogEngine:
    """Appends the journal key of every call that the engine answered to a file, one on each line.

    Placed inside a JournaledEngine, a key that stands there twice is a call that was made twice.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._path = path

    @property
    def model_id(self) -> str:
        """The inner engine's."""
        return self._engine.model_id

    async def generate(self, request: Request) -> Generation:
        """Answer one request and log it."""
        generation = await self._engine.generate(request)
        self._append(request_key(self.model_id, request))
        return generation

    async def close(self) -> None:
        """Close the inner engine."""
        await self._engine.close()

    def _append(self, key: str) -> None:
        # O_APPEND and one write: several processes may share the file.
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, f"{key}\n".encode())
        finally:
            os.close(file)


def with_call_log(engine: Engine) -> Engine:
    """The engine, with a call log where the variable PERSEID_CALL_LOG names a file."""
    path = os.environ.get(CALL_LOG_VARIABLE)
    return CallLogEngine(engine, Path(path)) if path else engine
