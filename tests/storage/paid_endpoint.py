"""An OpenAI-compatible endpoint that counts what it was asked, answers as much as the test wants, and then holds."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from typing import Any

from aiohttp import web

LOGPROB = -0.5


class PaidEndpoint:
    """Serves while the context lasts. The same request always gets the same answer."""

    def __init__(self, answers: int) -> None:
        """Hold every request after that many answers."""
        self.asked: list[str] = []
        self.answered: list[str] = []
        """Bodies, in the order in which they were answered."""
        self._left = answers
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._gate = asyncio.Event()
        self.url = ""

    def __enter__(self) -> PaidEndpoint:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._gate.set)
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def go_on(self) -> None:
        """Answer everything from now on."""
        self._left = 1_000_000
        self._loop.call_soon_threadsafe(self._gate.set)

    def wait_until_it_holds(self, seconds: float) -> None:
        """Return when all the answers that the test wants are given and one more request has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._left == 0 and len(self.asked) > len(self.answered), seconds)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = await request.json()
        text = json.dumps(body, sort_keys=True)
        with self._changed:
            self.asked.append(text)
            held = self._left <= 0
            if not held:
                self._left -= 1
            self._changed.notify_all()
        if held:
            await self._gate.wait()
        with self._changed:
            self.answered.append(text)
        return web.json_response(_completion(text, body.get("n") or 1))


def _completion(text: str, n: int) -> dict[str, Any]:
    digest = hashlib.sha256(text.encode()).hexdigest()
    token = {"token": "t", "logprob": LOGPROB, "bytes": None, "top_logprobs": []}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "paid",
        "choices": [
            {
                "index": index,
                "finish_reason": "stop",
                "message": {
                    "role": "assistant",
                    "content": f"Next step: do thing {digest[index * 6 : index * 6 + 6]}.",
                },
                "logprobs": {"content": [token] * 5},
            }
            for index in range(n)
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5 * n, "total_tokens": 7 + 5 * n},
    }
