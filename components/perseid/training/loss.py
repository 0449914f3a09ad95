"""The loss: summed negative log-likelihood of the answers' tokens."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from perseid.training.batching import Batch, pack
from perseid.training.encode import EncodedSample


def answer_loss(model: torch.nn.Module, batch: Batch, *, picks_logits: bool) -> torch.Tensor:
    """Sum of -ln p(token) over the batch's answer tokens, each times its weight, float32, shape ().

    A sum and not a mean, so that whoever adds up batches of a step can divide by the step's weights: then every layout
    and every number of devices gives the same gradient.
    """
    logits = answer_logits(model, batch, picks_logits=picks_logits).float()
    if batch.weights is None:
        return cross_entropy(logits, batch.targets, reduction="sum")
    return cross_entropy(logits, batch.targets, reduction="none") @ batch.weights


def answer_logits(model: torch.nn.Module, batch: Batch, *, picks_logits: bool) -> torch.Tensor:
    """Logits of the positions that predict answer tokens, shape (answer tokens, vocabulary).

    With `picks_logits` a single row's other positions never go through the output layer, which for a small model with
    a large vocabulary is a good part of the work and of the memory.
    """
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "attention_mask": batch.attention_mask,
        # With a cache transformers takes no packed rows apart, and samples would attend to each other.
        "use_cache": False,
    }
    if picks_logits and batch.input_ids.shape[0] == 1:
        logits: torch.Tensor = model(**inputs, logits_to_keep=batch.positions).logits
        return logits[0]
    every: torch.Tensor = model(**inputs).logits
    return every[batch.rows, batch.positions]


def can_pick_logits(model: torch.nn.Module) -> bool:
    """Whether the model computes logits only where asked to (`logits_to_keep`)."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


@torch.no_grad()
def keeps_packed_samples_apart(
    model: torch.nn.Module, samples: Sequence[EncodedSample], device: torch.device, *, picks_logits: bool
) -> bool:
    """Whether a sample in a packed row is blind to the sample before it, as packing needs.

    Recurrent and hybrid models carry a state across the border, and some attention implementations ignore position
    ids. The first sample's tokens are turned round: shapes stay, so the second one's logits must stay too.
    """
    model_was_training = model.training
    model.eval()
    try:
        first, second = sorted(samples, key=lambda sample: len(sample.tokens))[:2]
        turned = EncodedSample(first.id, first.tokens[::-1], first.prompt_length)
        seen = [
            answer_logits(model, pack([other, second]).to(device), picks_logits=picks_logits)[first.answer_length :]
            for other in (first, turned)
        ]
    finally:
        model.train(model_was_training)
    difference = float((seen[0] - seen[1]).float().abs().max())
    return difference <= 1e-3 * float(seen[0].float().abs().max())
