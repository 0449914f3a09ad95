"""No plan at all, the baseline: answers are sampled for the problem alone, and the gate rejects the wrong ones.

In the literature: rejection sampling, or best of n by a verifier.
"""

from __future__ import annotations

from perseid.data.records import Problem
from perseid.search.outcome import Path, SearchResult
from perseid.search.tree import Tree


class DirectSampling:
    """The empty plan for every problem: asks for nothing, so that all tokens go into the answers."""

    async def search(self, problem: Problem, seed: int) -> SearchResult:
        """The tree is its root, and the one path has no step."""
        return SearchResult(
            problem_id=problem.id,
            tree=Tree(problem.statement).to_dict(),
            paths=(Path(steps=(), value=None, node=0),),
            stop_reason="complete",
        )
