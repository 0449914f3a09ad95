"""Reading an OpenAI-compatible endpoint's answers and errors, and the ways to constrain an answer to choices."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openai
from openai.types.chat import ChatCompletion
from openai.types.chat.chat_completion import Choice

from perseid.api.engine import OpenAISpec
from perseid.engines.errors import (
    EndpointAuthError,
    EndpointError,
    EndpointModelError,
    EndpointUnreachableError,
)
from perseid.engines.protocol import EngineError, FinishReason, PromptTooLongError

_TOO_LONG = ("context_length_exceeded", "context length", "maximum model length", "max_model_len", "too many tokens")
_JSON_ROOM = 32
"""Tokens for the JSON around a choice."""


@dataclass(frozen=True)
class ChoiceMode:
    """One way to make a server answer with one of the choices."""

    constrain: Callable[[dict[str, Any], dict[str, Any], tuple[str, ...]], None]
    """Changes the call's arguments and extra body."""
    read: Callable[[str, tuple[str, ...]], str | None]
    """The choice in an answer; None where there is none."""
    answer_is_choice: bool = True
    """The answer's tokens are the choice's own, so that log-probabilities are too."""


def _as_json(arguments: dict[str, Any], body: dict[str, Any], choices: tuple[str, ...]) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": list(choices)}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    arguments["response_format"] = {
        "type": "json_schema",
        "json_schema": {"name": "choice", "schema": schema, "strict": True},
    }
    arguments["max_tokens"] += _JSON_ROOM
    arguments.pop("stop", None)  # a stop string could cut the JSON


def _read_json(text: str, choices: tuple[str, ...]) -> str | None:
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    value = answer.get("answer") if isinstance(answer, dict) else None
    return value if value in choices else None


def _read_text(text: str, choices: tuple[str, ...]) -> str | None:
    return text if text in choices else text.strip() if text.strip() in choices else None


CHOICE_MODES = (
    ChoiceMode(lambda _, body, choices: body.update(structured_outputs={"choice": list(choices)}), _read_text),
    ChoiceMode(lambda _, body, choices: body.update(guided_choice=list(choices)), _read_text),
    ChoiceMode(_as_json, _read_json, answer_is_choice=False),
    ChoiceMode(lambda *_: None, _read_text),
)
"""Tried in this order: vLLM, older vLLM, the OpenAI standard, and asking only."""


def sum_logprobs(choice: Choice) -> float | None:
    """Sum of the answer's token log-probabilities; None where the server gave none."""
    if choice.logprobs is None or not choice.logprobs.content:
        return None
    return math.fsum(token.logprob for token in choice.logprobs.content)


def completion_tokens(answer: ChatCompletion, at: int) -> int:
    """Tokens of one sample. From its log-probabilities where given, else an equal share of what the server counted."""
    choice = answer.choices[at]
    if choice.logprobs is not None and choice.logprobs.content:
        return len(choice.logprobs.content)
    total = answer.usage.completion_tokens if answer.usage is not None else 0
    share, rest = divmod(total, len(answer.choices))
    return share + (at < rest)


def choice_logprobs(choice: Choice, choices: tuple[str, ...]) -> dict[str, float] | None:
    """Log-probabilities of the choices, normalised over them.

    Only where the first token tells the choices apart and the server gave every one of them; None otherwise.
    """
    if choice.logprobs is None or not choice.logprobs.content:
        return None
    if any(one != other and other.startswith(one) for one in choices for other in choices):
        return None
    seen = {top.token: top.logprob for top in choice.logprobs.content[0].top_logprobs}
    if any(one not in seen for one in choices):
        return None
    highest = max(seen[one] for one in choices)
    total = highest + math.log(sum(math.exp(seen[one] - highest) for one in choices))
    return {one: seen[one] - total for one in choices}


def finish_reason(choice: Choice, where: str) -> FinishReason:
    """`stop` or `length`; anything else (a content filter, a tool call) is an error."""
    if choice.finish_reason in ("stop", "length"):
        return choice.finish_reason
    raise EndpointError(f"{where} ended an answer with {choice.finish_reason!r}, so it is not a whole one")


def translate(error: Exception, where: str, spec: OpenAISpec, key: str) -> EngineError:
    """The openai client's error as one of ours: what is wrong and what to do. Never contains the key."""
    said = str(error).replace(key, "***") if len(key) > len("none") else str(error)
    key_place = f"the variable {spec.api_key_env}" if spec.api_key_env else "apiKeyEnv, which names no variable"
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return EndpointAuthError(f"{where} refused the API key ({error.status_code}); check {key_place}")
    if isinstance(error, openai.NotFoundError):
        return EndpointModelError(
            f"{where} answered 404: it does not serve that model, or baseUrl is wrong (it usually ends in /v1): {said}"
        )
    if isinstance(error, openai.APITimeoutError):
        return EndpointUnreachableError(
            f"{where} gave no answer within {spec.timeout_seconds:g} s, {spec.max_retries + 1} times; raise "
            "timeoutSeconds or lower maxRequestsInFlight"
        )
    if isinstance(error, openai.APIConnectionError):
        return EndpointUnreachableError(
            f"{where} cannot be reached ({type(error.__cause__).__name__}: {error.__cause__}); is the server running, "
            "and are host and port right?"
        )
    if isinstance(error, openai.RateLimitError):
        return EndpointError(
            f"{where} still limits the rate after {spec.max_retries} retries; lower maxRequestsInFlight: {said}"
        )
    if isinstance(error, openai.BadRequestError) and any(sign in said.lower() for sign in _TOO_LONG):
        return PromptTooLongError(f"{where}: the prompt and max_tokens do not fit the model's context: {said}")
    if isinstance(error, openai.APIStatusError):
        return EndpointError(f"{where} answered {error.status_code}, after retries where those could help: {said}")
    return EndpointError(f"{where} answered with something that cannot be read: {said}")
