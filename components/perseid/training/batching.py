"""How the samples of one optimizer step become forward passes.

Three layouts give the same gradient, because the loss is summed over answer tokens and divided by the step's total:

- `packed`: several samples in one row without padding; position ids that start again at 0 keep them apart.
- `single`: one sample in a row, one after the other. Also without padding, and without the packed row's dense mask.
- `padded`: one sample in each row, filled up to the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from perseid.training.encode import EncodedSample

Layout = Literal["packed", "single", "padded"]


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass."""

    sample_ids: tuple[str, ...]
    input_ids: torch.Tensor
    """Token ids, int64, shape (rows, length)."""
    position_ids: torch.Tensor
    """Position in its own sample, int64, shape (rows, length)."""
    attention_mask: torch.Tensor | None
    """1 for tokens and 0 for padding, shape (rows, length). None without padding: only then does transformers read
    from the position ids where one sample ends and the next begins."""
    rows: torch.Tensor
    """Row of each position that predicts an answer token, int64, shape (answer tokens,)."""
    positions: torch.Tensor
    """Column of each such position, shape (answer tokens,)."""
    targets: torch.Tensor
    """The answer tokens, shape (answer tokens,)."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.sample_ids,
            self.input_ids.to(device),
            self.position_ids.to(device),
            None if self.attention_mask is None else self.attention_mask.to(device),
            self.rows.to(device),
            self.positions.to(device),
            self.targets.to(device),
        )


def step_batches(
    samples: Sequence[EncodedSample], layout: Layout, tokens_per_forward: int, padding: int
) -> list[Batch]:
    """The forward passes of one step.

    `tokens_per_forward` bounds memory: rows * length of a batch stays below it, except for one longer sample alone.
    `padding` is any valid token id; padded positions are neither attended to nor learned.
    """
    if layout == "single":
        return [pack([sample]) for sample in samples]
    if layout == "packed":
        return [pack(group) for group in _group(samples, tokens_per_forward, padded=False)]
    by_length = sorted(samples, key=lambda sample: len(sample.tokens))
    return [pad(group, padding) for group in _group(by_length, tokens_per_forward, padded=True)]


def pack(samples: Sequence[EncodedSample]) -> Batch:
    """Several samples in one row, shape (1, sum of lengths)."""
    tokens: list[int] = []
    places: list[int] = []
    predicting: list[int] = []
    targets: list[int] = []
    for sample in samples:
        start = len(tokens)
        tokens += sample.tokens
        places += range(len(sample.tokens))
        predicting += range(start + sample.prompt_length - 1, start + len(sample.tokens) - 1)
        targets += sample.tokens[sample.prompt_length :]
    return Batch(
        sample_ids=tuple(sample.id for sample in samples),
        input_ids=torch.tensor([tokens]),
        position_ids=torch.tensor([places]),
        attention_mask=None,
        rows=torch.zeros(len(predicting), dtype=torch.int64),
        positions=torch.tensor(predicting),
        targets=torch.tensor(targets),
    )


def pad(samples: Sequence[EncodedSample], padding: int) -> Batch:
    """One sample in each row, padded on the right, shape (samples, longest)."""
    length = max(len(sample.tokens) for sample in samples)
    rows: list[int] = []
    predicting: list[int] = []
    targets: list[int] = []
    for row, sample in enumerate(samples):
        rows += [row] * sample.answer_length
        predicting += range(sample.prompt_length - 1, len(sample.tokens) - 1)
        targets += sample.tokens[sample.prompt_length :]
    return Batch(
        sample_ids=tuple(sample.id for sample in samples),
        input_ids=torch.tensor([[*sample.tokens, *[padding] * (length - len(sample.tokens))] for sample in samples]),
        position_ids=torch.arange(length).expand(len(samples), length),
        attention_mask=torch.tensor(
            [[1] * len(sample.tokens) + [0] * (length - len(sample.tokens)) for sample in samples]
        ),
        rows=torch.tensor(rows),
        positions=torch.tensor(predicting),
        targets=torch.tensor(targets),
    )


def _group(samples: Sequence[EncodedSample], tokens_per_forward: int, *, padded: bool) -> list[list[EncodedSample]]:
    """Consecutive samples that fit one forward pass together; padded rows must come sorted by length."""
    groups: list[list[EncodedSample]] = []
    used = 0
    for sample in samples:
        size = len(sample.tokens)
        total = (len(groups[-1]) + 1) * size if groups and padded else used + size
        if groups and total <= tokens_per_forward:
            groups[-1].append(sample)
            used = total
        else:
            groups.append([sample])
            used = size
    return groups
