"""The data synthesis: search for plans, then plan to code, verification and training records."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perseid.api.base import ApiModel, Text
from perseid.api.engine import OpenAISpec, SamplingSpec
from perseid.api.search import Score, SearchSpec


class SynthesisSpec(ApiModel):
    """The data synthesis: search for plans."""

    search: SearchSpec = SearchSpec()
    """How plans are looked for."""
    trees_in_flight: Annotated[int, Field(ge=1, le=4096)] = 64
    """Searches that run at once on one engine."""
    max_requests_in_flight: Annotated[int, Field(ge=1, le=8192)] = 256
    """Cap on requests that wait at the engine."""
    plans_per_problem: Annotated[int, Field(ge=1, le=64)] = 1
    """How many of the best paths of a tree become plans."""
    drop_unsolved: bool = False
    """Drop plans that the search's own completeness check calls unsolved (methods S13). Turns the check on."""
    policy_endpoint: OpenAISpec | None = None
    """Plans and code come from this endpoint instead of the run's own model: the baseline that distils a bigger one."""
    evaluator_endpoint: OpenAISpec | None = None
    """Scores come from this endpoint instead of the policy. Only score calls change."""


class GateSpec(ApiModel):
    """What decides whether an answer becomes training data."""

    type: Literal["tests", "likelihood", "ladder", "none"] = "tests"
    """`tests`: the problem's tests pass in the sandbox. `likelihood`: the most likely answers, by mean log-probability
    under the model itself. `ladder`: answers that a model scores well, by the paper's ladder; an extra call for each.
    `none`: whatever parses."""
    without_tests: Literal["drop", "likelihood", "ladder", "keep"] = "drop"
    """`tests`: what happens to an answer to a problem that has no tests."""
    keep_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    """`likelihood`: share of the parsed answers that is kept, the likeliest first."""
    min_score: Score = 8.0
    """`ladder`: score from 0 to 10 that an answer needs. Up to 3 stands for erroneous, 5 incoherent, 7 incomplete, 9
    defective, 10 for none of these. The model is the policy, or `synthesis.evaluatorEndpoint`."""


class DecontaminationSpec(ApiModel):
    """Removal of training samples that resemble an evaluation problem."""

    ngram: Annotated[int, Field(ge=3, le=50)] = 10
    """Words in a row that a sample and an evaluation item may not share."""
    similarity: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Character-level similarity of two statements from which they count as the same problem."""


class SandboxSpec(ApiModel):
    """Limits on generated code."""

    wall_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    """Wall-clock limit of one execution."""
    cpu_seconds: Annotated[int, Field(ge=1, le=600)] = 3
    """CPU-time limit of one execution."""
    memory_mib: Annotated[int, Field(ge=64, le=65_536)] = 512
    """Address-space limit of one execution."""
    workers: Annotated[int, Field(ge=1, le=256)] | None = None
    """Executions at once. Default: one per core."""


class ConversionSpec(ApiModel):
    """Plan to code, verification and training records."""

    samples_per_plan: Annotated[int, Field(ge=1, le=256)] = 4
    """Code answers that are sampled for each plan."""
    max_per_problem: Annotated[int, Field(ge=1, le=256)] = 4
    """Verified, distinct answers of one problem that are kept at most, the likeliest first."""
    sampling: SamplingSpec = SamplingSpec()
    """How code is decoded."""
    thinking: bool = True
    """Train on plan and code, where there is a plan. `false` is the ablation without thinking: code only (methods
    A.9)."""
    instructions: Annotated[list[Text], Field(min_length=1, max_length=64)] | None = None
    """Instruction sentences of training records; one is drawn for each. Default: the evaluation's own prompt."""
    gate: GateSpec = GateSpec()
    """What decides whether an answer becomes training data."""
    decontamination: DecontaminationSpec = DecontaminationSpec()
    """Removal of training samples that resemble an evaluation problem."""
