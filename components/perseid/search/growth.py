"""What every tree search does to its tree: reflect, expand, evaluate, simulate, and conclude."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from perseid.data.records import Problem
from perseid.engines.protocol import EngineError, PromptTooLongError
from perseid.engines.together import together
from perseid.search.calls import Context
from perseid.search.evaluators import Evaluation, Evaluator
from perseid.search.outcome import MAX_PATHS, Failure, Path, SearchResult, StopReason
from perseid.search.parsing import Reflection, normal_form
from perseid.search.policy import Policy, Proposal
from perseid.search.profiles import SearchConfig
from perseid.search.seeds import Seeds
from perseid.search.tree import Node, Tree, blend


@dataclass(frozen=True, slots=True)
class Draft:
    """A proposal and its score, not yet a node."""

    proposal: Proposal
    evaluation: Evaluation

    @property
    def rank(self) -> float:
        """The score, minus infinity without one."""
        return -math.inf if self.evaluation.score is None else self.evaluation.score


class Growth:
    """One problem's tree and the parts that make it grow."""

    def __init__(self, problem: Problem, seed: int, config: SearchConfig, policy: Policy, evaluator: Evaluator) -> None:
        self.config = config
        self.policy = policy
        self.evaluator = evaluator
        self.context = Context(problem, Seeds(seed, problem.id))
        self.tree = Tree(problem.statement)

    def passes_gate(self, node: Node) -> bool:
        """Whether the node's path counts as complete: its value is high enough and it has enough steps."""
        enough = node.depth >= max(1, self.config.min_steps)
        return enough and node.value is not None and node.value >= self.config.end_gate

    async def reflect(self, node: Node) -> None:
        """Reflect on a node's path once; the reflection may end it, but never the root."""
        if node.reflection is None:
            self._note(node, await self._reflection(self.tree.path(node), self.tree.key(node)))

    async def _reflection(self, steps: Sequence[str], key: str) -> Reflection:
        may_end = len(steps) >= max(1, self.config.min_steps)
        return await self.policy.reflect(self.context, steps, node=key, may_end=may_end)

    @staticmethod
    def _note(node: Node, reflection: Reflection) -> None:
        node.reflection = reflection.text
        if reflection.ends and node.terminal is None:
            node.terminal = "reflection"

    async def draft(self, node: Node) -> list[Draft]:
        """Propose a node's children, guided by its reflection, and score them together. The tree does not change."""
        path, key = self._proposals(node), self.tree.key(node)
        steps = [proposal.step for proposal in path]
        proposals = await self.policy.propose(
            self.context, steps, self.config.branch, reflection=node.reflection, node=key, kind="propose"
        )
        return await self._evaluate(path, proposals, key, ".")

    async def _evaluate(
        self, path: Sequence[Proposal], proposals: Sequence[Proposal], key: str, separator: Literal[".", "~"]
    ) -> list[Draft]:
        evaluations = await together(
            self.evaluator.score(self.context, (*path, proposal), node=f"{key}{separator}{place}")
            for place, proposal in enumerate(proposals)
        )
        return [Draft(*pair) for pair in zip(proposals, evaluations, strict=True)]

    def attach(self, node: Node, drafts: Sequence[Draft], *, simulated: bool = False) -> list[Node]:
        """Make drafts a node's children. Without drafts the node is a dead end."""
        node.expanded = bool(drafts)
        if not drafts:
            node.terminal = "dead-end"
        return [
            self.tree.add(
                node,
                draft.proposal.step,
                score=draft.evaluation.score,
                value=draft.evaluation.score,
                logprob=draft.proposal.logprob,
                tokens=draft.proposal.tokens,
                evidence=draft.evaluation.evidence,
                terminal="depth" if node.depth + 1 >= self.config.max_depth else None,
                simulated=simulated,
            )
            for draft in drafts
        ]

    async def simulate(self, node: Node) -> None:
        """Roll out from a new child and blend the best score on the way into its value (methods A.2, simulation).

        The proposals of a roll-out see no reflection, as in the reference; a reflection can end it.
        """
        rollout = self.config.rollout
        reflects = self.config.reflection != "none"
        if reflects:
            await self.reflect(node)
        if node.terminal is not None:
            return
        path, key, parent = self._proposals(node), self.tree.key(node), node
        scores: list[float] = []
        for step in range(1, rollout.steps + 1):
            if len(path) >= self.config.max_depth:
                break
            proposals = await self.policy.propose(
                self.context, _steps(path), rollout.branches, reflection=None, node=key, kind="simulate"
            )
            if rollout.policy == "random" and proposals:
                proposals = [self.context.seeds.draw(proposals, key, "simulate-draw")]
            drafts = await self._evaluate(path, proposals, key, "~")
            if not drafts:
                break
            scores += [draft.evaluation.score for draft in drafts if draft.evaluation.score is not None]
            place = max(range(len(drafts)), key=lambda place: (drafts[place].rank, -place))
            path, key = (*path, drafts[place].proposal), f"{key}~{place}"
            parent = self.attach(parent, drafts, simulated=True)[place] if rollout.attach else parent
            if reflects and (step < rollout.steps or rollout.reflect_at_end):
                reflection = await self._reflection(_steps(path), key)
                if rollout.attach:
                    self._note(parent, reflection)
                if reflection.ends:
                    break
        node.value = blend(node.value, max(scores, default=None), rollout.alpha)

    def _proposals(self, node: Node) -> tuple[Proposal, ...]:
        return tuple(Proposal(each.step, each.logprob, each.tokens) for each in self.tree.lineage(node))

    async def conclude(self, stop: StopReason, answer: Node | None = None) -> SearchResult:
        """List the paths, best first, but `answer` before all if it is given; ask whether the first is complete."""
        best = self.tree.ranked(self.config.min_steps, self.config.answer_by)
        nodes = best if answer is None else [answer, *(node for node in best if node.id != answer.id)]
        return await self.conclude_with(stop, nodes)

    async def conclude_with(self, stop: StopReason, nodes: Sequence[Node]) -> SearchResult:
        """List the paths to these nodes, in their order; ask whether the first is complete."""
        paths: dict[tuple[str, ...], Path] = {}
        for node in nodes:
            steps = self.tree.path(node)
            paths.setdefault(tuple(map(normal_form, steps)), Path(steps, node.worth(self.config.answer_by), node.id))
        solved = None
        if nodes and self.config.completeness_check and nodes[0].depth >= self.config.check_min_steps:
            solved = await self.policy.check(self.context, self.tree.path(nodes[0]), node=self.tree.key(nodes[0]))
        return self._result(tuple(paths.values())[:MAX_PATHS], stop, solved)

    def fail(self, error: EngineError) -> SearchResult:
        """The result of a problem whose model call failed for good; the tree as far as it grew."""
        reason = "prompt-too-long" if isinstance(error, PromptTooLongError) else "engine-error"
        return self._result((), "failed", None, Failure(reason, f"{type(error).__name__}: {error}", error))

    def _result(
        self, paths: tuple[Path, ...], stop: StopReason, solved: bool | None, failure: Failure | None = None
    ) -> SearchResult:
        context = self.context
        return SearchResult(
            problem_id=context.problem.id,
            tree=self.tree.to_dict(),
            paths=paths,
            stop_reason=stop,
            solved=solved,
            counts=context.ledger.to_dict(),
            usage=context.ledger.usage,
            failure=failure,
        )


def _steps(path: Sequence[Proposal]) -> list[str]:
    return [proposal.step for proposal in path]
