"""Answers from a closed list, with exact probabilities.

The choices' token sequences form a trie. Where it branches, the model's next-token probabilities (temperature 1) are
normalised over the branches; a choice that is the beginning of another one ("1" of "10") has the end of the answer as
one of them. The product along a path is the probability with which decoding constrained to the choices gives that
choice, so the probabilities sum to 1 and only branching nodes cost a forward pass.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from perseid.engines.protocol import Completion, EngineError, Sampling

NextLogprobs = Callable[[tuple[int, ...], tuple[int, ...]], Awaitable[Sequence[float]]]
"""(tokens after the prompt, candidate tokens) -> log-probability of each candidate as the next token."""


@dataclass(slots=True)
class _Node:
    path: tuple[int, ...]
    children: dict[int, _Node] = field(default_factory=dict)
    choice: str | None = None


@dataclass(frozen=True, slots=True)
class ChoiceDistribution:
    """What the model thinks of each choice."""

    logprobs: dict[str, float]
    """Normalised: the exponentials sum to 1."""
    raw: dict[str, float | None]
    """Sum of the choice's own token log-probabilities; None where a token that had no alternative was not scored."""
    tokens: dict[str, int]
    """Length of each choice."""

    def sample(self, sampling: Sampling) -> tuple[Completion, ...]:
        """Draw `sampling.n` answers. Temperature and nucleus apply to whole choices; temperature 0 takes the best."""
        return tuple(self._completion(self._draw(sampling, index)) for index in range(sampling.n))

    def _completion(self, choice: str) -> Completion:
        return Completion(
            text=choice,
            tokens=self.tokens[choice],
            finish_reason="stop",
            logprob=self.raw[choice],
            choice_logprobs=dict(self.logprobs),
        )

    def _draw(self, sampling: Sampling, index: int) -> str:
        ranked = sorted(self.logprobs, key=lambda choice: -self.logprobs[choice])
        if sampling.temperature == 0:
            return ranked[0]
        best = self.logprobs[ranked[0]]
        weights = [math.exp((self.logprobs[choice] - best) / sampling.temperature) for choice in ranked]
        total, kept, mass = sum(weights), 0, 0.0
        while kept < len(weights) and mass < sampling.top_p * total:
            mass += weights[kept]
            kept += 1
        generator = random.Random(sample_seed(sampling.seed, index))
        return generator.choices(ranked[:kept], weights[:kept])[0]


def sample_seed(seed: int, index: int) -> int:
    """Seed of sample `index` of a request, 0 to 2**63 - 1. Hashed, so that neighbouring seeds share no samples."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{index}".encode()).digest()[:8], "big") >> 1


async def choice_distribution(
    tokens: dict[str, tuple[int, ...]], end_tokens: tuple[int, ...], next_logprobs: NextLogprobs
) -> ChoiceDistribution:
    """Score every choice. `tokens` holds each choice's token ids; all branching nodes are asked for at once.

    Raises EngineError where a choice has no tokens or two choices have the same.
    """
    root = _trie(tokens)
    branching = [node for node in _walk(root) if len(node.children) + (node.choice is not None) > 1]

    async def score(node: _Node) -> tuple[dict[int | None, float], dict[int | None, float]]:
        ends = end_tokens if node.choice is not None else ()
        values = await next_logprobs(node.path, (*node.children, *ends))
        raw: dict[int | None, float] = dict(zip(node.children, values, strict=False))
        if ends:
            raw[None] = _log_sum_exp(values[len(node.children) :])
        total = _log_sum_exp(list(raw.values()))
        if total == -math.inf:
            raise EngineError(f"the model gives none of the choices {sorted(tokens)} any probability")
        return raw, {branch: value - total for branch, value in raw.items()}

    scored = dict(zip((node.path for node in branching), await asyncio.gather(*map(score, branching)), strict=True))
    logprobs: dict[str, float] = {}
    raw_sums: dict[str, float | None] = {}
    for choice, ids in tokens.items():
        normalised, raw_sum, complete = 0.0, 0.0, True
        for position in range(len(ids) + 1):
            branch = ids[position] if position < len(ids) else None
            if (scores := scored.get(ids[:position])) is not None:
                raw_sum += scores[0][branch]
                normalised += scores[1][branch]
            elif branch is not None:
                complete = False
        logprobs[choice] = normalised
        raw_sums[choice] = raw_sum if complete else None
    return ChoiceDistribution(logprobs, raw_sums, {choice: len(ids) for choice, ids in tokens.items()})


def _trie(tokens: dict[str, tuple[int, ...]]) -> _Node:
    if not tokens:
        raise EngineError("a request with choices needs at least one")
    root = _Node(())
    for choice, ids in tokens.items():
        if not ids:
            raise EngineError(f"the choice {choice!r} has no tokens")
        node = root
        for token in ids:
            node = node.children.setdefault(token, _Node((*node.path, token)))
        if node.choice is not None:
            raise EngineError(f"the choices {node.choice!r} and {choice!r} are the same tokens")
        node.choice = choice
    return root


def _walk(root: _Node) -> list[_Node]:
    nodes = [root]
    for node in nodes:
        nodes.extend(node.children.values())
    return nodes


def _log_sum_exp(values: Sequence[float]) -> float:
    highest = max(values)
    if highest == -math.inf:
        return highest
    return highest + math.log(sum(math.exp(value - highest) for value in values))
