"""An engine that answers from a function: for tests of whatever talks to a model."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import Counter
from collections.abc import Callable

from perseid.engines.protocol import Completion, EngineError, Generation, Request, Usage


class ScriptedEngine:
    """Calls `answer(request)` for the texts; it returns `sampling.n` of them, or one that is used for all.

    A beam search is a request for one text: `answer` sees its width in the request.
    """

    def __init__(
        self, answer: Callable[[Request], list[str]], *, model_id: str = "scripted", logprobs: bool = True
    ) -> None:
        self._answer = answer
        self._model_id = model_id
        self._logprobs = logprobs
        self.requests: list[Request] = []
        """Every request, in the order of arrival."""
        self.closed = False
        self.in_flight = 0
        self.most_in_flight = 0

    @property
    def model_id(self) -> str:
        """As given."""
        return self._model_id

    @property
    def calls_by_kind(self) -> Counter[str]:
        """How many requests of each kind came."""
        return Counter(request.kind for request in self.requests)

    async def generate(self, request: Request) -> Generation:
        """Answer one request, after giving other coroutines a turn. A word is a token. What `answer` raises passes."""
        self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            texts = self._answer(request)
        finally:
            self.in_flight -= 1
        sampling = request.sampling
        if len(texts) == 1:
            texts = texts * sampling.n
        if len(texts) != sampling.n:
            raise EngineError(f"the script gave {len(texts)} texts for n = {sampling.n}")
        completions = tuple(self._completion(request, text) for text in texts)
        prompt_tokens = sum(len(message.content.split()) for message in request.messages)
        usage = Usage(1, prompt_tokens, 0, sum(completion.tokens for completion in completions))
        return Generation(completions, usage)

    async def close(self) -> None:
        """Note that it was closed."""
        self.closed = True

    def _completion(self, request: Request, text: str) -> Completion:
        choices, tokens = request.sampling.choices, len(text.split()) + 1
        if choices is not None and text not in choices:
            raise EngineError(f"the script answered {text!r}, which is none of the choices {choices}")
        return Completion(
            text=text,
            tokens=tokens,
            finish_reason="stop",
            logprob=-tokens * _surprise(text) if self._logprobs else None,
            choice_logprobs=_choice_logprobs(choices, text) if choices and self._logprobs else None,
        )


def _surprise(text: str) -> float:
    """A number from 0 to 1 that depends on the text alone."""
    return hashlib.sha256(text.encode()).digest()[0] / 255


def _choice_logprobs(choices: tuple[str, ...], chosen: str) -> dict[str, float]:
    """Nine tenths for the answer, the rest shared equally."""
    if len(choices) == 1:
        return {chosen: 0.0}
    rest = math.log(0.1 / (len(choices) - 1))
    return {choice: math.log(0.9) if choice == chosen else rest for choice in choices}
