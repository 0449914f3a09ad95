"""The optimizer steps of one training run, whatever it learns: what a step costs is its objective's to say.

An explicit loop over accelerate rather than a trainer class: continuing bit for bit after a kill, one loss
normalisation in every layout and errors that name a sample are a page of code here, and would be overrides there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from perseid.api.training import FinetuneSpec
from perseid.training.batching import ItemT, Layout
from perseid.training.checkpoint import Checkpoint, save_checkpoint
from perseid.training.errors import TrainingError
from perseid.training.loss import can_pick_logits, keeps_packed_samples_apart
from perseid.training.manifest import TrainingDType, TrainingMetrics, summarise_losses
from perseid.training.model import make_trainable, restore_parameters, trained_parameters
from perseid.training.objective import Forwarding, ForwardPass, Objective
from perseid.training.schedule import learning_rate_factor, step_samples, step_seed, total_steps
from perseid.training.sharding import average_whole_gradients, spread, spread_checkpoint, whole, whole_state

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
    """Before the step's update: nats per answer token, weighted, or the pair loss's value."""
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    tokens_per_second: float
    """Of this step, prompts included, padding not. A pair's prompt counts with each of its answers."""
    seconds: float
    """Time in steps so far, over all resumptions."""


class Trainer(Generic[ItemT]):
    """The state of one run and its loop."""

    def __init__(
        self,
        plain: PreTrainedModel,
        items: Sequence[ItemT],
        objective: Objective[ItemT],
        spec: FinetuneSpec,
        seed: int,
        dtype: TrainingDType,
        accelerator: Accelerator,
        padding: int,
    ) -> None:
        self._items, self._objective, self._spec, self._seed = items, objective, spec, seed
        self._bfloat16 = dtype == "bfloat16"
        self._accelerator = accelerator
        picks_logits = can_pick_logits(plain)
        torch.manual_seed(seed)  # where LoRA's first values come from
        model = make_trainable(plain, spec).to(accelerator.device)
        model.train()
        self._forwarding = Forwarding(
            layout=self._choose_layout(model, picks_logits),
            tokens_per_forward=tokens_per_forward(accelerator.device),
            padding=padding,
            device=accelerator.device,
            picks_logits=picks_logits,
        )
        if accelerator.num_processes > 1:
            spread(model, accelerator)
        parameters = trained_parameters(model)
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": spec.weight_decay},
                {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},  # norms and biases
            ],
            lr=spec.learning_rate,
            fused=True,
        )
        self._model: torch.nn.Module = model
        self._optimizer = optimizer
        self._total = total_steps(len(items), spec.batch_size, spec.epochs)
        self._done = 0
        self._losses: list[float] = []
        self._tokens = 0
        self._seconds = 0.0

    @property
    def model(self) -> torch.nn.Module:
        """What is trained. Spread over the processes, where there are several."""
        return self._model

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """The trained parameters by name, on the CPU; in the main process alone, but all must ask for them."""
        parts = ((name, whole(one.detach())) for name, one in trained_parameters(self._model).items())
        main = self._accelerator.is_main_process
        return {name: one.cpu() for name, one in parts if main}

    def restore(self, load: Callable[[], Checkpoint | None]) -> int | None:
        """Go on where the main process's checkpoint was written; its step, or None without one."""
        parameters = trained_parameters(self._model)
        checkpoint = spread_checkpoint(load, parameters, self._optimizer, self._accelerator)
        if checkpoint is None:
            return None
        restore_parameters(parameters, checkpoint.weights)
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
        indices = step_samples(step, len(self._items), spec.batch_size, spec.epochs, self._seed)
        group = [self._items[index] for index in indices]
        names = [item.id for item in group]
        torch.manual_seed(step_seed(self._seed, step, accelerator.process_index))
        factor = learning_rate_factor(step, self._total, spec.warmup_fraction, spec.schedule)
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = spec.learning_rate * factor

        self._optimizer.zero_grad()
        loss, suspects = self._backward(group)
        if not math.isfinite(loss):
            raise self._not_finite(f"the loss of step {step + 1} of {self._total} is {loss}", suspects or names)
        if accelerator.num_processes > 1:
            average_whole_gradients(trained_parameters(self._model), accelerator)
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), spec.max_grad_norm)
        grad_norm = float(whole(norm))
        if not math.isfinite(grad_norm):
            raise self._not_finite(f"the gradient of step {step + 1} of {self._total} is not finite", names)
        self._optimizer.step()

        tokens = sum(len(sequence.tokens) for item in group for sequence in item.sequences)
        seconds = time.perf_counter() - began
        self._done += 1
        self._losses.append(loss)
        self._tokens += tokens
        self._seconds += seconds
        seen = min(self._done * spec.batch_size, round(spec.epochs * len(self._items)))
        return TrainingProgress(
            step=self._done,
            total_steps=self._total,
            epoch=seen / len(self._items),
            loss=loss,
            learning_rate=spec.learning_rate * factor,
            grad_norm=grad_norm,
            tokens_per_second=tokens / seconds,
            seconds=self._seconds,
        )

    def _backward(self, group: Sequence[ItemT]) -> tuple[float, list[str]]:
        """Gradients of the step's loss, summed over forward passes and devices.

        Returns that loss, and the items of this process's forward passes whose loss was not finite.
        """
        accelerator = self._accelerator
        passes = self._passes(group, accelerator.process_index)
        losses: list[torch.Tensor] = []
        for forward_pass in passes:
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=self._bfloat16):
                loss = forward_pass.loss(self._model)
                accelerator.backward(loss)
            losses.append(loss.detach())
        summed = torch.stack(losses)
        mean = float(accelerator.reduce(summed.sum(), "mean"))
        if math.isfinite(mean):
            return mean, []
        bad = [one for one, finite in zip(passes, summed.isfinite().tolist(), strict=True) if not finite]
        return mean, [item_id for one in bad for item_id in one.item_ids]

    def _passes(self, group: Sequence[ItemT], process: int) -> list[ForwardPass]:
        """The forward passes of one process's part of a step."""
        processes = self._accelerator.num_processes
        passes = []
        for number in range(processes):
            part = group[number::processes]
            share = float(processes) if part else 0.0
            passes.append(self._objective.forward_passes(part or group[:1], group, share, self._forwarding))
        # Processes fetch their weights from each other in every pass, so that all must make as many: those that have
        # fewer, or in a last small step none, go through the motions.
        mine = passes[process]
        missing = max(map(len, passes)) - len(mine)
        idle = self._objective.forward_passes(group[:1], group, 0.0, self._forwarding) if missing else []
        return [*mine, *(idle[:1] * missing)]

    def _not_finite(self, what: str, names: Sequence[str]) -> TrainingError:
        objective = self._objective
        return TrainingError(
            f"{what} ({objective.items_are} {_names(names)}). Lower {objective.learning_rate_field} "
            f"({self._spec.learning_rate}), or train in float32"
        )

    def _choose_layout(self, model: torch.nn.Module, picks_logits: bool) -> Layout:
        if self._spec.packing == "padded":
            return "padded"
        sequences = [sequence for item in self._items for sequence in item.sequences]
        if len(sequences) < 2:
            return "single"
        if keeps_packed_samples_apart(model, sequences, self._accelerator.device, picks_logits=picks_logits):
            return "packed"
        return "single"

    def _checkpoint(self, checkpoints: Path) -> None:
        main = self._accelerator.is_main_process
        weights, state = self.whole_weights(), whole_state(self._optimizer, keep=main)
        if main:
            save_checkpoint(
                checkpoints, Checkpoint(self._done, weights, state, self._losses, self._tokens, self._seconds)
            )
        self._accelerator.wait_for_everyone()

    def metrics(self) -> TrainingMetrics:
        """What the training did, for the manifest."""
        first, final, curve = summarise_losses(self._losses)
        return TrainingMetrics(
            steps=self._done,
            samples=len(self._items),
            tokens=self._tokens,
            seconds=self._seconds,
            tokens_per_second=self._tokens / self._seconds,
            first_loss=first,
            final_loss=final,
            curve=curve,
            trained_parameters=sum(p.numel() for p in trained_parameters(self._model).values()),
            layout=self._forwarding.layout,
            device=str(self._accelerator.device),
        )


def tokens_per_forward(device: torch.device) -> int:
    """Bound on rows * length of one forward pass."""
    return TOKENS_PER_FORWARD_ON_CPU if device.type == "cpu" else TOKENS_PER_FORWARD


def _names(sample_ids: Sequence[str]) -> str:
    names = ", ".join(sample_ids[:8])
    return names if len(sample_ids) <= 8 else f"{names} and {len(sample_ids) - 8} more"
