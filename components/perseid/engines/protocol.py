"""The one way in which the library talks to a model.

An engine takes one request at a time from as many coroutines as there are and batches them itself. Constant parts of a
prompt come first, so that an engine with a prefix cache computes them once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a completion is decoded."""

    max_tokens: int
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    n: int = 1
    """Samples of the same prompt."""
    stop: tuple[str, ...] = ()
    """Strings at which the text ends; they are not part of it."""
    keep_stop: bool = False
    """The stop string at which the text ends stays part of it."""
    seed: int = 0
    choices: tuple[str, ...] | None = None
    """The answer is exactly one of these (constrained decoding)."""
    beams: int = 0
    """Width of a beam search, 0 for none. The one answer is the best sequence by log-probability per token, as
    `perseid.engines.beams` finds it. Engines that cannot search by beams raise UnsupportedSamplingError."""

    def __post_init__(self) -> None:
        """Raise ValueError where the fields contradict each other."""
        if self.beams == 0:
            return
        if self.beams < 2:
            raise ValueError(f"beams is {self.beams}, but must be 0 (none) or at least 2")
        if self.temperature != 0 or self.n != 1 or self.choices is not None:
            raise ValueError(
                f"a beam search gives one answer and draws nothing: it needs temperature 0, n 1 and no choices, but "
                f"temperature is {self.temperature}, n is {self.n} and choices are {self.choices}"
            )


@dataclass(frozen=True, slots=True)
class Request:
    """A chat and how to go on with it."""

    messages: tuple[Message, ...]
    sampling: Sampling
    kind: str = "generate"
    """What the call is for (propose, reflect, score, ...): used in counts, no part of the journal's key."""
    subject: str = ""
    """Id of the problem or question that the call is about, where it has one: no part of the journal's key."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer."""

    text: str
    tokens: int
    """Tokens of the answer, the end token included."""
    finish_reason: FinishReason
    """`length`: cut off at max_tokens or at the model's context."""
    logprob: float | None = None
    """Sum of the tokens' natural log-probabilities under the model (temperature 1, no nucleus), shape (). None where
    the engine cannot tell."""
    choice_logprobs: dict[str, float] | None = None
    """With choices: log-probability of each choice, normalised over the choices. None where the engine cannot tell."""

    @property
    def mean_logprob(self) -> float | None:
        """Log-probability per token."""
        return None if self.logprob is None or self.tokens == 0 else self.logprob / self.tokens


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts, summable."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class Generation:
    """What one request gave: `request.sampling.n` completions."""

    completions: tuple[Completion, ...]
    usage: Usage = field(default_factory=Usage)


class EngineError(Exception):
    """A model call that failed for good. The message says which, why, and what the user can do."""


class PromptTooLongError(EngineError):
    """The prompt and max_tokens do not fit the model's context. Nothing is ever truncated silently."""


class Engine(Protocol):
    """Runs a model."""

    @property
    def model_id(self) -> str:
        """What the answers depend on: the weights' identity, for the journal's key. Stable over restarts and paths."""
        ...

    async def generate(self, request: Request) -> Generation:
        """Answer one request. Safe to call from many coroutines; raises EngineError."""
        ...

    async def close(self) -> None:
        """Give memory and processes back."""
        ...


Telling = Callable[[str], None]
"""Told an answer's whole text so far, each time that it has grown. Stop strings may still be in its end."""


@runtime_checkable
class StreamingEngine(Engine, Protocol):
    """An engine that can tell an answer while it grows."""

    async def stream(self, request: Request, tell: Telling) -> Generation:
        """As `generate`, for one sample without choices and beams. When it is cancelled, the answer is given up."""
        ...


async def generate_all(engine: Engine, requests: Sequence[Request]) -> list[Generation]:
    """Answer several requests together, in their order."""
    return list(await asyncio.gather(*(engine.generate(request) for request in requests)))
