"""Evaluators: what scores a path, from 0 to 10, and the evidence for it.

A score that could not be had is None and counted. It never becomes a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from perseid.data.records import Problem
from perseid.engines.protocol import Completion, Engine, Sampling
from perseid.engines.together import together
from perseid.search.calls import Context, ask
from perseid.search.parsing import SCORES, expected_score, ladder_band, parse_score
from perseid.search.policy import CHOICE_TOKENS, MAX_ATTEMPTS, Proposal
from perseid.search.prompts import PROGRAMMING, Words, score_prompt
from perseid.search.tree import Evidence


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A score and what it rests on."""

    score: float | None
    """0 to 10."""
    evidence: Evidence = field(default_factory=dict)
    """Each evaluator's own score by its name, and what else it knows."""


class Evaluator(Protocol):
    """Scores a path."""

    async def score(self, context: Context, path: Sequence[Proposal], *, node: str) -> Evaluation:
        """Score the last step of `path` in the light of those before it. `path` is not empty."""
        ...


class PlanRunner(Protocol):
    """Turns a plan into code and runs the problem's tests: the way to the sandbox, which this room does not know."""

    async def __call__(self, problem: Problem, steps: Sequence[str]) -> float | None:
        """Share of the tests that pass, 0 to 1; None where the problem has no tests or no code came of the plan."""
        ...


@dataclass(frozen=True, slots=True)
class LadderEvaluator:
    """The model says a score by the paper's ladder, in constrained decoding (SRA-MCTS, methods A.3)."""

    engine: Engine
    reading: Literal["choice", "expectation"] = "expectation"
    temperature: float = 0.0
    """Of the spoken number, with `reading="choice"`."""
    words: Words = PROGRAMMING

    async def score(self, context: Context, path: Sequence[Proposal], *, node: str) -> Evaluation:
        """Ask; an answer that is no score is asked for again with a new seed, then the score is None and counted."""
        prompt = score_prompt(context.problem, [proposal.step for proposal in path], self.words)
        for attempt in range(MAX_ATTEMPTS):
            seed = context.seeds.of(node, "score", attempt)
            # The first question of an expectation needs no sampling; asking the same again would not help without.
            temperature = self.temperature if self.reading == "choice" else float(attempt > 0)
            sampling = Sampling(CHOICE_TOKENS, temperature, seed=seed, choices=SCORES)
            (completion,) = await ask(self.engine, context, prompt, sampling, "score")
            score = self._read(completion)
            if score is not None:
                return Evaluation(score, {"ladder": score, "band": ladder_band(score)})
        context.ledger.add("failed.score")
        return Evaluation(None, {"ladder": None})

    def _read(self, completion: Completion) -> float | None:
        if self.reading == "expectation" and completion.choice_logprobs is not None:
            expected = expected_score(completion.choice_logprobs)
            if expected is not None:
                return expected
        return parse_score(completion.text)


@dataclass(frozen=True, slots=True)
class LikelihoodEvaluator:
    """10 times the geometric mean of the token probabilities of the last step under the policy. Asks nothing.

    The evidence also has the same over the tokens of all steps of the path (`path_likelihood`), which weighs every
    token, not every step, equally.
    """

    async def score(self, context: Context, path: Sequence[Proposal], *, node: str) -> Evaluation:
        """None and counted where the engine told no log-probabilities."""
        last = path[-1].mean_logprob
        if last is None:
            context.ledger.add("failed.likelihood")
            return Evaluation(None, {"likelihood": None})
        known = [proposal.logprob for proposal in path if proposal.logprob is not None]
        whole = sum(known) / sum(proposal.tokens for proposal in path) if len(known) == len(path) else None
        score = likelihood_score(last)
        return Evaluation(
            score, {"likelihood": score, "path_likelihood": None if whole is None else likelihood_score(whole)}
        )


def likelihood_score(mean_logprob: float) -> float:
    """A log-probability per token on the scale of scores: 10 * exp(it), 0 to 10."""
    return 10 * math.exp(min(mean_logprob, 0.0))


@dataclass(frozen=True, slots=True)
class ExecutionEvaluator:
    """10 times the share of the problem's tests that pass with code made from the path."""

    run_plan: PlanRunner

    async def score(self, context: Context, path: Sequence[Proposal], *, node: str) -> Evaluation:
        """None and counted where there is nothing to run. Raises ValueError for a share outside 0 to 1."""
        context.ledger.add("requests.execution")
        share = await self.run_plan(context.problem, [proposal.step for proposal in path])
        if share is None:
            context.ledger.add("failed.execution")
            return Evaluation(None, {"execution": None})
        if not 0 <= share <= 1:
            raise ValueError(f"a plan's share of passed tests must lie between 0 and 1, but the runner said {share}")
        return Evaluation(10 * share, {"execution": 10 * share})


@dataclass(frozen=True, slots=True)
class BlendEvaluator:
    """The weighted mean of several evaluators' scores. One without a score is left out of the mean."""

    parts: tuple[tuple[Evaluator, float], ...]
    """Evaluators and their weights, all above 0; only their ratio matters."""

    async def score(self, context: Context, path: Sequence[Proposal], *, node: str) -> Evaluation:
        """Ask all at once. None only where none of them has a score."""
        evaluations = await together(part.score(context, path, node=node) for part, _ in self.parts)
        evidence: Evidence = {}
        for evaluation in evaluations:
            evidence.update(evaluation.evidence)
        scored = [
            (evaluation.score, weight)
            for evaluation, (_, weight) in zip(evaluations, self.parts, strict=True)
            if evaluation.score is not None
        ]
        if not scored:
            return Evaluation(None, evidence)
        mean = sum(score * weight for score, weight in scored) / sum(weight for _, weight in scored)
        return Evaluation(mean, evidence)
