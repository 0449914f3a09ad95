"""An OpenAI-compatible endpoint on this machine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from served import Served


class ChatEndpoint(Served):
    """`answer` answers its chat completions. A client's base URL is `base_url`."""

    @abstractmethod
    async def answer(self, body: dict[str, Any]) -> web.StreamResponse:
        """Answer one request."""

    @property
    def base_url(self) -> str:
        """Where the API begins."""
        return f"{self.url}/v1"

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """The one path of chat completions."""
        router.add_post("/v1/chat/completions", self._handle)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not body.get("messages"):  # so a run asks, before it begins, whether somebody is there
            return web.json_response({"error": {"message": "messages must not be empty"}}, status=400)
        return await self.answer(body)


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
