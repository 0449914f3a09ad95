"""The one place that puts a search together from its configuration."""

from __future__ import annotations

import time
from collections.abc import Callable

from perseid.engines.protocol import Engine
from perseid.search.cot import ChainOfThought
from perseid.search.direct import DirectSampling
from perseid.search.evaluators import (
    BlendEvaluator,
    Evaluator,
    ExecutionEvaluator,
    LadderEvaluator,
    LikelihoodEvaluator,
    PlanRunner,
)
from perseid.search.mcts import MonteCarloTreeSearch
from perseid.search.outcome import Search
from perseid.search.policy import ModelPolicy
from perseid.search.profiles import SearchConfig
from perseid.search.prompts import PROGRAMMING, Words
from perseid.search.tot import TreeOfThoughts


class SearchConfigError(ValueError):
    """A search that cannot be built as configured. The message says which field to change."""


def build_search(
    config: SearchConfig,
    policy_engine: Engine,
    evaluator_engine: Engine | None = None,
    execute: PlanRunner | None = None,
    clock: Callable[[], float] = time.monotonic,
    words: Words = PROGRAMMING,
    chains: int = 1,
) -> Search:
    """Build the search. `evaluator_engine` changes score calls only (methods S1); without it the policy's is asked.
    `words` are those of what is planned, `chains` the plans that chain of thought makes of a problem.

    Raises SearchConfigError where execution is to score and `execute` is missing.
    """
    if config.algorithm == "direct":
        return DirectSampling()
    policy = ModelPolicy(policy_engine, config, words)
    evaluator = build_evaluator(config, evaluator_engine or policy_engine, execute, words)
    if config.algorithm == "mcts":
        return MonteCarloTreeSearch(config, policy, evaluator, clock)
    if config.algorithm == "tot":
        return TreeOfThoughts(config, policy, evaluator)
    return ChainOfThought(config, policy_engine, policy, evaluator, words, chains)


def build_evaluator(
    config: SearchConfig, engine: Engine, execute: PlanRunner | None = None, words: Words = PROGRAMMING
) -> Evaluator:
    """Build what scores a step. Raises SearchConfigError where execution is to score and `execute` is missing."""
    wanted = config.evaluator
    temperature = config.temperature if wanted.ladder_reading == "choice" else 0.0
    ladder = LadderEvaluator(engine, wanted.ladder_reading, temperature, words)
    if wanted.type == "ladder":
        return ladder
    if wanted.type == "likelihood":
        return LikelihoodEvaluator()
    if wanted.type == "execution":
        return _execution(execute)
    parts: list[tuple[Evaluator, float]] = []
    if wanted.ladder_weight > 0:
        parts.append((ladder, wanted.ladder_weight))
    if wanted.likelihood_weight > 0:
        parts.append((LikelihoodEvaluator(), wanted.likelihood_weight))
    if wanted.execution_weight > 0:
        parts.append((_execution(execute), wanted.execution_weight))
    return BlendEvaluator(tuple(parts))


def _execution(execute: PlanRunner | None) -> ExecutionEvaluator:
    if execute is None:
        raise SearchConfigError(
            "the search's evaluator executes plans, but nothing here can: pass `execute`, or choose the evaluator type"
            " likelihood or ladder in synthesis.search.evaluator"
        )
    return ExecutionEvaluator(execute)
