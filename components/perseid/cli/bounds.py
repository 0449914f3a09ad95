"""How many tokens a search and the answers by its plans can take at most, from what each of their requests may take."""

from __future__ import annotations

from perseid.api.spec import EvolutionRunSpec
from perseid.search.policy import CHOICE_TOKENS, MAX_ATTEMPTS
from perseid.search.profiles import SearchConfig, resolve

CHOICE = MAX_ATTEMPTS * CHOICE_TOKENS
"""Of an answer in constrained decoding, asked for again where it is none."""


def most_tokens_of_problem(spec: EvolutionRunSpec) -> int:
    """Tokens that models make for one problem with tests, were every answer as long as it may be, every proposal asked
    for as often as it may be, and no search to end early."""
    config = resolve(spec.synthesis.search)
    answers = spec.conversion.samples_per_plan * spec.conversion.sampling.max_tokens
    steps = _steps(config)
    checks = config.algorithm != "direct" and (config.completeness_check or spec.synthesis.drop_unsolved)
    plans = 1 if config.algorithm == "direct" else spec.synthesis.plans_per_problem
    asked = plans * config.max_depth if config.algorithm == "cot" else steps  # a whole chain is one answer
    # Code that the search has run already is not written again.
    written = 0 if steps and config.evaluator.asks("execution") else plans
    return (
        MAX_ATTEMPTS * asked * config.max_step_tokens
        + _reflections(config) * config.max_reflection_tokens
        + steps * (CHOICE * config.evaluator.asks("ladder") + answers * config.evaluator.asks("execution"))
        + CHOICE * checks
        + written * answers
        + plans * spec.conversion.samples_per_plan * CHOICE * (spec.conversion.gate.type == "ladder")
    )


def _rolls(config: SearchConfig) -> bool:
    return config.algorithm == "mcts" and config.rollout.policy != "none"


def _levels(config: SearchConfig) -> int:
    """Paths that Tree of Thoughts goes on from: the root, then those that it kept at each level but the last."""
    return 1 + (config.max_depth - 1) * config.keep


def _steps(config: SearchConfig) -> int:
    """Steps that are proposed one by one and given to the evaluator; a chain of thought's are not."""
    if config.algorithm == "mcts":
        rolled = config.rollout.steps * config.rollout.branches if _rolls(config) else 0
        return config.rounds * (config.branch + rolled)
    return _levels(config) * config.branch if config.algorithm == "tot" else 0


def _reflections(config: SearchConfig) -> int:
    if config.reflection == "none" or config.algorithm not in ("mcts", "tot"):
        return 0
    if config.algorithm == "tot":
        return _levels(config)
    grown = config.branch if config.reflection == "every-node" else 1
    # A roll-out reflects on the child that it begins with, and after each of its steps.
    return config.rounds * (grown + (1 + config.rollout.steps if _rolls(config) else 0))
