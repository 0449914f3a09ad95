"""How much a search can ask for at most, before it has begun."""

from __future__ import annotations

from perseid.search.profiles import SearchConfig


def most_steps(config: SearchConfig) -> tuple[int, int]:
    """Steps of one search at most, and those of its roll-outs; replacements of duplicates are not counted."""
    grown = {
        "mcts": config.rounds * config.branch,
        "tot": config.max_depth * config.keep * config.branch,
        "cot": config.max_depth,
        "direct": 0,
    }[config.algorithm]
    rolls = config.algorithm == "mcts" and config.rollout.policy != "none"
    return grown, config.rounds * config.rollout.branches * config.rollout.steps if rolls else 0
