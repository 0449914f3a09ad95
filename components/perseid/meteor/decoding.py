"""Cheap and expensive ways to decode an answer, for the third stage.

The learner alone works here: no mentor and no judge. What chooses among its answers is its own critique.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from perseid.api.engine import SamplingSpec
from perseid.api.meteor import Decoding
from perseid.data.prompts import plain_question
from perseid.data.records import Question
from perseid.engines.protocol import Completion, Engine, Message, Sampling
from perseid.engines.sampling import sampling_of
from perseid.engines.together import together
from perseid.meteor.calls import ask_for, derive_seed
from perseid.meteor.critique import self_verdict
from perseid.meteor.records import DecodedAnswer

CritiqueName = Literal["likelihood", "self-verdict"]
"""`likelihood`: mean log-probability per token, which costs nothing. `self-verdict`: probability of `right`."""


class DecodingError(ValueError):
    """A decoding that cannot be had here. The message says what is missing."""


Decoder = Callable[[Question], Awaitable[Completion]]
"""A decoding that is made elsewhere, such as a tree search. Raises EngineError where it failed."""


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """How the third stage's answers are decoded."""

    seed: int
    sampling: SamplingSpec
    """Of `sample` and `best-of-n`; the longest answer and the stop strings count for all."""
    n: int = 8
    """Samples of `best-of-n`, beams of `beam`."""
    critique: CritiqueName | None = "likelihood"
    """None: answers have no score. `best-of-n` needs one."""
    decoders: Mapping[str, Decoder] = field(default_factory=dict)
    """By name, such as `search`."""


def require_decodings(names: tuple[Decoding, ...], settings: DecodingSettings) -> None:
    """Raise DecodingError, before anything is asked, for a decoding that these settings cannot do.

    What the engine cannot do, it says itself: UnsupportedSamplingError, at the first call.
    """
    for name in names:
        if name in settings.decoders:
            continue
        if name == "beam" and settings.n < 2:
            raise DecodingError(f"the decoding beam needs at least 2 beams: n is {settings.n}")
        if name == "search":
            raise DecodingError("the decoding search needs a decoder named search: none was given")
        if name == "best-of-n" and settings.critique is None:
            raise DecodingError("the decoding best-of-n needs a critique to choose by: likelihood or self-verdict")


async def decode(engine: Engine, question: Question, name: Decoding, settings: DecodingSettings) -> DecodedAnswer:
    """Answer a question by one decoding and criticise the answer. Raises EngineError, or DecodingError.

    `best-of-n` takes the answer with the best critique among those that are complete and not empty, or else among all;
    of equals the first. Answers without a score come last.
    """
    require_decodings((name,), settings)
    sampling = _sampling(question, name, settings)
    completions = await _completions(engine, question, name, settings, sampling)
    scores = await together(_score(engine, question, one, settings.critique) for one in completions)
    best = max(range(len(completions)), key=lambda index: _rank(completions[index], scores[index]))
    chosen = completions[best]
    return DecodedAnswer(
        id=f"{question.id}/{name}",
        question_id=question.id,
        strategy=name,
        text=chosen.text,
        truncated=chosen.finish_reason == "length",
        tokens=chosen.tokens,
        samples=len(completions),
        temperature=sampling.temperature,
        score=scores[best],
        model_id=engine.model_id,
    )


def _sampling(question: Question, name: Decoding, settings: DecodingSettings) -> Sampling:
    seed = derive_seed(settings.seed, "decode", name, question.id)
    sampling = sampling_of(settings.sampling, n=settings.n if name == "best-of-n" else 1, seed=seed)
    if name in {"sample", "best-of-n"}:
        return sampling
    beams = settings.n if name == "beam" and name not in settings.decoders else 0
    return replace(sampling, temperature=0.0, top_p=1.0, beams=beams)


async def _completions(
    engine: Engine,
    question: Question,
    name: Decoding,
    settings: DecodingSettings,
    sampling: Sampling,
) -> tuple[Completion, ...]:
    if name in settings.decoders:
        return (await settings.decoders[name](question),)
    messages = (Message("user", plain_question(question)),)
    return await ask_for(engine, messages, sampling, kind="decode", subject=question.id)


async def _score(
    engine: Engine, question: Question, completion: Completion, critique: CritiqueName | None
) -> float | None:
    if critique is None:
        return None
    if critique == "likelihood":
        return completion.mean_logprob
    return (await self_verdict(engine, question, completion.text)).probability


def _rank(completion: Completion, score: float | None) -> tuple[bool, float]:
    whole = completion.finish_reason == "stop" and bool(completion.text.strip())
    return whole, float("-inf") if score is None else score
