"""The optimizer steps of one fine-tuning run.

An explicit loop over accelerate rather than a trainer class: continuing bit for bit after a kill, one loss
normalisation in every layout and errors that name a sample are a page of code here, and would be overrides there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from perseid.api.training import FinetuneSpec
from perseid.training.batching import Layout, step_batches
from perseid.training.checkpoint import Checkpoint, save_checkpoint
from perseid.training.encode import EncodedSample
from perseid.training.errors import TrainingError
from perseid.training.loss import answer_loss, can_pick_logits, keeps_packed_samples_apart
from perseid.training.manifest import TrainingDType, TrainingMetrics, summarise_losses
from perseid.training.model import make_trainable, restore_parameters, trained_parameters
from perseid.training.schedule import learning_rate_factor, step_samples, step_seed, total_steps

TOKENS_PER_FORWARD = 4096
"""Bound on rows * length of one forward pass: what activations may take. Gradients of a step's passes are summed."""
TOKENS_PER_FORWARD_ON_CPU = 1024
"""Less there: the work for a packed row's dense mask grows with the square of its length."""


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Said after every optimizer step."""

    step: int
    """Steps that are done, from 1."""
    total_steps: int
    epoch: float
    """Passes over the data so far."""
    loss: float
    """Nats per answer token, before the step's update."""
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    tokens_per_second: float
    """Of this step, prompts included, padding not."""
    seconds: float
    """Time in steps so far, over all resumptions."""


class Trainer:
    """The state of one run and its loop."""

    def __init__(
        self,
        plain: PreTrainedModel,
        samples: Sequence[EncodedSample],
        spec: FinetuneSpec,
        seed: int,
        dtype: TrainingDType,
        accelerator: Accelerator,
        padding: int,
    ) -> None:
        self._samples, self._spec, self._seed, self._padding = samples, spec, seed, padding
        self._bfloat16 = dtype == "bfloat16"
        self._accelerator = accelerator
        self._picks_logits = can_pick_logits(plain)
        torch.manual_seed(seed)  # where LoRA's first values come from
        model = make_trainable(plain, spec).to(accelerator.device)
        model.train()
        self._layout = self._choose_layout(model)
        on_cpu = accelerator.device.type == "cpu"
        self._tokens_per_forward = TOKENS_PER_FORWARD_ON_CPU if on_cpu else TOKENS_PER_FORWARD
        parameters = trained_parameters(model)
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": spec.weight_decay},
                {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},  # norms and biases
            ],
            lr=spec.learning_rate,
            fused=True,
        )
        self._model, self._optimizer = accelerator.prepare(model, optimizer)
        self._total = total_steps(len(samples), spec.batch_size, spec.epochs)
        self._done = 0
        self._losses: list[float] = []
        self._tokens = 0
        self._seconds = 0.0

    @property
    def unwrapped(self) -> torch.nn.Module:
        """The model without what accelerate put around it."""
        model: torch.nn.Module = self._accelerator.unwrap_model(self._model)
        return model

    def restore(self, checkpoint: Checkpoint | None) -> int | None:
        """Go on where a checkpoint was written; its step, or None without one."""
        if checkpoint is None:
            return None
        restore_parameters(trained_parameters(self.unwrapped), checkpoint.weights)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        self._done = checkpoint.step
        self._losses = list(checkpoint.losses)
        self._tokens, self._seconds = checkpoint.tokens, checkpoint.seconds
        return checkpoint.step

    def train(self, checkpoints: Path, on_progress: Callable[[TrainingProgress], None] | None) -> None:
        """Do the steps that are left."""
        while self._done < self._total:
            try:
                progress = self._step()
            except torch.OutOfMemoryError as error:
                raise TrainingError(
                    f"step {self._done + 1} of {self._total} does not fit the memory of {self._accelerator.device}: "
                    "lower finetune.maxLength or finetune.batchSize, use method lora, or take a bigger device"
                ) from error
            if self._done % self._spec.checkpoint_steps == 0 or self._done == self._total:
                self._checkpoint(checkpoints)
            if on_progress is not None and self._accelerator.is_main_process:
                on_progress(progress)

    def _step(self) -> TrainingProgress:
        began = time.perf_counter()
        spec, accelerator, step = self._spec, self._accelerator, self._done
        indices = step_samples(step, len(self._samples), spec.batch_size, spec.epochs, self._seed)
        group = [self._samples[index] for index in indices]
        chosen = [sample.id for sample in group]
        answer_tokens = sum(sample.answer_length for sample in group)
        torch.manual_seed(step_seed(self._seed, step, accelerator.process_index))
        factor = learning_rate_factor(step, self._total, spec.warmup_fraction, spec.schedule)
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = spec.learning_rate * factor

        self._optimizer.zero_grad()
        loss, suspects = self._backward(group, answer_tokens)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss of step {step + 1} of {self._total} is {loss} (samples {_names(suspects or chosen)}). Lower "
                f"finetune.learningRate ({spec.learning_rate}), or train in float32"
            )
        grad_norm = float(accelerator.clip_grad_norm_(self._model.parameters(), spec.max_grad_norm))
        if not math.isfinite(grad_norm):
            raise TrainingError(
                f"the gradient of step {step + 1} of {self._total} is not finite (samples {_names(chosen)}). Lower "
                f"finetune.learningRate ({spec.learning_rate}), or train in float32"
            )
        self._optimizer.step()

        tokens = sum(len(sample.tokens) for sample in group)
        seconds = time.perf_counter() - began
        self._done += 1
        self._losses.append(loss)
        self._tokens += tokens
        self._seconds += seconds
        seen = min(self._done * spec.batch_size, round(spec.epochs * len(self._samples)))
        return TrainingProgress(
            step=self._done,
            total_steps=self._total,
            epoch=seen / len(self._samples),
            loss=loss,
            learning_rate=spec.learning_rate * factor,
            grad_norm=grad_norm,
            tokens_per_second=tokens / seconds,
            seconds=self._seconds,
        )

    def _backward(self, group: Sequence[EncodedSample], answer_tokens: int) -> tuple[float, list[str]]:
        """Gradients of the step's mean loss per answer token, summed over forward passes and devices.

        Returns that loss, and the samples of this process's forward passes whose loss was not finite.
        """
        accelerator = self._accelerator
        mine = group[accelerator.process_index :: accelerator.num_processes]
        # Every process must take part in the gradients' exchange, also where a last small step has nothing for it.
        weight = accelerator.num_processes / answer_tokens if mine else 0.0
        batches = step_batches(mine or group[:1], self._layout, self._tokens_per_forward, self._padding)
        losses: list[torch.Tensor] = []
        for number, batch in enumerate(batches, start=1):
            with (
                accelerator.no_sync(self._model) if number < len(batches) else nullcontext(),
                torch.autocast(accelerator.device.type, torch.bfloat16, enabled=self._bfloat16),
            ):
                loss = answer_loss(self._model, batch.to(accelerator.device), picks_logits=self._picks_logits) * weight
                accelerator.backward(loss)
            losses.append(loss.detach())
        summed = torch.stack(losses)
        mean = float(accelerator.reduce(summed.sum(), "mean"))
        if math.isfinite(mean):
            return mean, []
        bad = [batch for batch, finite in zip(batches, summed.isfinite().tolist(), strict=True) if not finite]
        return mean, [sample_id for batch in bad for sample_id in batch.sample_ids]

    def _choose_layout(self, model: torch.nn.Module) -> Layout:
        if self._spec.packing == "padded":
            return "padded"
        if len(self._samples) < 2:
            return "single"
        if keeps_packed_samples_apart(model, self._samples, self._accelerator.device, picks_logits=self._picks_logits):
            return "packed"
        return "single"

    def _checkpoint(self, checkpoints: Path) -> None:
        if self._accelerator.is_main_process:
            weights = {name: p.detach().cpu() for name, p in trained_parameters(self.unwrapped).items()}
            state = self._optimizer.state_dict()
            save_checkpoint(
                checkpoints, Checkpoint(self._done, weights, state, self._losses, self._tokens, self._seconds)
            )
        self._accelerator.wait_for_everyone()

    def metrics(self) -> TrainingMetrics:
        """What the training did, for the manifest."""
        first, final, curve = summarise_losses(self._losses)
        return TrainingMetrics(
            steps=self._done,
            samples=len(self._samples),
            tokens=self._tokens,
            seconds=self._seconds,
            tokens_per_second=self._tokens / self._seconds,
            first_loss=first,
            final_loss=final,
            curve=curve,
            trained_parameters=sum(p.numel() for p in trained_parameters(self.unwrapped).values()),
            layout=self._layout,
            device=str(self._accelerator.device),
        )


def _names(sample_ids: Sequence[str]) -> str:
    names = ", ".join(sample_ids[:8])
    return names if len(sample_ids) <= 8 else f"{names} and {len(sample_ids) - 8} more"
