"""How a generation looks as a Kubeflow pipeline."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from perseid.api.base import ApiModel, RecordedModel, Text, replace
from perseid.api.stages import TRAIN_JOB_STAGES, StageName, module_of

LabelName = Annotated[str, Field(min_length=1, max_length=317)]
"""A label's key: a prefix of 253 characters, a slash, and a name of 63."""
LabelValue = Annotated[str, Field(max_length=63)]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$", max_length=128)]
EnvValue = Annotated[str, Field(max_length=1024)]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", max_length=253)]
SecretKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,253}$", max_length=253)]


QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""A pod with this label is Kueue's: it stays gated until its queue has quota for it."""
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
"""Which WorkloadPriorityClass of Kueue counts for what has the queue's label."""

RUN_ID_LABEL = "pipeline/runid"
"""Label of all pods of a pipeline run, with its id: KFP's own. Its TrainJobs have it, too."""
STAGE_LABEL = "perseid.dev/stage"
"""Label of a TrainJob and its pods, which no task of the pipeline names."""
POD_NAME, POD_UID, POD_NAMESPACE = "PERSEID_POD_NAME", "PERSEID_POD_UID", "PERSEID_POD_NAMESPACE"
"""Environment variables of a pod that launches a TrainJob: which pod it is."""

STAGE_IMAGE = "perseid-stage:latest"
"""Image of stages where nobody names one: a laptop starts none, and KFP wants a name in every pipeline."""
SCRATCH = "/scratch"
CACHE = "/cache"
SHARED_MEMORY = "16Gi"
"""Of pods with several GPUs that say nothing: Kubernetes' 64 MiB are too little for NCCL. A bound, nothing reserved."""


class EnvSpec(ApiModel):
    """An environment variable."""

    name: EnvName
    """Name of the variable, for example `AWS_ENDPOINT_URL`."""
    value: EnvValue
    """Its value."""


class SecretEnvSpec(ApiModel):
    """An environment variable whose value is in a Secret of the pipelines' namespace."""

    name: EnvName
    """Name of the variable, for example `AWS_SECRET_ACCESS_KEY`."""
    secret: ObjectName
    """Name of the Secret."""
    key: SecretKey
    """Key in the Secret."""


class ImagePullSecretSpec(ApiModel):
    """A Secret of the pipelines' namespace, as a pod lists it."""

    name: ObjectName
    """Name of the Secret, of type `kubernetes.io/dockerconfigjson`."""


class TolerationSpec(ApiModel):
    """A taint of nodes that a pod bears, as Kubernetes writes it."""

    key: LabelName | None = None
    """Key of the taint, for example `nvidia.com/gpu`. Default: every key, which needs the operator Exists."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the taint must have this value, or may have any."""
    value: LabelValue | None = None
    """Value of the taint. Default: the empty one."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Default: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """How long a pod stays that runs already when its node gets the taint; for the effect NoExecute. Default: for
    good."""

    @model_validator(mode="after")
    def _as_kubernetes_takes_it(self) -> Self:
        if self.key is None and self.operator != "Exists":
            raise ValueError("a toleration without a key bears every taint: set operator to Exists, or name the key")
        if self.operator == "Exists" and self.value:
            raise ValueError("operator Exists takes no value: remove it, or set operator to Equal")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds is for the effect NoExecute: remove it, or set that effect")
        return self


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
    """Size of /dev/shm, through which the processes of several GPUs talk; it counts as the pod's memory. Default: 16Gi
    with more than one GPU, else Kubernetes' own 64 MiB."""
    scratch: Annotated[str, Field(pattern=r"^[0-9]+(Mi|Gi|Ti)$", max_length=32)] | None = None
    """Size of the disk for working copies, where the storage is an object store. It must hold a model and its
    checkpoints. Default: the pod's own."""
    node_selector: Annotated[dict[LabelName, LabelValue], Field(max_length=32)] = {}
    """Node labels that the pod needs."""
    tolerations: Annotated[list[TolerationSpec], Field(max_length=16)] = []
    """Taints of nodes that the pod bears: pools of GPUs are often tainted."""
    labels: Annotated[dict[LabelName, LabelValue], Field(max_length=32)] = {}
    """Pod labels, for example `kueue.x-k8s.io/queue-name` and, beside it, `kueue.x-k8s.io/priority-class`."""
    retries: Annotated[int, Field(ge=0, le=20)] = 0
    """Retries by KFP itself. Stages resume themselves, so a new attempt by the run is usually the better tool."""
    timeout_seconds: Annotated[int, Field(ge=1, le=315_360_000)] | None = None
    """Deadline of the stage's pod."""

    @property
    def shared_memory_size(self) -> str | None:
        """Size of /dev/shm; None for Kubernetes' own."""
        return self.shared_memory or (SHARED_MEMORY if self.gpus > 1 else None)


class StagesSpec(ApiModel):
    """Resources by stage."""

    synthesize: ResourcesSpec = ResourcesSpec()
    """The search."""
    convert: ResourcesSpec = ResourcesSpec()
    """Plan to code, and verification."""
    finetune: ResourcesSpec = ResourcesSpec()
    """Training."""
    mentor_supervised: ResourcesSpec = ResourcesSpec()
    """METEOR's first stage: a mentor's answers, and training on them."""
    self_assessment: ResourcesSpec = ResourcesSpec()
    """METEOR's second stage: answers, verdicts and training, several times over."""
    self_evolution: ResourcesSpec = ResourcesSpec()
    """METEOR's third stage: pairs of answers, and training on them."""
    evaluate: ResourcesSpec = ResourcesSpec()
    """Scoring."""

    def of(self, stage: StageName) -> ResourcesSpec:
        """The resources of one stage."""
        found: ResourcesSpec = getattr(self, module_of(stage))
        return found


class RuntimeRefSpec(ApiModel):
    """Which runtime of Kubeflow Trainer a TrainJob stands on."""

    name: ObjectName = "torch-distributed"
    """Name of the runtime. Its `mlPolicy` must be torch's."""
    kind: Literal["ClusterTrainingRuntime", "TrainingRuntime"] = "ClusterTrainingRuntime"
    """Whether it is the cluster's or one of the pipelines' namespace."""


class TrainJobSpec(ApiModel):
    """Training on several nodes, by a TrainJob of Kubeflow Trainer."""

    num_nodes: Annotated[int, Field(ge=2, le=64)]
    """Nodes that train together, each with the resources of the stage in `stages`."""
    runtime_ref: RuntimeRefSpec = RuntimeRefSpec()
    """The runtime, which an administrator of the cluster has installed."""


class PipelineSpec(ApiModel):
    """How a generation looks as a Kubeflow pipeline."""

    image: Text | None = None
    """Image of the stages. Pin it by digest in production. Default: the operator's own default, which
    `status.snapshot.image` shows once the run is accepted; without one `perseid-stage:latest`."""
    stages: StagesSpec = StagesSpec()
    """Resources by stage."""
    shards: Annotated[int, Field(ge=1, le=32)] = 1
    """Pods that share the search's problems, each with the resources of `stages.synthesize`: one for each GPU, or for
    each group of `engine.vllm.tensorParallelSize` GPUs. A laptop searches them one after another."""
    train_job: TrainJobSpec | None = None
    """Has the stages that learn from answers (finetune, mentor-supervised, self-assessment) run on several nodes, by a
    TrainJob. Their pods of the pipeline only look after it. Needs Kubeflow Trainer and object storage; not for a
    laptop. Default: each stage trains in one pod."""
    env: Annotated[list[EnvSpec], Field(max_length=32)] = []
    """Environment variables of the stages. Never secrets: whoever may read the run can read them. The operator may add
    defaults of its own; a name that stands here or in secretEnv goes before them."""
    secret_env: Annotated[list[SecretEnvSpec], Field(max_length=32)] = []
    """Environment variables of the stages from Secrets: credentials of the storage, API keys of endpoints. The operator
    may add defaults of its own, as for env."""
    cache_claim: ObjectName | None = None
    """Name of a PersistentVolumeClaim of the pipelines' namespace for what stages fetch from the hub, so that models
    and data sets are downloaded once and not by every pod. Pods of several nodes can mount it only where it is
    ReadWriteMany. Default: each pod fetches anew."""
    service_account: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", max_length=253)] | None = (
        None
    )
    """Service account of the stages' pods. Default: the operator's own default, else KFP's."""
    image_pull_secrets: Annotated[list[ImagePullSecretSpec], Field(max_length=8)] = []
    """Secrets for the registry of the image. Default: the operator's own default, else those of the service account."""
    queue: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$", max_length=63)] | None = None
    """Kueue's LocalQueue, in the pods' namespace, in which pods with GPUs wait for quota; others start at once. A
    stage's own label `kueue.x-k8s.io/queue-name` goes before it."""

    @property
    def stage_image(self) -> str:
        """The image, named by the run or not."""
        return self.image or STAGE_IMAGE

    def variables(self, resources: ResourcesSpec) -> dict[str, str]:
        """The environment of a stage with these resources, but for what comes from Secrets."""
        found: dict[str, str] = {}
        if resources.scratch:
            found["PERSEID_SCRATCH_DIR"] = SCRATCH
        if self.cache_claim is not None:
            found |= {"HF_HOME": f"{CACHE}/huggingface", "PERSEID_CACHE": f"{CACHE}/perseid"}
        return found | {variable.name: variable.value for variable in self.env}

    def nodes_of(self, stage: StageName) -> int:
        """Nodes of a stage: several where a TrainJob runs it."""
        return self.train_job.num_nodes if self.train_job is not None and stage in TRAIN_JOB_STAGES else 1

    def queue_of(self, resources: ResourcesSpec) -> str | None:
        """The queue of Kueue in which a pod with these resources waits; None where it waits in none."""
        return resources.labels.get(QUEUE_LABEL) or (self.queue if resources.gpus else None)


class StageDefaults(RecordedModel):
    """What an operator gives to stages whose run says nothing of it, so that runs need not know their cluster. It is
    frozen with the run's pipeline: other defaults count for runs that are accepted after them."""

    image: Text | None = None
    env: Annotated[list[EnvSpec], Field(max_length=32)] = []
    secret_env: Annotated[list[SecretEnvSpec], Field(max_length=32)] = []
    service_account: ObjectName | None = None
    image_pull_secrets: Annotated[list[ImagePullSecretSpec], Field(max_length=8)] = []

    def complete(self, pipeline: PipelineSpec) -> PipelineSpec:
        """The pipeline with what it does not say. Raises ValueError where both together are more than it can hold."""
        own = {one.name for one in pipeline.env} | {one.name for one in pipeline.secret_env}
        return replace(
            pipeline,
            image=pipeline.image or self.image,
            env=[*(one for one in self.env if one.name not in own), *pipeline.env],
            secret_env=[*(one for one in self.secret_env if one.name not in own), *pipeline.secret_env],
            service_account=pipeline.service_account or self.service_account,
            image_pull_secrets=pipeline.image_pull_secrets or self.image_pull_secrets,
        )


class GenerationTemplate(ApiModel):
    """What a generation's compiled pipeline depends on: runs that agree in it share one."""

    stages: list[StageName]
    """In their order."""
    pipeline: PipelineSpec
    """Images, resources, environment."""
