"""Models and what runs them: the part of the spec that reaches the engines."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from perseid.api.base import RUN_NAME, ApiModel, Temperature, Text

EMBEDDED_MODEL = "embedded:smollm2-135m-instruct"
DType = Literal["auto", "float32", "bfloat16", "float16"]


class ModelSpec(ApiModel):
    """The model that generation 0 starts from."""

    ref: Text = EMBEDDED_MODEL
    """A hub id (`org/name`), a directory (`./x`, `/x`, `s3://bucket/x`), or `embedded:smollm2-135m-instruct`."""
    evolution_run: Annotated[str, Field(pattern=RUN_NAME, max_length=53)] | None = None
    """Start from the best model of this other EvolutionRun (in the same namespace, or the same directory of runs)."""
    revision: Text | None = None
    """Commit, tag or branch of a hub id. Pin a commit for a run that can be repeated."""
    dtype: DType = "auto"
    """`auto` measures which of float32 and bfloat16 multiplies faster on this machine."""
    trust_remote_code: bool = False
    """Run Python code that comes with a hub model. Only for a model whose authors you trust."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.evolution_run is not None and (self.ref != EMBEDDED_MODEL or self.revision is not None):
            raise ValueError("evolutionRun and ref (or revision) both name a model: keep one of them")
        return self


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
    data_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    """Copies of the model in one engine, each on GPUs of its own. For a search `pipeline.shards` is the better way to
    use many GPUs: a problem's requests then meet the same prefix cache."""
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Share of a GPU's memory that the engine may take."""
    kv_cache_gib: Annotated[float, Field(gt=0.0, le=4096)] = 4.0
    """Memory for the KV cache on CPUs, in GiB."""

    @property
    def gpus(self) -> int:
        """GPUs that the engine takes."""
        return self.tensor_parallel_size * self.data_parallel_size


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
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$", max_length=128)] | None = None
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
