"""What training makes smaller: the part of the loop that differs between learning answers and learning preferences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from perseid.training.batching import Item, Layout, lay_out, pass_groups
from perseid.training.encode import EncodedSample
from perseid.training.loss import answer_loss

LearnedT = TypeVar("LearnedT", bound=Item, contravariant=True)


@dataclass(frozen=True, slots=True)
class Forwarding:
    """How forward passes are made in this run."""

    layout: Layout
    tokens_per_forward: int
    """Bound on rows * length of one pass."""
    padding: int
    """A token id to fill rows up with."""
    device: torch.device
    picks_logits: bool
    """The model computes logits only where asked to."""


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """One forward pass of a step, and what it costs."""

    item_ids: tuple[str, ...]
    loss: Callable[[torch.nn.Module], torch.Tensor]
    """Calls the model once; this pass's part of the step's loss, float32, shape ()."""


class Objective(Protocol[LearnedT]):
    """A loss whose parts add up: a step's loss is the sum over its forward passes on all devices."""

    @property
    def items_are(self) -> str:
        """How errors call the items, in the plural."""

    @property
    def learning_rate_field(self) -> str:
        """The spec's field that errors advise to lower."""

    def forward_passes(
        self, mine: Sequence[LearnedT], step: Sequence[LearnedT], share: float, how: Forwarding
    ) -> list[ForwardPass]:
        """Passes over this process's items of a step.

        The parts of all items of `step` add up to the step's loss times `share`, which is the number of processes,
        because gradients are averaged over them; or 0, where a process only takes part.
        """


@dataclass(frozen=True, slots=True)
class AnswerLikelihood:
    """Supervised fine-tuning: mean negative log-likelihood per answer token of a step, weighted, in nats."""

    items_are: str = "samples"
    learning_rate_field: str = "finetune.learningRate"

    def forward_passes(
        self, mine: Sequence[EncodedSample], step: Sequence[EncodedSample], share: float, how: Forwarding
    ) -> list[ForwardPass]:
        """As `Objective.forward_passes`."""
        weight = share / sum(sample.weight * sample.answer_length for sample in step)
        return [_answers(group, weight, how) for group in pass_groups(mine, how.layout, how.tokens_per_forward)]


def _answers(group: Sequence[EncodedSample], weight: float, how: Forwarding) -> ForwardPass:
    batch = lay_out(group, how.layout, how.padding)

    def loss(model: torch.nn.Module) -> torch.Tensor:
        return answer_loss(model, batch.to(how.device), picks_logits=how.picks_logits) * weight

    return ForwardPass(batch.sample_ids, loss)
