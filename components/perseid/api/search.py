"""The part of the spec that configures the search for plans. A field that is left out comes from the profile."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from perseid.api.base import ApiModel, Fraction, Temperature

Score = Annotated[float, Field(ge=0.0, le=10.0)]


class BlendWeights(ApiModel):
    """Weights of a blend; only their ratio matters. An evaluator without a value for a node is left out of the mean."""

    ladder: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.0
    """Of the spoken score."""
    likelihood: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Of the step's likelihood."""
    execution: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Of the share of tests that pass."""

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if self.ladder + self.likelihood + self.execution <= 0:
            raise ValueError("at least one weight must be above 0")
        return self


class EvaluatorSpec(ApiModel):
    """What scores a step, from 0 to 10."""

    type: Literal["ladder", "likelihood", "execution", "blend"] = "likelihood"
    """`ladder`: the model says a score, by the paper's ladder, in constrained decoding. `likelihood`: 10 times the
    geometric mean of the step's token probabilities under the policy; no extra call. `execution`: share of the
    problem's tests that code made from the path passes, over `conversion.samplesPerPlan` answers, which conversion then
    uses; an extra call for each step. `blend`: a weighted mean."""
    weights: BlendWeights = BlendWeights()
    """Settings of `type: blend`."""


class RolloutSpec(ApiModel):
    """Simulation from the best new child (methods A.2)."""

    policy: Literal["none", "greedy", "random"] | None = None
    """Which of a step's proposals the roll-out follows."""
    branches: Annotated[int, Field(ge=1, le=32)] | None = None
    """Proposals at each step of the roll-out."""
    steps: Annotated[int, Field(ge=1, le=32)] | None = None
    """Steps forward."""
    alpha: Fraction | None = None
    """The child's value becomes (1 - alpha) * value + alpha * best score of the roll-out."""
    attach: bool | None = None
    """Keep the roll-out's steps as nodes of the tree."""


class SearchSpec(ApiModel):
    """How plans are looked for."""

    algorithm: Literal["mcts", "tot", "cot", "direct"] = "mcts"
    """Monte Carlo tree search, Tree of Thoughts, `plansPerProblem` chains of thought, or no plan: `direct` samples
    `conversion.samplesPerPlan` answers to the problem alone, and nothing else here matters."""
    profile: Literal["recommended", "paper", "reference"] = "recommended"
    """Where the fields come from that are left out: what we measured to be best, what the SRA-MCTS paper says, or what
    its authors' code does (without its crash)."""
    evaluator: EvaluatorSpec | None = None
    """What scores a step."""
    rounds: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Rounds of select, expand, evaluate and backpropagate."""
    branch: Annotated[int, Field(ge=1, le=32)] | None = None
    """Children of an expanded node."""
    keep: Annotated[int, Field(ge=1, le=32)] | None = None
    """Tree of Thoughts: paths that survive a level."""
    exploration: Annotated[float, Field(ge=0.0, le=1000.0)] | None = None
    """UCB1's constant c in V + c * sqrt(2 ln N / n)."""
    unvisited: Literal["bonus", "first"] | None = None
    """How a child without visits is treated: its value plus `unvisitedBonus`, or always before visited ones."""
    unvisited_bonus: Annotated[float, Field(ge=0.0, le=1000.0)] | None = None
    """What `unvisited: bonus` adds."""
    siblings: Literal["sampling", "history"] | None = None
    """How siblings come to differ: one request with n samples, or one after the other, each shown its elders."""
    reflection: Literal["none", "before-expansion", "every-node"] | None = None
    """When the model reflects on the steps so far; its analysis guides the next step and can end the branch."""
    end_gate: Annotated[float, Field(ge=0.0, le=11.0)] | None = None
    """Score from which a selected path counts as complete. Above 10: never."""
    min_steps: Annotated[int, Field(ge=1, le=64)] | None = None
    """Steps before a path may count as complete."""
    max_depth: Annotated[int, Field(ge=1, le=64)] | None = None
    """Steps of a path at most."""
    time_limit_seconds: Annotated[float, Field(gt=0.0, le=315_360_000)] | None = None
    """Wall-clock limit of one tree, beside `rounds`. A run with it cannot be repeated exactly."""
    rollout: RolloutSpec = RolloutSpec()
    """Simulation from the best new child."""
    backpropagation: Literal["visit-weighted", "all-children"] | None = None
    """An ancestor's value: its children's mean weighted by visits (reference), or by all new children (paper)."""
    completeness_check: bool | None = None
    """Ask the model at the end whether the plan is correct and complete, and record it."""
    min_plan_words: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """Shorter plans are dropped, with that reason."""
    temperature: Temperature | None = None
    """Of proposals and reflections."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Of proposals and reflections."""
    max_step_tokens: Annotated[int, Field(ge=8, le=8192)] | None = None
    """Tokens of one proposed step."""
    max_reflection_tokens: Annotated[int, Field(ge=8, le=8192)] | None = None
    """Tokens of one reflection."""
