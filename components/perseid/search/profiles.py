"""Profiles: `paper`, `reference` and `recommended` are three settings of one search.

`resolve` fills what a `SearchSpec` leaves out from its profile and gives a complete, frozen `SearchConfig`. Every
number that a profile chooses stands in this file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from perseid.api.search import BlendWeights, EvaluatorSpec, SearchSpec


@dataclass(frozen=True, slots=True)
class EvaluatorConfig:
    """What scores a step."""

    type: Literal["ladder", "likelihood", "execution", "blend"]
    ladder_weight: float
    likelihood_weight: float
    execution_weight: float
    """The weights of `type: blend`."""
    ladder_reading: Literal["choice", "expectation"]
    """`choice`: the number that the model says, sampled at the search's temperature. `expectation`: the mean over its
    probabilities of the eleven numbers where the engine tells them, else the number it says at temperature 0."""

    def asks(self, part: Literal["ladder", "likelihood", "execution"]) -> bool:
        """Whether it is this one, or a blend in which this one has a weight."""
        return self.type == part or (self.type == "blend" and getattr(self, f"{part}_weight") > 0)


@dataclass(frozen=True, slots=True)
class RolloutConfig:
    """Simulation from the best new child."""

    policy: Literal["none", "greedy", "random"]
    branches: int
    steps: int
    alpha: float
    attach: bool
    reflect_at_end: bool
    """Reflect on the last step too. Of no effect unless the steps are attached; the authors' code does it."""


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """A complete configuration. Fields as in `perseid.api.search.SearchSpec`, where they are described."""

    algorithm: Literal["mcts", "tot", "cot", "direct"]
    profile: Literal["recommended", "paper", "reference"]
    evaluator: EvaluatorConfig
    rounds: int
    branch: int
    keep: int
    """Tree of Thoughts: paths that survive a level."""
    exploration: float
    unvisited: Literal["bonus", "first"]
    unvisited_bonus: float
    siblings: Literal["sampling", "history"]
    reflection: Literal["none", "before-expansion", "every-node"]
    end_gate: float
    min_steps: int
    max_depth: int
    time_limit_seconds: float | None
    rollout: RolloutConfig
    backpropagation: Literal["visit-weighted", "all-children"]
    answer_by: Literal["value", "score"]
    """What ranks the paths at the end: the backpropagated value, or the evaluator's score of the last step."""
    completeness_check: bool
    check_min_steps: int
    """Plans with fewer steps are not checked for completeness."""
    min_plan_words: int
    temperature: float
    top_p: float
    max_step_tokens: int
    max_reflection_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for manifests and golden files."""
        return asdict(self)


_WEIGHTS = BlendWeights()

# What the authors' code does, without its crash and with its scorer's parser repaired: the score is one constrained
# number, because the regular expression over free text silently gave 5 (methods A.3).
REFERENCE = SearchConfig(
    algorithm="mcts",
    profile="reference",
    evaluator=EvaluatorConfig(
        type="ladder",
        ladder_weight=_WEIGHTS.ladder,
        likelihood_weight=_WEIGHTS.likelihood,
        execution_weight=_WEIGHTS.execution,
        ladder_reading="choice",
    ),
    rounds=2,
    branch=3,
    keep=1,
    exploration=0.5,
    unvisited="bonus",
    unvisited_bonus=8.0,
    # The code collects the elder siblings' texts but never passes them on, so its three prompts are identical.
    siblings="sampling",
    reflection="before-expansion",
    end_gate=8.8,
    min_steps=1,
    max_depth=64,  # The code has no limit of depth; this is the largest that a spec can ask for.
    time_limit_seconds=None,
    rollout=RolloutConfig(policy="greedy", branches=2, steps=1, alpha=0.5, attach=False, reflect_at_end=True),
    backpropagation="visit-weighted",
    answer_by="value",
    completeness_check=True,
    check_min_steps=2,
    min_plan_words=20,
    temperature=0.7,
    top_p=1.0,
    max_step_tokens=512,
    max_reflection_tokens=512,
)

# The paper's figure of the search (section 3, methods A.2): every new node is evaluated and reflected on, all new
# children feed their ancestors, there is no roll-out. Not stated, so the reference's: rounds (the figure shows two and
# goes on), branch (it draws two children, as a picture), exploration and first-visit bonus, the gate of a "very high"
# score, depth, sampling, lengths, the completeness check and the shortest plan.
PAPER = replace(
    REFERENCE,
    profile="paper",
    reflection="every-node",
    backpropagation="all-children",
    rollout=replace(REFERENCE.rollout, policy="none", reflect_at_end=False),
)

# What runs well from small models upwards. A small model's spoken score is no better than chance while its likelihood
# tells right from wrong and costs nothing; steps are short, and nothing is asked whose answer is not used.
RECOMMENDED = SearchConfig(
    algorithm="mcts",
    profile="recommended",
    evaluator=EvaluatorConfig(
        type="blend",
        ladder_weight=0.0,
        # Execution decides where there are tests; likelihood orders what it leaves equal, and stands in without tests.
        likelihood_weight=0.1,
        execution_weight=1.0,
        ladder_reading="expectation",
    ),
    rounds=3,
    branch=3,
    keep=2,
    exploration=0.5,
    unvisited="bonus",
    # Likelihoods of sampled steps lie within about 3 points of each other: a bonus of 8 would visit every child before
    # any grandchild, and three rounds would never go deeper than two steps.
    unvisited_bonus=1.0,
    siblings="sampling",
    reflection="none",
    # Reached only where all code made from a path passes all tests: the likelihood of sampled steps stays below it.
    end_gate=9.3,
    min_steps=1,
    max_depth=4,
    time_limit_seconds=None,
    rollout=RolloutConfig(policy="none", branches=2, steps=1, alpha=0.5, attach=True, reflect_at_end=False),
    backpropagation="visit-weighted",
    # A value is what may follow a step, not what the path is worth if it ends there: a step with one visited child has
    # that child's value, the tie goes to the deeper, and a needless second step would always be part of the answer.
    answer_by="score",
    completeness_check=False,
    check_min_steps=1,
    min_plan_words=3,
    temperature=0.8,
    top_p=1.0,  # Sorting the vocabulary for a nucleus halves a CPU's throughput.
    max_step_tokens=48,
    max_reflection_tokens=64,
)

BASELINE_DEPTH = 4
"""Depth of Tree of Thoughts, as in the authors' baseline (methods C11), where the profile has no limit of its own:
rounds bound Monte Carlo tree search, but nothing else bounds a beam. It also bounds a chain of thought's tokens."""

PROFILES = {config.profile: config for config in (RECOMMENDED, PAPER, REFERENCE)}

_NESTED = frozenset({"algorithm", "profile", "evaluator", "rollout"})


def resolve(spec: SearchSpec) -> SearchConfig:
    """Complete a spec from its profile. What the spec says wins."""
    profile = PROFILES[spec.profile]
    said = _said(spec, frozenset(field.name for field in fields(SearchConfig)) - _NESTED)
    if spec.algorithm != "mcts":
        said.setdefault("max_depth", min(profile.max_depth, BASELINE_DEPTH))
    if spec.algorithm == "direct":
        said["min_plan_words"] = 0  # the plan has none
    return replace(
        profile,
        algorithm=spec.algorithm,
        evaluator=_resolve_evaluator(spec.evaluator, profile.evaluator),
        rollout=replace(profile.rollout, **_said(spec.rollout, frozenset(type(spec.rollout).model_fields))),
        **said,
    )


def _said(spec: object, names: frozenset[str]) -> dict[str, Any]:
    """The fields among `names` that a spec has and gives a value."""
    return {name: value for name in names if (value := getattr(spec, name, None)) is not None}


def _resolve_evaluator(spec: EvaluatorSpec | None, profile: EvaluatorConfig) -> EvaluatorConfig:
    if spec is None:
        return profile
    return replace(
        profile,
        type=spec.type,
        ladder_weight=spec.weights.ladder,
        likelihood_weight=spec.weights.likelihood,
        execution_weight=spec.weights.execution,
    )
