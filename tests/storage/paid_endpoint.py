"""An endpoint that counts what it was asked, answers as much as the test wants, and then holds."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from typing import Any

from aiohttp import web

from chat_endpoint import ChatEndpoint, completion

LOGPROB = -0.5


class PaidEndpoint(ChatEndpoint):
    """The same request always gets the same answer."""

    def __init__(self, answers: int) -> None:
        """Hold every request after that many answers."""
        super().__init__()
        self.asked: list[str] = []
        self.answered: list[str] = []
        """Bodies, in the order in which they were answered."""
        self._left = answers
        self._changed = threading.Condition()
        self._gate = asyncio.Event()

    def go_on(self) -> None:
        """Answer everything from now on."""
        self._left = 1_000_000
        self._loop.call_soon_threadsafe(self._gate.set)

    def wait_until_it_holds(self, seconds: float) -> None:
        """Return when all the answers that the test wants are given and one more request has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._left == 0 and len(self.asked) > len(self.answered), seconds)

    async def answer(self, body: dict[str, Any]) -> web.StreamResponse:
        """A step of its own for each request."""
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
        digest = hashlib.sha256(text.encode()).hexdigest()
        places = range(0, 6 * (body.get("n") or 1), 6)
        texts = [f"Next step: do thing {digest[place : place + 6]}." for place in places]
        return completion(texts, logprobs=[LOGPROB] * 5)
