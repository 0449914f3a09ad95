"""Seeds: every random choice of a search has its own, derived from what it is for and not from when it is made.

So a tree is the same whatever else is in flight, and a restart that replays a journal asks exactly the same questions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

SEED_BITS = 31
"""Every engine takes a seed of 31 bits, numpy's and the OpenAI API's included."""


def derive_seed(run_seed: int, problem_id: str, node: str, kind: str, index: int = 0) -> int:
    """Hash what a call is for into a seed, 0 <= seed < 2**31. Stable over processes, platforms and versions."""
    identity = json.dumps([run_seed, problem_id, node, kind, index], ensure_ascii=True, separators=(",", ":"))
    digest = hashlib.sha256(identity.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - SEED_BITS)


@dataclass(frozen=True, slots=True)
class Seeds:
    """The seeds of one problem's search."""

    run_seed: int
    problem_id: str

    def of(self, node: str, kind: str, index: int = 0) -> int:
        """Seed of the `index`-th call of a kind at a node (its key, see `Tree.key`)."""
        return derive_seed(self.run_seed, self.problem_id, node, kind, index)

    def draw(self, options: Sequence[T], node: str, kind: str, index: int = 0) -> T:
        """Draw one of `options`, which must not be empty; the same one whenever it is asked again."""
        return options[self.of(node, kind, index) % len(options)]
