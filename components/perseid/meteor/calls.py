"""One model call of METEOR: seeded by what it is for, named after its question, asked again where it must have a form.

Calls are made in the order of their questions and read in the same order, so that a run that is repeated over a journal
makes the same requests and gives the same records.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from perseid.data.records import Question
from perseid.engines.errors import (
    BudgetExceededError,
    EngineClosedError,
    EngineDiedError,
    JournalError,
    UnsupportedSamplingError,
)
from perseid.engines.protocol import Completion, Engine, EngineError, Message, Request, Sampling

T = TypeVar("T")

STOPPING_ERRORS = (JournalError, EngineDiedError, EngineClosedError, UnsupportedSamplingError)
"""Errors that say nothing about one question: going on would drop every later question for them. They are raised, and
a repetition goes on from the journal (after UnsupportedSamplingError: with another engine or another decoding)."""

_SHOWN = 400
"""Characters of a malformed answer that its asker sees again."""


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Hash what a call is for into a seed of 31 bits, which every engine takes."""
    identity = json.dumps([seed, *purpose], ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big") >> 1


async def ask_for(
    engine: Engine, messages: tuple[Message, ...], sampling: Sampling, *, kind: str, subject: str
) -> tuple[Completion, ...]:
    """Make one request; exactly `sampling.n` completions come back. Raises EngineError."""
    generation = await engine.generate(Request(messages, sampling, kind, subject))
    if len(generation.completions) != sampling.n:
        raise EngineError(
            f"the engine of {engine.model_id} gave {len(generation.completions)} answers to a {kind} request about "
            f"{subject}, asked were {sampling.n}: use an engine that honours n"
        )
    return generation.completions


async def ask(
    engine: Engine, messages: tuple[Message, ...], sampling: Sampling, *, kind: str, subject: str
) -> Completion:
    """Make one request for one completion. Raises EngineError."""
    (completion,) = await ask_for(engine, messages, sampling, kind=kind, subject=subject)
    return completion


@dataclass(frozen=True, slots=True)
class Structured(Generic[T]):
    """What became of a request whose answer must have a form."""

    value: T | None
    """None where no answer had the form, or the model could not be asked."""
    texts: tuple[str, ...]
    """Every answer, as it came."""
    reason: str = ""
    """Why there is no value: `malformed`, `<role>-failed` or `budget-exceeded`. Empty with a value."""
    detail: str = ""
    """What the engine's error said."""

    @property
    def attempts(self) -> int:
        """Answers that were got."""
        return len(self.texts)


async def ask_structured(
    engine: Engine,
    messages: tuple[Message, ...],
    parse: Callable[[Completion], T | None],
    *,
    reminder: str,
    max_tokens: int,
    max_tries: int,
    kind: str,
    subject: str,
    role: str = "judge",
) -> Structured[T]:
    """Ask greedily until `parse` finds a value, `max_tries` times at most. Never a guess.

    Each further try shows the model its malformed answers and the reminder of the form. Errors of the engine become the
    reason, except STOPPING_ERRORS.
    """
    texts: list[str] = []
    for _ in range(max_tries):
        try:
            completion = await ask(engine, messages, Sampling(max_tokens), kind=kind, subject=subject)
        except EngineError as error:
            return Structured(None, tuple(texts), failure_reason(error, role), str(error))
        texts.append(completion.text)
        value = parse(completion)
        if value is not None:
            return Structured(value, tuple(texts))
        malformed = completion.text.strip()[:_SHOWN] or "(nothing)"
        messages = (*messages, Message("assistant", malformed), Message("user", reminder))
    return Structured(None, tuple(texts), "malformed")


def failure_reason(error: EngineError, role: str) -> str:
    """The recorded reason of a failed call: `budget-exceeded`, or the role that failed. Raises STOPPING_ERRORS on."""
    if isinstance(error, STOPPING_ERRORS):
        raise error
    return "budget-exceeded" if isinstance(error, BudgetExceededError) else f"{role}-failed"


def require_distinct(questions: Sequence[Question]) -> None:
    """Raise ValueError where two questions have one id: everything is joined by it."""
    repeated = sorted(name for name, count in Counter(question.id for question in questions).items() if count > 1)
    if repeated:
        raise ValueError(
            f"{len(repeated)} question ids stand for several questions, such as {repeated[:3]}: give each its own id"
        )
