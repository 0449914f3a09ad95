"""Tree of Thoughts, the baseline: breadth first, with a beam of the best paths at each level (methods S22)."""

from __future__ import annotations

from dataclasses import dataclass

from perseid.data.records import Problem
from perseid.engines.protocol import EngineError
from perseid.engines.together import together
from perseid.search.evaluators import Evaluator
from perseid.search.growth import Growth
from perseid.search.outcome import SearchResult
from perseid.search.policy import Policy
from perseid.search.profiles import SearchConfig
from perseid.search.tree import Node


@dataclass(frozen=True, slots=True)
class TreeOfThoughts:
    """At each level every kept path gets `branch` children; the best `keep` of all of them go on, `max_depth` deep."""

    config: SearchConfig
    policy: Policy
    evaluator: Evaluator

    async def search(self, problem: Problem, seed: int) -> SearchResult:
        """Grow level by level until a path passes the gate, the depth is reached or no path can go on."""
        growth = Growth(problem, seed, self.config, self.policy, self.evaluator)
        try:
            return await self._grow(growth)
        except EngineError as error:
            return growth.fail(error)

    async def _grow(self, growth: Growth) -> SearchResult:
        beam = [growth.tree.root]
        for _ in range(self.config.max_depth):
            if self.config.reflection != "none":
                await together(growth.reflect(node) for node in beam)
            open_nodes = [node for node in beam if node.terminal is None]
            drafts = await together(growth.draft(node) for node in open_nodes)
            # Attached in the beam's order, whichever came first, so that node numbers do not depend on timing.
            level = [
                child
                for node, drafted in zip(open_nodes, drafts, strict=True)
                for child in growth.attach(node, drafted)
            ]
            if not level:
                return await growth.conclude("exhausted")
            beam = _best(level, self.config.keep)
            if growth.passes_gate(beam[0]):
                return await growth.conclude("gate", beam[0])
        return await growth.conclude("depth")


def _best(nodes: list[Node], keep: int) -> list[Node]:
    return sorted(nodes, key=lambda node: (node.value is None, -(node.value or 0.0), node.id))[:keep]
