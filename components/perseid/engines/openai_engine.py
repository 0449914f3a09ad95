"""A client of an OpenAI-compatible endpoint: vLLM's server, SGLang, llama.cpp, a hosted model."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from perseid.api.engine import OpenAISpec
from perseid.engines.choices import sample_seed
from perseid.engines.errors import EndpointAuthError, EndpointError, UnsupportedSamplingError
from perseid.engines.openai_answers import (
    CHOICE_MODES,
    ChoiceMode,
    choice_logprobs,
    completion_tokens,
    finish_reason,
    sum_logprobs,
    translate,
)
from perseid.engines.protocol import Completion, Generation, Request, Sampling, Usage
from perseid.engines.sampling import cut_at_stop

_CHOICE_ATTEMPTS = 4
_SEED_MASK = 2**31 - 1
"""Some servers take 32-bit seeds only."""


class OpenAIEngine:
    """Sends requests, at most `max_requests_in_flight` at once.

    Time-outs, 408, 409, 429 and 5xx are retried with growing waits; a Retry-After of up to two minutes is honoured.
    What the server cannot do (log-probabilities, several samples in one call, a way to constrain answers) is found out
    once and remembered.
    """

    def __init__(self, spec: OpenAISpec) -> None:
        """Read the API key from the environment. Raises EndpointAuthError where the variable is not set."""
        key = "none"
        if spec.api_key_env is not None:
            key = os.environ.get(spec.api_key_env, "")
            if not key:
                raise EndpointAuthError(
                    f"the endpoint {spec.base_url} needs its API key in the environment variable {spec.api_key_env}, "
                    "which is not set"
                )
        self._spec = spec
        self._client = openai.AsyncOpenAI(
            base_url=spec.base_url, api_key=key, timeout=spec.timeout_seconds, max_retries=spec.max_retries
        )
        self._slots = asyncio.Semaphore(spec.max_requests_in_flight)
        self._gives_logprobs = True
        self._gives_samples = True
        self._choice_mode = 0
        self._choice_mode_works = False

    @property
    def model_id(self) -> str:
        """URL and name: an endpoint does not tell its weights' identity."""
        return f"{self._spec.base_url}#{self._spec.model}"

    async def generate(self, request: Request) -> Generation:
        """Answer one request. Raises EndpointError (which kind says what to do), PromptTooLongError, or
        UnsupportedSamplingError for a beam search."""
        if request.sampling.beams:
            raise UnsupportedSamplingError(
                f"{self._where} cannot be asked for a beam search: the API has no field for it, and servers ignore "
                "fields that they do not know; use several samples (best-of-n), or run the model here with engine "
                "type transformers or vllm"
            )
        if request.sampling.choices is not None:
            return await self._choose(request, request.sampling.choices)
        sampling = request.sampling
        answers: list[ChatCompletion] = []
        if sampling.n > 1 and self._gives_samples:
            answers = [await self._complete(request, n=sampling.n, seed=sample_seed(sampling.seed, 0) & _SEED_MASK)]
            self._gives_samples = len(answers[0].choices) >= sampling.n
        # What a server gave that ignores n is paid for: only the rest is asked for, one by one.
        missing = range(sum(len(answer.choices) for answer in answers), sampling.n)
        answers += await asyncio.gather(
            *(self._complete(request, n=1, seed=sample_seed(sampling.seed, index) & _SEED_MASK) for index in missing)
        )
        return self._generation(answers, sampling)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _choose(self, request: Request, choices: tuple[str, ...]) -> Generation:
        answers = await asyncio.gather(
            *(self._choose_one(request, choices, index) for index in range(request.sampling.n))
        )
        usage = Usage(calls=1)
        for _, used in answers:
            usage += used
        return Generation(tuple(completion for completion, _ in answers), usage)

    async def _choose_one(self, request: Request, choices: tuple[str, ...], index: int) -> tuple[Completion, Usage]:
        used, said = Usage(), ""
        attempt = 0
        while attempt < _CHOICE_ATTEMPTS:
            position = self._choice_mode
            mode = CHOICE_MODES[position]
            seed = sample_seed(request.sampling.seed, index + attempt * request.sampling.n) & _SEED_MASK
            try:
                answer = await self._complete(request, n=1, seed=seed, mode=mode, choices=choices)
            except _NotSupported:
                self._next_choice_mode(position)
                continue
            used += _usage(answer)
            said = answer.choices[0].message.content or ""
            chosen = mode.read(said, choices)
            if chosen is not None:
                self._choice_mode_works = True
                return self._choice(answer, chosen, mode, choices), used
            attempt += 1
            # Servers ignore fields that they do not know: a free answer means that the way is not honoured.
            if not self._choice_mode_works:
                self._next_choice_mode(position)
        raise EndpointError(
            f"{self._where} answered {said[:80]!r} and none of the choices {list(choices)}, {_CHOICE_ATTEMPTS} "
            "times; use a server with structured outputs (vLLM, SGLang) or a model that follows the instruction"
        )

    def _next_choice_mode(self, failed: int) -> None:
        # Requests in flight together find out together: only the first one moves on.
        if self._choice_mode == failed:
            self._choice_mode = min(failed + 1, len(CHOICE_MODES) - 1)

    def _choice(self, answer: ChatCompletion, chosen: str, mode: ChoiceMode, choices: tuple[str, ...]) -> Completion:
        first = answer.choices[0]
        return Completion(
            text=chosen,
            tokens=completion_tokens(answer, 0),
            finish_reason="stop",
            logprob=sum_logprobs(first) if mode.answer_is_choice else None,
            choice_logprobs=choice_logprobs(first, choices) if mode.answer_is_choice else None,
        )

    async def _complete(
        self,
        request: Request,
        *,
        n: int,
        seed: int,
        mode: ChoiceMode | None = None,
        choices: tuple[str, ...] = (),
    ) -> ChatCompletion:
        sampling = request.sampling
        arguments: dict[str, Any] = {
            "model": self._spec.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "n": n,
            "seed": seed,
        }
        if sampling.stop and not sampling.keep_stop:
            arguments["stop"] = list(sampling.stop)
        body: dict[str, Any] = {}
        if request.messages and request.messages[-1].role == "assistant":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if mode is not None:
            mode.constrain(arguments, body, choices)
        if body:
            arguments["extra_body"] = body
        if self._gives_logprobs:
            scored = arguments | {"logprobs": True} | ({"top_logprobs": 20} if mode is not None else {})
            try:
                return await self._send(scored)
            except openai.BadRequestError as error:
                if "logprobs" not in str(error):
                    raise self._refusal(error, mode) from None
                self._gives_logprobs = False
        try:
            return await self._send(arguments)
        except openai.BadRequestError as error:
            raise self._refusal(error, mode) from None

    def _refusal(self, error: openai.BadRequestError, mode: ChoiceMode | None) -> Exception:
        if mode is not None and mode is not CHOICE_MODES[-1]:
            return _NotSupported()
        return self._translate(error)

    async def _send(self, arguments: dict[str, Any]) -> ChatCompletion:
        async with self._slots:
            try:
                answer: Any = await self._client.chat.completions.create(**arguments)
            except openai.BadRequestError:
                raise
            except openai.UnprocessableEntityError as error:
                raise openai.BadRequestError(error.message, response=error.response, body=error.body) from None
            except (openai.OpenAIError, ValueError) as error:
                # Without its cause: a server's own words may repeat the key, and tracebacks print causes.
                raise self._translate(error) from None
        usable = isinstance(answer, ChatCompletion) and bool(answer.choices)
        if not usable or any(choice.message is None for choice in answer.choices):
            raise EndpointError(
                f"{self._where} answered 200 with something that is no chat completion: {str(answer)[:200]!r}; is "
                "baseUrl the API's root (it usually ends in /v1)?"
            )
        return answer  # type: ignore[no-any-return]

    def _translate(self, error: Exception) -> Exception:
        return translate(error, self._where, self._spec, self._client.api_key)

    @property
    def _where(self) -> str:
        return f"the endpoint {self._spec.base_url} (model {self._spec.model})"

    def _generation(self, answers: list[ChatCompletion], sampling: Sampling) -> Generation:
        places = [(answer, at) for answer in answers for at in range(len(answer.choices))]
        completions = tuple(self._completion(answer, at, sampling) for answer, at in places[: sampling.n])
        usage = Usage(calls=1)
        for answer in answers:
            usage += _usage(answer)
        return Generation(completions, usage)

    def _completion(self, answer: ChatCompletion, at: int, sampling: Sampling) -> Completion:
        choice = answer.choices[at]
        text, ended = choice.message.content or "", finish_reason(choice, self._where)
        # The API has no way to keep a stop string, so the server was not told of it and the answer is cut here.
        cut = cut_at_stop(text, sampling.stop, keep=True) if sampling.keep_stop else None
        return Completion(
            text=text if cut is None else cut,
            tokens=completion_tokens(answer, at),
            finish_reason=ended if cut is None else "stop",
            logprob=sum_logprobs(choice),
        )


class _NotSupported(Exception):  # noqa: N818 - a signal between two methods, never seen outside
    """The server refused a way to constrain answers."""


def _usage(answer: ChatCompletion) -> Usage:
    """Token counts without the call itself, which is counted once for a request."""
    used = answer.usage
    if used is None:
        return Usage()
    details = used.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details is not None else 0
    return Usage(0, used.prompt_tokens, cached, used.completion_tokens)
