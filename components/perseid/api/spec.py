"""The spec of an EvolutionRun: what a user writes in YAML.

Attribute docstrings become the field documentation of the CRD, of `perseid validate` and of docs/.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.alias_generators import to_camel

from perseid.api.base import API_VERSION, APPROVED_GENERATION, KIND, RUN_NAME, ApiModel, Text
from perseid.api.engine import EngineSpec, ModelSpec
from perseid.api.lifecycle import GenerationsSpec, LifecycleSpec
from perseid.api.meteor import MeteorSpec
from perseid.api.pipeline import GenerationTemplate, PipelineSpec
from perseid.api.problems import ProblemsSpec
from perseid.api.stages import (
    ENGINELESS_STAGES,
    STAGES,
    TRAIN_JOB_STAGES,
    Methods,
    StageName,
    module_of,
    stages_of,
)
from perseid.api.synthesis import ConversionSpec, SandboxSpec, SynthesisSpec
from perseid.api.training import EvaluationSpec, FinetuneSpec


class StorageSpec(ApiModel):
    """Where a run's files lie."""

    uri: Text | None = None
    """Root of the run's files in a cluster: `s3://bucket/prefix`, or a directory that all pods and the operator mount.
    Default: a directory of the run below the operator's own root. A laptop uses `--runs-dir`."""


class DefinitionSpec(ApiModel):
    """What a run does: the part of the spec that makes it this run and no other."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """All randomness comes from it."""
    model: ModelSpec = ModelSpec()
    """The model that generation 0 starts from."""
    engine: EngineSpec = EngineSpec()
    """What runs the model."""
    methods: Methods = ["sra-mcts"]
    """How a generation learns. `sra-mcts`: plans found by search, turned into verified code. `meteor`: a domain, from a
    mentor, then from its own judgement, then from itself. Both: SRA-MCTS first, and METEOR goes on from its model."""
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
    meteor: MeteorSpec = MeteorSpec()
    """METEOR: the domain, its mentor and judge, and its stages."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How models are scored."""
    generations: GenerationsSpec = GenerationsSpec()
    """How many generations, and when to stop."""
    pipeline: PipelineSpec = PipelineSpec()
    """How a generation looks as a Kubeflow pipeline."""
    storage: StorageSpec = StorageSpec()
    """Where the run's files lie."""

    @model_validator(mode="after")
    def _shards_have_a_search(self) -> Self:
        if self.pipeline.shards > 1 and "sra-mcts" not in self.methods:
            raise ValueError(
                "only the search of method sra-mcts is done in shards: set pipeline.shards to 1 or add the method"
            )
        return self

    @model_validator(mode="after")
    def _nodes_have_what_they_need(self) -> Self:
        job = self.pipeline.train_job
        if job is None:
            return self
        if not any(stage in TRAIN_JOB_STAGES for stage in self.stages):
            raise ValueError(
                "pipeline.trainJob has nothing to do: no stage of this run learns from answers (finetune,"
                " mentor-supervised, self-assessment); remove it, or add a method or stage that does"
            )
        uri = self.storage.uri
        if uri is not None and ("://" not in uri or uri.startswith("file://")):
            raise ValueError(
                "the nodes of pipeline.trainJob meet in object storage, but storage.uri is a directory: set it to"
                " s3://bucket/prefix, or remove trainJob"
            )
        if self.finetune.batch_size < job.num_nodes:
            raise ValueError(
                f"finetune.batchSize is {self.finetune.batch_size}, so that some of the {job.num_nodes} nodes of"
                " pipeline.trainJob would learn from nothing: raise it, or lower trainJob.numNodes"
            )
        return self

    @model_validator(mode="after")
    def _gpus_hold_the_engine(self) -> Self:
        needed = self.engine.vllm.gpus if self.engine.type == "vllm" else 1
        for stage in STAGES:
            given = self.pipeline.stages.of(stage).gpus
            if stage not in ENGINELESS_STAGES and 0 < given < needed:
                raise ValueError(
                    f"engine.vllm takes {needed} GPUs (tensorParallelSize times dataParallelSize), but"
                    f" pipeline.stages.{to_camel(module_of(stage))}.gpus is {given}: raise it, or lower those"
                )
        return self

    @property
    def stages(self) -> tuple[StageName, ...]:
        """The stages that a generation goes through, in their order."""
        return stages_of(self.methods, self.meteor.stages)

    @property
    def template(self) -> GenerationTemplate:
        """What a generation's compiled pipeline depends on."""
        return GenerationTemplate(stages=list(self.stages), pipeline=self.pipeline)


class EvolutionRunSpec(LifecycleSpec, DefinitionSpec):
    """What a user asks for."""


class Metadata(ApiModel):
    """The part of Kubernetes' object metadata that a laptop run uses."""

    name: Annotated[str, Field(pattern=RUN_NAME)]
    """The run's name: lower-case letters, digits and `-`, at most 53 characters. Also the name of its directory."""
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = None
    """Used in a cluster only."""
    labels: Annotated[dict[str, str], Field(max_length=64)] = {}
    """Used in a cluster only."""
    annotations: Annotated[dict[str, str], Field(max_length=64)] = {}
    """`perseid.dev/approved-generation` is read; others mean nothing to Perseid."""

    @property
    def approved_generation(self) -> int | None:
        """The newest generation that may start where approval is manual; None where the annotation names none."""
        named = self.annotations.get(APPROVED_GENERATION, "")
        return int(named) if named.isascii() and named.isdigit() and len(named) < 10 else None


class EvolutionRun(ApiModel):
    """The custom resource, as a file holds it."""

    api_version: Literal["perseid.dev/v1alpha1"] = API_VERSION  # type: ignore[assignment]
    kind: Literal["EvolutionRun"] = KIND  # type: ignore[assignment]
    metadata: Metadata
    """Name and labels."""
    spec: EvolutionRunSpec = EvolutionRunSpec()
    """What the user asks for."""
