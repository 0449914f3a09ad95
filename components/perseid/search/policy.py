"""The policy: the model that proposes steps, reflects on them and says at the end whether they are complete."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from perseid.engines.protocol import Completion, Engine, Sampling
from perseid.search.calls import Context, ask
from perseid.search.parsing import (
    VERDICTS,
    Reflection,
    Rejection,
    normal_form,
    parse_reflection,
    parse_step,
    parse_verdict,
)
from perseid.search.profiles import SearchConfig
from perseid.search.prompts import PROGRAMMING, Words, check_prompt, propose_prompt, reflect_prompt

MAX_ATTEMPTS = 4
"""Requests for the same proposals or the same answer, the first included, before the shortfall is counted."""

CHOICE_TOKENS = 8
"""Room for a constrained answer and its end token."""

STOP = ("\nStep ", "\nNext step", "```")
"""A proposal is one step without code; what follows would be thrown away."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A step and how likely it is."""

    step: str
    logprob: float | None
    """Sum over the tokens of the model's answer, label and end token included; None where the engine cannot tell."""
    tokens: int

    @property
    def mean_logprob(self) -> float | None:
        """Log-probability per token."""
        known = self.logprob is not None and self.tokens > 0 and math.isfinite(self.logprob)
        return self.logprob / self.tokens if known and self.logprob is not None else None


class Policy(Protocol):
    """Proposes and reflects."""

    async def propose(
        self, context: Context, steps: Sequence[str], count: int, *, reflection: str | None, node: str, kind: str
    ) -> list[Proposal]:
        """Up to `count` distinct next steps; a shortfall is counted in the context's ledger."""
        ...

    async def reflect(self, context: Context, steps: Sequence[str], *, node: str, may_end: bool) -> Reflection:
        """Assess the steps so far."""
        ...

    async def check(self, context: Context, steps: Sequence[str], *, node: str) -> bool | None:
        """Whether the plan is correct and complete; None where no answer could be read."""
        ...


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """A policy that asks an engine."""

    engine: Engine
    config: SearchConfig
    words: Words = PROGRAMMING

    async def propose(
        self, context: Context, steps: Sequence[str], count: int, *, reflection: str | None, node: str, kind: str
    ) -> list[Proposal]:
        """Ask for `count` steps: at once, or one after the other with the elder ones shown.

        Empty, repeated and duplicate ones are replaced by new requests with new seeds, MAX_ATTEMPTS requests for the
        same place at most.
        """
        found: list[Proposal] = []
        one_by_one = self.config.siblings == "history"
        attempts = 0
        while len(found) < count and attempts < (count * MAX_ATTEMPTS if one_by_one else MAX_ATTEMPTS):
            elders = [proposal.step for proposal in found] if one_by_one else []
            prompt = propose_prompt(context.problem, steps, reflection, elders, self.words)
            missing = 1 if one_by_one else count - len(found)
            sampling = self._sampling(self.config.max_step_tokens, context.seeds.of(node, kind, attempts), missing)
            completions = await ask(self.engine, context, prompt, sampling, kind)
            attempts += 1
            for completion in completions:
                proposal = self._read(completion, steps, found)
                if isinstance(proposal, Rejection):
                    context.ledger.add(f"rejected.{proposal}")
                else:
                    found.append(proposal)
        context.ledger.add(f"shortfall.{kind}", count - len(found))
        return found

    def _read(self, completion: Completion, steps: Sequence[str], found: Sequence[Proposal]) -> Proposal | Rejection:
        step = parse_step(completion.text, steps, truncated=completion.finish_reason == "length")
        if isinstance(step, Rejection):
            return step
        if normal_form(step) in {normal_form(proposal.step) for proposal in found}:
            return Rejection.DUPLICATE
        return Proposal(step, completion.logprob, completion.tokens)

    async def reflect(self, context: Context, steps: Sequence[str], *, node: str, may_end: bool) -> Reflection:
        """Ask once. An answer without text and tag is an empty reflection, which changes nothing."""
        sampling = self._sampling(self.config.max_reflection_tokens, context.seeds.of(node, "reflect"), stop=())
        prompt = reflect_prompt(context.problem, steps, self.words)
        (completion,) = await ask(self.engine, context, prompt, sampling, "reflect")
        return parse_reflection(completion.text, may_end=may_end)

    async def check(self, context: Context, steps: Sequence[str], *, node: str) -> bool | None:
        """Ask for `solved` or `unsolved` in constrained decoding; an answer that is neither is asked for again."""
        prompt = check_prompt(context.problem, steps, self.words)
        for attempt in range(MAX_ATTEMPTS):
            seed = context.seeds.of(node, "check", attempt)
            sampling = Sampling(max_tokens=CHOICE_TOKENS, seed=seed, choices=VERDICTS)
            (completion,) = await ask(self.engine, context, prompt, sampling, "check")
            verdict = parse_verdict(completion.text)
            if verdict is not None:
                return verdict
        context.ledger.add("failed.check")
        return None

    def _sampling(self, max_tokens: int, seed: int, n: int = 1, stop: tuple[str, ...] = STOP) -> Sampling:
        config = self.config
        return Sampling(max_tokens, config.temperature, config.top_p, n=n, stop=stop, seed=seed)
