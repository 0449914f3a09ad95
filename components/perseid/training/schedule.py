"""Which samples a step sees and how fast it learns: pure functions of the seed and the step.

Because nothing here has state, a run that resumes at step s needs no more than s to go on exactly as if undisturbed.
"""

from __future__ import annotations

import hashlib
import math
import random
from typing import Literal

Schedule = Literal["linear", "cosine", "constant"]


def total_steps(samples: int, batch_size: int, epochs: float) -> int:
    """Optimizer steps of a run: ceil(epochs * samples / batch_size), at least 1.

    Batches run across the border between epochs, so only the very last one can be smaller than the others.
    """
    if samples < 1:
        raise ValueError("there are no samples")
    return math.ceil(_samples_seen(samples, epochs) / batch_size)


def step_samples(step: int, samples: int, batch_size: int, epochs: float, seed: int) -> list[int]:
    """Indices of the samples that step `step` (from 0) learns from; every epoch is its own permutation."""
    first, last = step * batch_size, min((step + 1) * batch_size, _samples_seen(samples, epochs))
    chosen: list[int] = []
    for epoch in range(first // samples, (last - 1) // samples + 1):
        start = epoch * samples
        order = _epoch_order(samples, epoch, seed)
        chosen += order[max(first - start, 0) : last - start]
    return chosen


def step_seed(seed: int, step: int, process: int = 0) -> int:
    """Seed of everything random inside one step of one process (dropout), 63 bits."""
    digest = hashlib.sha256(f"step:{seed}:{step}:{process}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def learning_rate_factor(step: int, total: int, warmup_fraction: float, schedule: Schedule) -> float:
    """Share of the peak learning rate at step `step` (from 0 to total - 1), in (0, 1].

    It rises linearly over ceil(warmup_fraction * total) steps, then falls along `schedule` towards 0, which it would
    reach one step after the last: no step learns nothing.
    """
    warmup = math.ceil(warmup_fraction * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / (total - warmup)
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0


def _samples_seen(samples: int, epochs: float) -> int:
    return max(1, round(epochs * samples))


def _epoch_order(samples: int, epoch: int, seed: int) -> list[int]:
    order = list(range(samples))
    random.Random(f"epoch:{seed}:{epoch}").shuffle(order)
    return order
