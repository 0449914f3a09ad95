"""Models that are loaded by their first call: where every call is in a journal, none is loaded at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from perseid.api.engine import DType, EngineSpec
from perseid.engines.errors import EngineClosedError, EngineStartError, ModelError
from perseid.engines.factory import open_engine
from perseid.engines.models import ResolvedModel
from perseid.engines.protocol import Engine, EngineError, Generation, Request


class LazyEngine:
    """An engine that starts when it is first asked."""

    def __init__(self, model_id: str, start: Callable[[], Awaitable[Engine]]) -> None:
        self._model_id = model_id
        self._start = start
        self._starting = asyncio.Lock()
        self._engine: Engine | None = None
        self._failure: EngineError | None = None
        self._closed = False

    @property
    def model_id(self) -> str:
        """Identity of the weights."""
        return self._model_id

    async def generate(self, request: Request) -> Generation:
        """Answer one request, starting the engine for the first. A failed start is every later call's too."""
        async with self._starting:
            if self._closed:
                raise EngineClosedError(f"the model {self._model_id} was closed before it answered")
            if self._failure is not None:
                raise self._failure
            if self._engine is None:
                try:
                    self._engine = await self._start()
                except EngineError as error:
                    self._failure = error
                    raise
        return await self._engine.generate(request)

    async def close(self) -> None:
        """Close the engine where it was started."""
        async with self._starting:
            self._closed = True
            if self._engine is not None:
                await self._engine.close()


def lazy_model(model: ResolvedModel, spec: EngineSpec, dtype: DType, *, trust_remote_code: bool) -> LazyEngine:
    """The engine that the spec asks for with `model` in it; weights are fetched when they are first needed."""

    async def start() -> Engine:
        try:
            await asyncio.to_thread(model.fetch_weights)
        except ModelError as error:
            raise EngineStartError(str(error)) from error
        return await open_engine(model.path, model.model_id, spec, dtype, trust_remote_code=trust_remote_code)

    return LazyEngine(model.model_id, start)
