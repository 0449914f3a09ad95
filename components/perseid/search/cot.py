"""Chains of thought, the baseline: each plan whole, from a single answer (methods S22)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perseid.data.records import Problem
from perseid.engines.protocol import Completion, Engine, EngineError, Sampling
from perseid.search.calls import ask
from perseid.search.evaluators import Evaluator, likelihood_score
from perseid.search.growth import Growth
from perseid.search.outcome import SearchResult
from perseid.search.parsing import split_chain
from perseid.search.policy import MAX_ATTEMPTS, Policy, Proposal
from perseid.search.profiles import SearchConfig
from perseid.search.prompts import PROGRAMMING, Words, chain_prompt
from perseid.search.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class ChainOfThought:
    """Plans in one call, each split into its steps: a tree that branches at its root alone.

    A plan's value is the likelihood of its answer, which costs nothing; no other evaluator is asked. It stands at the
    last step, because the likelihood of one answer cannot be told apart by steps. The paths are the whole chains: their
    beginnings are no plans. An answer that was cut off loses its unfinished last step, and is counted.
    """

    config: SearchConfig
    engine: Engine
    policy: Policy
    evaluator: Evaluator
    words: Words = PROGRAMMING
    chains: int = 1
    """Plans of a problem."""

    async def search(self, problem: Problem, seed: int) -> SearchResult:
        """Ask for the plans; answers without steps are asked for again with a new seed."""
        growth = Growth(problem, seed, self.config, self.policy, self.evaluator)
        try:
            return await self._ask(growth)
        except EngineError as error:
            return growth.fail(error)

    async def _ask(self, growth: Growth) -> SearchResult:
        config, context = self.config, growth.context
        ends: list[Node] = []
        for attempt in range(MAX_ATTEMPTS):
            sampling = Sampling(
                config.max_step_tokens * config.max_depth,
                config.temperature,
                config.top_p,
                n=self.chains - len(ends),
                seed=context.seeds.of("r", "chain", attempt),
            )
            for answer in await ask(self.engine, context, chain_prompt(context.problem, self.words), sampling, "chain"):
                truncated = answer.finish_reason == "length"
                context.ledger.add("truncated.chain", int(truncated))
                if steps := split_chain(answer.text, truncated=truncated):
                    ends.append(_grow(growth.tree, steps, answer))
                else:
                    context.ledger.add("rejected.empty")
            if len(ends) == self.chains:
                break
        else:
            context.ledger.add("shortfall.chain", self.chains - len(ends))
        ends.sort(key=lambda node: (node.value is None, -(node.value or 0.0), node.id))
        return await growth.conclude_with("complete" if ends else "exhausted", ends)


def _grow(tree: Tree, steps: Sequence[str], answer: Completion) -> Node:
    """A branch of its own, whatever another chain begins with: each value is of one whole answer. Returns its end."""
    node = tree.root
    for step in steps:
        node.expanded = True
        node = tree.add(node, step)
    whole = Proposal("", answer.logprob, answer.tokens).mean_logprob
    node.score = node.value = value = None if whole is None else likelihood_score(whole)
    node.evidence = {"likelihood": value}
    node.logprob, node.tokens = answer.logprob, answer.tokens
    return node
