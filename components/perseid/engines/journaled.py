"""An engine that never makes the same call twice: a journal in front of another engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from perseid.engines.journal import Journal, request_key
from perseid.engines.protocol import Engine, Generation, Request, Usage


@dataclass(slots=True)
class CallCounts:
    """What a run asked for and what it cost."""

    made: int = 0
    """Calls that the engine answered."""
    replayed: int = 0
    """Calls that were answered from the journal, or by an identical call that was in flight."""
    usage_by_kind: dict[str, Usage] = field(default_factory=dict)
    """Recorded usage of all calls, made and replayed: a resumed run adds up to the same as an undisturbed one."""

    def add_usage(self, kind: str, usage: Usage) -> None:
        """Count one answered request."""
        self.usage_by_kind[kind] = self.usage_by_kind.get(kind, Usage()) + usage


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Generation]
    waiters: int = 0


class JournaledEngine:
    """Answers from the journal where it can; otherwise calls the engine and records before handing out."""

    def __init__(self, engine: Engine, journal: Journal, earlier: Mapping[str, Generation] | None = None) -> None:
        """`earlier` holds calls of another journal by key: they are answered from it, and not counted as this one's."""
        self._engine = engine
        self._journal = journal
        self._earlier = earlier or {}
        self._flights: dict[str, _Flight] = {}
        self.counts = CallCounts()

    @property
    def model_id(self) -> str:
        """The inner engine's."""
        return self._engine.model_id

    async def generate(self, request: Request) -> Generation:
        """Answer one request; identical requests in flight become one call. Raises EngineError."""
        key = request_key(self.model_id, request)
        if (known := self._earlier.get(key)) is not None:
            return known
        generation = self._journal.get(key)
        if generation is None:
            generation = await self._share(key, request)
        else:
            self.counts.replayed += 1
        self.counts.add_usage(request.kind, generation.usage)
        return generation

    async def close(self) -> None:
        """Close the engine, then the journal."""
        try:
            await self._engine.close()
        finally:
            self._journal.close()

    async def _share(self, key: str, request: Request) -> Generation:
        flight = self._flights.get(key)
        first = flight is None
        if flight is None:
            # A task of its own: when the caller that came first is cancelled, the others still get their answer.
            flight = self._flights[key] = _Flight(asyncio.create_task(self._call(key, request)))
        flight.waiters += 1
        try:
            generation = await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.task.done():
                # Nobody waits any more. Taken out at once, so that no newcomer joins a cancelled call.
                if self._flights.get(key) is flight:
                    del self._flights[key]
                flight.task.cancel()
        if not first:
            self.counts.replayed += 1
        return generation

    async def _call(self, key: str, request: Request) -> Generation:
        mine = asyncio.current_task()
        try:
            generation = await self._engine.generate(request)
            self._journal.append(key, generation)
            self.counts.made += 1
            return generation
        finally:
            flight = self._flights.get(key)
            if flight is not None and flight.task is mine:
                del self._flights[key]
