"""The spec of an EvolutionRun: what a user writes in YAML.

Attribute docstrings become the field documentation of the CRD, of `perseid validate` and of docs/.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perseid.api.base import API_VERSION, KIND, ApiModel
from perseid.api.engine import EngineSpec, ModelSpec
from perseid.api.lifecycle import GenerationsSpec
from perseid.api.pipeline import PipelineSpec
from perseid.api.problems import ProblemsSpec
from perseid.api.synthesis import ConversionSpec, SandboxSpec, SynthesisSpec
from perseid.api.training import EvaluationSpec, FinetuneSpec


class EvolutionRunSpec(ApiModel):
    """What a user asks for."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """All randomness comes from it."""
    model: ModelSpec = ModelSpec()
    """The model that generation 0 starts from."""
    engine: EngineSpec = EngineSpec()
    """What runs the model."""
    problems: ProblemsSpec = ProblemsSpec()
    """Which problems are learned from, which decide and which are only reported."""
    synthesis: SynthesisSpec = SynthesisSpec()
    """The data synthesis: search for plans."""
    conversion: ConversionSpec = ConversionSpec()
    """Plan to code, verification and training records."""
    sandbox: SandboxSpec = SandboxSpec()
    """Limits on generated code."""
    finetune: FinetuneSpec = FinetuneSpec()
    """Supervised fine-tuning."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How models are scored."""
    generations: GenerationsSpec = GenerationsSpec()
    """How many generations, and when to stop."""
    pipeline: PipelineSpec = PipelineSpec()
    """How a generation looks as a Kubeflow pipeline."""
    suspend: bool = False
    """Submit nothing more; what runs may finish."""


class Metadata(ApiModel):
    """The part of Kubernetes' object metadata that a laptop run uses."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?$")]
    """The run's name: lower-case letters, digits and `-`, at most 53 characters. Also the name of its directory."""
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = None
    """Used in a cluster only."""
    labels: Annotated[dict[str, str], Field(max_length=64)] = {}
    """Used in a cluster only."""
    annotations: Annotated[dict[str, str], Field(max_length=64)] = {}
    """Used in a cluster only."""


class EvolutionRun(ApiModel):
    """The custom resource, as a file holds it."""

    api_version: Literal["perseid.dev/v1alpha1"] = API_VERSION  # type: ignore[assignment]
    kind: Literal["EvolutionRun"] = KIND  # type: ignore[assignment]
    metadata: Metadata
    """Name and labels."""
    spec: EvolutionRunSpec = EvolutionRunSpec()
    """What the user asks for."""
