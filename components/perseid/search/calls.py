"""One model call of a search: seeded, counted, and never truncated in silence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from perseid.data.records import Problem
from perseid.engines.protocol import Completion, Engine, Message, PromptTooLongError, Request, Sampling
from perseid.search.outcome import Ledger
from perseid.search.seeds import Seeds


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat whose constant part comes first, then the question, then the steps."""

    system: str
    examples: tuple[Message, ...]
    """Worked examples: the only part that may be left out when the context is too short."""
    question: Message

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole chat."""
        return (Message("system", self.system), *self.examples, self.question)


@dataclass(frozen=True, slots=True)
class Context:
    """What the parts of one search share."""

    problem: Problem
    seeds: Seeds
    ledger: Ledger = field(default_factory=Ledger)


async def ask(
    engine: Engine, context: Context, prompt: Prompt, sampling: Sampling, kind: str
) -> tuple[Completion, ...]:
    """Send a prompt. Where it does not fit, leave its examples out; where that does not fit, PromptTooLongError."""
    request = Request(prompt.messages, sampling, kind)
    try:
        generation = await engine.generate(request)
    except PromptTooLongError:
        if not prompt.examples:
            raise
        context.ledger.add(f"examples-dropped.{kind}")
        request = replace(request, messages=replace(prompt, examples=()).messages)
        generation = await engine.generate(request)
    context.ledger.add(f"requests.{kind}")
    context.ledger.add(f"completions.{kind}", len(generation.completions))
    context.ledger.usage += generation.usage
    return generation.completions
