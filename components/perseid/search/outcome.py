"""What a search gives: its tree, the best paths, why it stopped, and what it asked of the models."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from perseid.data.records import Problem
from perseid.engines.protocol import EngineError, Usage

StopReason = Literal["gate", "rounds", "depth", "time", "exhausted", "complete", "failed"]
"""`gate`: a path's score reached the end gate. `rounds`, `depth`, `time`: the limit. `exhausted`: no node is left to
expand. `complete`: the one call of a chain of thought, or no plan was wanted. `failed`: see `failure`."""

MAX_PATHS = 256
"""Paths that a result lists, at most."""


@dataclass(frozen=True, slots=True)
class Path:
    """The steps from the root to a node."""

    steps: tuple[str, ...]
    value: float | None
    """What the paths are ranked by (`SearchConfig.answer_by`), 0 to 10; None where no evaluator had an answer."""
    node: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a problem has no result."""

    reason: str
    """One of a few words with hyphens, to count by: `prompt-too-long`, `engine-error`, `internal-error`."""
    detail: str
    error: EngineError | None = field(default=None, compare=False, repr=False)
    """The failed call's own error, for who must tell one kind from another; None where no call failed."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The end of one problem's search. Everything but `usage` is the same whenever the search is repeated."""

    problem_id: str
    tree: dict[str, Any]
    """`Tree.to_dict()`. Every node carries its evaluators' evidence."""
    paths: tuple[Path, ...]
    """Distinct paths, the best first. Where the gate stopped the search, the path that reached it comes first."""
    stop_reason: StopReason
    solved: bool | None = None
    """The model's own check whether the best path is correct and complete; None where it was not asked."""
    counts: dict[str, int] = field(default_factory=dict)
    """Requests and completions by kind, proposals rejected by reason, shortfalls, failed scores."""
    usage: Usage = field(default_factory=Usage)
    """Tokens. Depends on the engine's cache, so it is no part of a comparison of two runs."""
    failure: Failure | None = None


class Search(Protocol):
    """Looks for plans for one problem. Safe to run for many problems at once."""

    async def search(self, problem: Problem, seed: int) -> SearchResult:
        """Grow the problem's tree. `seed` is the run's. A failed model call gives a failed result, never raises."""
        ...


@dataclass(slots=True)
class Ledger:
    """Counts of one search."""

    counts: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)

    def add(self, name: str, amount: int = 1) -> None:
        """Count something. Zero is not listed."""
        if amount:
            self.counts[name] += amount

    def to_dict(self) -> dict[str, int]:
        """The counts in alphabetical order."""
        return dict(sorted(self.counts.items()))
