"""One chain of thought, the baseline: the whole plan in a single call (methods S22)."""

from __future__ import annotations

from dataclasses import dataclass

from perseid.data.records import Problem
from perseid.engines.protocol import Engine, EngineError, Sampling
from perseid.search.calls import ask
from perseid.search.evaluators import Evaluator, likelihood_score
from perseid.search.growth import Growth
from perseid.search.outcome import SearchResult
from perseid.search.parsing import split_chain
from perseid.search.policy import MAX_ATTEMPTS, Policy, Proposal
from perseid.search.profiles import SearchConfig
from perseid.search.prompts import PROGRAMMING, Words, chain_prompt


@dataclass(frozen=True, slots=True)
class ChainOfThought:
    """A plan in one call, split into its steps: a tree with a single branch.

    Its value is the likelihood of the call's answer, which costs nothing; no other evaluator is asked. It stands at the
    last step, because the likelihood of one answer cannot be told apart by steps. The one path is the whole chain: its
    beginnings are no plans. An answer that was cut off loses its unfinished last step, and is counted.
    """

    config: SearchConfig
    engine: Engine
    policy: Policy
    evaluator: Evaluator
    words: Words = PROGRAMMING

    async def search(self, problem: Problem, seed: int) -> SearchResult:
        """Ask for the plan; an answer without steps is asked for again with a new seed."""
        growth = Growth(problem, seed, self.config, self.policy, self.evaluator)
        try:
            return await self._ask(growth)
        except EngineError as error:
            return growth.fail(error)

    async def _ask(self, growth: Growth) -> SearchResult:
        config, context = self.config, growth.context
        for attempt in range(MAX_ATTEMPTS):
            sampling = Sampling(
                config.max_step_tokens * config.max_depth,
                config.temperature,
                config.top_p,
                seed=context.seeds.of("r", "chain", attempt),
            )
            prompt = chain_prompt(context.problem, self.words)
            (answer,) = await ask(self.engine, context, prompt, sampling, "chain")
            truncated = answer.finish_reason == "length"
            context.ledger.add("truncated.chain", int(truncated))
            steps = split_chain(answer.text, truncated=truncated)
            if steps:
                whole = Proposal("", answer.logprob, answer.tokens).mean_logprob
                value = None if whole is None else likelihood_score(whole)
                node = growth.tree.root
                for step in steps:
                    node.expanded = True
                    node = growth.tree.add(node, step)
                node.score = node.value = value
                node.evidence = {"likelihood": value}
                node.logprob, node.tokens = answer.logprob, answer.tokens
                return await growth.conclude("complete", node, alone=True)
            context.ledger.add("rejected.empty")
        context.ledger.add("shortfall.chain")
        return await growth.conclude("exhausted")
