"""Scores of whole answers, for the gate of problems that have no tests: the search's ladder, asked once more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from perseid.api.synthesis import GateSpec
from perseid.data.records import Candidate, Problem
from perseid.engines.protocol import EngineError
from perseid.search.calls import Context
from perseid.search.evaluators import Evaluator
from perseid.search.policy import Proposal
from perseid.search.seeds import Seeds
from perseid.stages.gate import gate_of


@dataclass(frozen=True, slots=True)
class AnswerScorer:
    """Asks an evaluator about answers: the plan's steps, and the code as the last of them (methods S7, S14)."""

    evaluator: Evaluator
    gate: GateSpec
    seed: int

    async def scored(self, problem: Problem, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The answers, with scores where the gate goes by them. A failed call is an answer without a score."""
        if gate_of(problem, self.gate) != "ladder":
            return list(candidates)
        return list(await asyncio.gather(*(self._scored(problem, candidate) for candidate in candidates)))

    async def _scored(self, problem: Problem, candidate: Candidate) -> Candidate:
        if candidate.code is None:
            return candidate
        path = [Proposal(step, logprob=None, tokens=0) for step in (*candidate.plan, candidate.code.strip())]
        context = Context(problem, Seeds(self.seed, problem.id))
        try:
            evaluation = await self.evaluator.score(context, path, node=candidate.id)
        except EngineError:
            return candidate
        return candidate.model_copy(update={"score": evaluation.score})
