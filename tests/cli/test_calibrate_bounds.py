"""The tokens that `perseid calibrate` announces are never exceeded, whatever a model answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perseid.api.spec import EvolutionRunSpec
from perseid.cli.bounds import CHOICE, most_tokens_of_problem
from perseid.data.records import Problem
from perseid.engines.protocol import Completion, Generation, Request, Usage
from perseid.search.build import build_search
from perseid.search.plans import select_plans
from perseid.search.policy import MAX_ATTEMPTS
from perseid.search.profiles import resolve

ALGORITHMS = ("mcts", "tot", "cot", "direct")
SAMPLES, CODE_TOKENS, PLANS = 2, 50, 3
PROBLEM = Problem.model_validate({"id": "p", "statement": "Add.", "entry_point": "f", "tests": ["assert f(1) == 2"]})


class Spendthrift:
    """Uses every token that a request allows; answers nonsense or sense, as it is drawn."""

    model_id = "spendthrift"

    def __init__(self, draw: random.Random, sense: float) -> None:
        self.draw, self.sense, self.spent = draw, sense, 0

    async def generate(self, request: Request) -> Generation:
        sampling = request.sampling
        completions = tuple(
            Completion(self._text(request.kind), sampling.max_tokens, "stop", -1.0) for _ in range(sampling.n)
        )
        self.spent += sampling.n * sampling.max_tokens
        return Generation(completions, Usage(1, 1, 0, sampling.n * sampling.max_tokens))

    def _text(self, kind: str) -> str:
        if self.draw.random() > self.sense:
            return ""
        step = f"Next step: add the number {self.draw.randrange(1000)} to x."
        known = {"score": "5", "check": "solved", "chain": f"Step 1: read x.\nStep 2: {step}"}
        if kind == "reflect":
            return self.draw.choice(("Analysis: think of the empty list.", "<end>"))
        return known.get(kind, step)

    async def run(self, problem: Problem, steps: Sequence[str]) -> float | None:
        """Code by a plan, and its tests."""
        self.spent += SAMPLES * CODE_TOKENS
        return self.draw.choice((None, 0.0, 0.5, 1.0))

    async def close(self) -> None:
        return None


def spec_of(search: dict[str, Any], gate: str = "tests", *, drop_unsolved: bool = False) -> EvolutionRunSpec:
    return EvolutionRunSpec.model_validate(
        {
            "synthesis": {"search": search, "plansPerProblem": PLANS, "dropUnsolved": drop_unsolved},
            "conversion": {
                "samplesPerPlan": SAMPLES,
                "sampling": {"maxTokens": CODE_TOKENS},
                "gate": {"type": gate},
            },
        }
    )


def spent(spec: EvolutionRunSpec, draw: random.Random, sense: float) -> int:
    """Of one search, and of the answers by its plans as conversion would ask for them."""
    model = Spendthrift(draw, sense)
    config = resolve(spec.synthesis.search)
    search = build_search(config, model, execute=model.run, chains=PLANS)
    result = asyncio.run(search.search(PROBLEM, 0))
    plans, _ = select_plans(result, count=PLANS, min_words=config.min_plan_words)
    written = 0 if config.evaluator.asks("execution") and config.algorithm in ("mcts", "tot") else len(plans)
    scored = len(plans) * SAMPLES * CHOICE if spec.conversion.gate.type == "ladder" else 0
    return model.spent + written * SAMPLES * CODE_TOKENS + scored


searches = st.fixed_dictionaries(
    {
        "algorithm": st.sampled_from(ALGORITHMS),
        "profile": st.sampled_from(("recommended", "paper", "reference")),
        "rounds": st.integers(1, 3),
        "branch": st.integers(1, 3),
        "keep": st.integers(1, 3),
        "maxDepth": st.integers(1, 3),
        "siblings": st.sampled_from(("sampling", "history")),
        "reflection": st.sampled_from(("none", "before-expansion", "every-node")),
        "endGate": st.sampled_from((5.0, 11.0)),
        "completenessCheck": st.booleans(),
        "minPlanWords": st.just(0),
        "rollout": st.fixed_dictionaries(
            {
                "policy": st.sampled_from(("none", "greedy", "random")),
                "branches": st.integers(1, 2),
                "steps": st.integers(1, 2),
                "attach": st.booleans(),
            }
        ),
    },
    optional={
        "evaluator": st.one_of(
            st.fixed_dictionaries({"type": st.sampled_from(("ladder", "likelihood", "execution", "blend"))}),
            st.just({"type": "blend", "weights": {"ladder": 1.0, "likelihood": 1.0, "execution": 0.0}}),
        )
    },
)


@settings(deadline=None, max_examples=60)
@given(
    searches,
    st.sampled_from(("tests", "ladder")),
    st.booleans(),
    st.randoms(use_true_random=False),
    st.sampled_from((0.0, 0.5, 1.0)),
)
def test_no_search_takes_more_tokens_than_the_bound(
    search: dict[str, Any], gate: str, drop_unsolved: bool, draw: random.Random, sense: float
) -> None:
    spec = spec_of(search, gate, drop_unsolved=drop_unsolved)
    assert spent(spec, draw, sense) <= most_tokens_of_problem(spec)


PLAIN = {"rounds": 2, "branch": 3, "maxStepTokens": 10, "maxReflectionTokens": 20, "evaluator": {"type": "likelihood"}}
ANSWERS = SAMPLES * CODE_TOKENS


@pytest.mark.parametrize(
    ("search", "most"),
    [
        ({"algorithm": "direct"}, ANSWERS),
        ({"algorithm": "cot", "maxDepth": 3, "maxStepTokens": 10}, PLANS * (MAX_ATTEMPTS * 3 * 10 + ANSWERS)),
        (PLAIN, MAX_ATTEMPTS * 6 * 10 + PLANS * ANSWERS),
        ({**PLAIN, "evaluator": {"type": "ladder"}}, MAX_ATTEMPTS * 6 * 10 + 6 * CHOICE + PLANS * ANSWERS),
        ({**PLAIN, "evaluator": {"type": "execution"}}, MAX_ATTEMPTS * 6 * 10 + 6 * ANSWERS),
        ({**PLAIN, "completenessCheck": True}, MAX_ATTEMPTS * 6 * 10 + CHOICE + PLANS * ANSWERS),
        ({**PLAIN, "reflection": "every-node"}, MAX_ATTEMPTS * 6 * 10 + 6 * 20 + PLANS * ANSWERS),
        (
            {**PLAIN, "reflection": "before-expansion", "rollout": {"policy": "greedy", "branches": 2, "steps": 2}},
            MAX_ATTEMPTS * (6 + 2 * 4) * 10 + 2 * (1 + 1 + 2) * 20 + PLANS * ANSWERS,
        ),
        (
            {**PLAIN, "algorithm": "tot", "keep": 2, "maxDepth": 3, "reflection": "every-node"},
            MAX_ATTEMPTS * (1 + 2 * 2) * 3 * 10 + (1 + 2 * 2) * 20 + PLANS * ANSWERS,
        ),
    ],
)
def test_the_bound_is_the_sum_of_what_each_request_may_take(search: dict[str, Any], most: int) -> None:
    assert most_tokens_of_problem(spec_of(search)) == most
