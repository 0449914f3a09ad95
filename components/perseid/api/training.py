"""Fine-tuning and scoring."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from perseid.api.base import ApiModel, Fraction, Text
from perseid.api.engine import SamplingSpec


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
    processes: Annotated[int, Field(ge=1, le=64)] | None = None
    """Processes on one machine that share each step's samples, with the weights spread over them (FSDP). Default: one
    for each GPU of the stage's pod. The loss is that of one process, but for rounding."""
    checkpoint_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Optimizer steps between two checkpoints to resume from."""
    min_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 8
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
