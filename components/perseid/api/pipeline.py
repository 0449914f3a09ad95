"""How a generation looks as a Kubeflow pipeline."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perseid.api.base import ApiModel, Text

LabelName = Annotated[str, Field(min_length=1, max_length=317)]
"""A label's key: a prefix of 253 characters, a slash, and a name of 63."""
LabelValue = Annotated[str, Field(max_length=63)]
StageName = Literal["synthesize", "convert", "finetune", "evaluate"]


class ResourcesSpec(ApiModel):
    """What a stage's pod gets in a cluster. A laptop ignores it."""

    cpu: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?m?$", max_length=32)] | None = None
    """CPU request, for example `8` or `500m`."""
    memory: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$", max_length=32)] | None = None
    """Memory request and limit, for example `64Gi`."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs."""
    gpu_type: Annotated[str, Field(pattern=r"^[A-Za-z0-9./-]{1,253}$", max_length=253)] = "nvidia.com/gpu"
    """Resource name of the GPU."""
    shared_memory: Annotated[str, Field(pattern=r"^[0-9]+(Mi|Gi)$", max_length=32)] | None = None
    """Size of /dev/shm, which tensor-parallel engines need."""
    node_selector: Annotated[dict[LabelName, LabelValue], Field(max_length=32)] = {}
    """Node labels that the pod needs."""
    labels: Annotated[dict[LabelName, LabelValue], Field(max_length=32)] = {}
    """Pod labels, for example `kueue.x-k8s.io/queue-name`."""
    retries: Annotated[int, Field(ge=0, le=20)] = 0
    """Retries by KFP itself. Stages resume themselves, so a new attempt by the run is usually the better tool."""
    timeout_seconds: Annotated[int, Field(ge=1, le=315_360_000)] | None = None
    """Deadline of the stage's pod."""


class StagesSpec(ApiModel):
    """Resources by stage."""

    synthesize: ResourcesSpec = ResourcesSpec()
    """The search."""
    convert: ResourcesSpec = ResourcesSpec()
    """Plan to code, and verification."""
    finetune: ResourcesSpec = ResourcesSpec()
    """Training."""
    evaluate: ResourcesSpec = ResourcesSpec()
    """Scoring."""


class PipelineSpec(ApiModel):
    """How a generation looks as a Kubeflow pipeline."""

    image: Text = "perseid-stage:latest"
    """Image of the stages. Pin it by digest in production."""
    stages: StagesSpec = StagesSpec()
    """Resources by stage."""
    service_account: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", max_length=253)] | None = (
        None
    )
    """Service account of the stages' pods. Default: KFP's own."""
