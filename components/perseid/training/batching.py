"""How the items of one optimizer step become forward passes.

An item is what the loss is a sum over: a sample, or two answers to one prompt, which must meet in one forward pass.
Three layouts give the same gradient, because every item's part is divided by the step's total:

- `packed`: several items in one row without padding; position ids that start again at 0 keep sequences apart.
- `single`: one item at a time. A sample has no padding then, and none of the packed row's dense mask either.
- `padded`: one sequence in each row, filled up to the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import torch

from perseid.training.encode import EncodedSample

Layout = Literal["packed", "single", "padded"]


class Item(Protocol):
    """What a step learns from, as a whole or not at all."""

    @property
    def id(self) -> str:
        """How errors call it."""

    @property
    def sequences(self) -> tuple[EncodedSample, ...]:
        """Its token sequences, at least one."""


ItemT = TypeVar("ItemT", bound=Item)


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
    answer_lengths: tuple[int, ...]
    """Answer tokens of each sample; they lie in this order, one sample's behind the other's."""
    weights: torch.Tensor | None = None
    """How much each answer token counts, float32, shape (answer tokens,). None where all count 1."""

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
            self.answer_lengths,
            None if self.weights is None else self.weights.to(device),
        )


def step_batches(
    samples: Sequence[EncodedSample], layout: Layout, tokens_per_forward: int, padding: int
) -> list[Batch]:
    """The forward passes of one step of samples, as `pass_groups` and `lay_out` make them."""
    return [lay_out(group, layout, padding) for group in pass_groups(samples, layout, tokens_per_forward)]


def pass_groups(items: Sequence[ItemT], layout: Layout, tokens_per_forward: int) -> list[list[ItemT]]:
    """The items of each forward pass of one step.

    `tokens_per_forward` bounds memory: rows * length of a pass stays below it, except for one bigger item alone.
    """
    if layout == "single":
        return [[item] for item in items]
    if layout == "packed":
        return _group(items, tokens_per_forward, padded=False)
    return _group(sorted(items, key=_longest), tokens_per_forward, padded=True)


def lay_out(items: Sequence[Item], layout: Layout, padding: int) -> Batch:
    """One forward pass of all sequences of these items.

    `padding` is any valid token id; padded positions are neither attended to nor learned.
    """
    sequences = [sequence for item in items for sequence in item.sequences]
    if layout == "packed" or (layout == "single" and len(sequences) == 1):
        return pack(sequences)
    return pad(sequences, padding)


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
        answer_lengths=tuple(sample.answer_length for sample in samples),
        weights=_weights(samples),
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
        answer_lengths=tuple(sample.answer_length for sample in samples),
        weights=_weights(samples),
    )


def _weights(samples: Sequence[EncodedSample]) -> torch.Tensor | None:
    if all(sample.weight == 1.0 for sample in samples):
        return None
    return torch.tensor([sample.weight for sample in samples for _ in range(sample.answer_length)])


def _group(items: Sequence[ItemT], tokens_per_forward: int, *, padded: bool) -> list[list[ItemT]]:
    """Consecutive items that fit one forward pass together; padded ones must come sorted by their longest sequence."""
    groups: list[list[ItemT]] = []
    rows = used = 0
    for item in items:
        more = len(item.sequences)
        tokens = sum(len(sequence.tokens) for sequence in item.sequences)
        total = (rows + more) * _longest(item) if padded else used + tokens
        if groups and total <= tokens_per_forward:
            groups[-1].append(item)
            rows, used = rows + more, total
        else:
            groups.append([item])
            rows, used = more, tokens
    return groups


def _longest(item: Item) -> int:
    return max(len(sequence.tokens) for sequence in item.sequences)
