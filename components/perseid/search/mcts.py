"""SRA-MCTS: rounds of select, reflect, expand, evaluate, simulate and backpropagate (arXiv 2411.11053, section 3).

One coroutine grows one tree. Within a tree only siblings are worked on at once, so the tree is the same however the
engine orders its answers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from perseid.data.records import Problem
from perseid.engines.protocol import EngineError
from perseid.engines.together import together
from perseid.search.evaluators import Evaluator
from perseid.search.growth import Growth
from perseid.search.outcome import SearchResult
from perseid.search.policy import Policy
from perseid.search.profiles import SearchConfig
from perseid.search.tree import Node, Ucb, backpropagate


@dataclass(frozen=True, slots=True)
class MonteCarloTreeSearch:
    """Monte Carlo tree search over reasoning steps."""

    config: SearchConfig
    policy: Policy
    evaluator: Evaluator
    clock: Callable[[], float] = time.monotonic
    """Seconds; read only where there is a time limit."""

    async def search(self, problem: Problem, seed: int) -> SearchResult:
        """Grow a tree until a selected path passes the gate, a limit is reached or nothing is left to expand.

        The time limit is looked at before each round: a round that has begun is finished.
        """
        growth = Growth(problem, seed, self.config, self.policy, self.evaluator)
        try:
            return await self._grow(growth)
        except EngineError as error:
            return growth.fail(error)

    async def _grow(self, growth: Growth) -> SearchResult:
        limit = self.config.time_limit_seconds
        deadline = math.inf if limit is None else self.clock() + limit
        rounds = 0
        while not growth.tree.root.closed:
            if rounds == self.config.rounds:
                return await growth.conclude("rounds")
            if limit is not None and self.clock() >= deadline:
                return await growth.conclude("time")
            node = self.select(growth)
            if growth.passes_gate(node):
                return await growth.conclude("gate", node)
            if node.terminal is None:
                rounds += 1
                await self._round(growth, node)
            else:
                _leave(growth, node)  # Costs no call, so it is no round; it happens once for each terminal node.
        return await growth.conclude("exhausted")

    def select(self, growth: Growth) -> Node:
        """Walk down by UCB1 from the root to a node that was not expanded yet. Ties are drawn by seed."""
        config, tree = self.config, growth.tree
        ucb = Ucb(config.exploration, config.unvisited, config.unvisited_bonus)
        node = tree.root
        while node.expanded:
            options = ucb.best(node, tree.children(node))
            node = growth.context.seeds.draw(options, tree.key(node), "select", node.visits)
        return node

    async def _round(self, growth: Growth, node: Node) -> None:
        config = self.config
        if config.reflection == "before-expansion":
            await growth.reflect(node)
            if node.terminal is not None:
                _leave(growth, node)
                return
        children = growth.attach(node, await growth.draft(node))
        if not children:
            _leave(growth, node)
            return
        if config.reflection == "every-node":
            await together(growth.reflect(child) for child in children)
        best = max(children, key=lambda child: (-math.inf if child.value is None else child.value, -child.id))
        if config.rollout.policy != "none":
            await growth.simulate(best)
        backpropagate(growth.tree, children if config.backpropagation == "all-children" else [best])


def _leave(growth: Growth, node: Node) -> None:
    """Visit a terminal node for the last time."""
    backpropagate(growth.tree, [node])
    growth.tree.close(node)
