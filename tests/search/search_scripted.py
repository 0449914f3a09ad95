"""A scripted engine for the search's tests: answers by rule, writes down what it was asked."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from perseid.data.records import Problem
from perseid.engines.protocol import Completion, Generation, Message, PromptTooLongError, Request, Usage

Answer = str | Completion
Script = Callable[[Request], Sequence[Answer]]


def problem(name: str = "p1", **fields: object) -> Problem:
    return Problem.model_validate(
        {"id": name, "statement": f"Write a function {name}(x) that returns x plus 3.", **fields}
    )


def completion(
    text: str, logprob: float | None = -2.0, tokens: int = 4, finish: str = "stop", **more: object
) -> Completion:
    return Completion(text, tokens, finish, logprob, **more)  # type: ignore[arg-type]


def steps_from_seed(request: Request) -> list[Answer]:
    """As many distinct steps as samples, made of the prompt and the seed alone, with likelihoods to match."""
    identity = "".join(message.content for message in request.messages) + str(request.sampling.seed)
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return [
        completion(f"Next step: do thing {digest[i * 6 : i * 6 + 6]}.", -(int(digest[i], 16) + 1) / 4)
        for i in range(request.sampling.n)
    ]


def obliging(request: Request) -> Sequence[Answer]:
    """Propose by seed, score by seed, never end, call every plan unsolved."""
    if request.kind == "score":
        return [str(request.sampling.seed % 8)]
    if request.kind == "reflect":
        return ["Analysis: think of the empty list."]
    if request.kind == "check":
        return ["unsolved"]
    if request.kind == "chain":
        return ["Step 1: Add 3 to x.\nStep 2: Return the sum."]
    return steps_from_seed(request)


def by_kind(**answers: Callable[[Request], Sequence[Answer]] | Sequence[Answer]) -> Script:
    """Answer the named kinds of calls as told, all others obligingly."""

    def script(request: Request) -> Sequence[Answer]:
        answer = answers.get(request.kind, obliging)
        return answer(request) if callable(answer) else answer

    return script


@dataclass
class ScriptedEngine:
    script: Script = obliging
    model_id: str = "scripted"
    context: int | None = None
    """Characters that a prompt may have."""
    shuffle: random.Random | None = None
    """Draws how often a call gives way to others before it answers."""
    requests: list[Request] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    async def generate(self, request: Request) -> Generation:
        self.requests.append(request)
        if self.context is not None and sum(len(message.content) for message in request.messages) > self.context:
            raise PromptTooLongError("the prompt is too long")
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            for _ in range(self.shuffle.randrange(20) if self.shuffle else 1):
                await asyncio.sleep(0)  # Gives way; no time passes.
            answers = self.script(request)
        finally:
            self.in_flight -= 1
        completions = tuple(answer if isinstance(answer, Completion) else completion(answer) for answer in answers)
        assert len(completions) == request.sampling.n
        return Generation(completions, Usage(1, 10, 0, sum(each.tokens for each in completions)))

    async def close(self) -> None:
        return None

    def of(self, kind: str) -> list[Request]:
        return [request for request in self.requests if request.kind == kind]


def asked(request: Request) -> str:
    """The last turn of a request: the question and the steps."""
    last: Message = request.messages[-1]
    return last.content


async def execute(problem: Problem, steps: Sequence[str]) -> float | None:
    """Evidence that depends on the steps alone, between 0 and 4/5: no gate is reached by it."""
    return len("".join(steps)) % 5 / 5
