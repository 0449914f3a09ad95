"""An OpenAI-compatible endpoint on this machine, for tests and benchmarks whose other side is blocking or a process."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

from aiohttp import web


class ChatEndpoint(ABC):
    """Serves from a thread of its own while the context lasts."""

    def __init__(self) -> None:
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @abstractmethod
    async def answer(self, body: dict[str, Any]) -> web.StreamResponse:
        """Answer one request. What waits when the context ends is cancelled."""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(await request.json())


def completion(texts: Sequence[str], finish: str = "stop", logprobs: Sequence[float] = ()) -> web.Response:
    """A chat completion of seven prompt tokens and five for each text, whose tokens have these log-probabilities."""
    content = [{"token": "t", "logprob": value, "bytes": None, "top_logprobs": []} for value in logprobs]
    answer = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "any",
        "choices": [
            {
                "index": index,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text},
                "logprobs": {"content": content} if content else None,
            }
            for index, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5 * len(texts), "total_tokens": 7 + 5 * len(texts)},
    }
    return web.json_response(answer)
