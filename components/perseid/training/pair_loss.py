"""Losses of a pair of answers: how much likelier the chosen one is than the rejected one, and how much it should be.

trl (1.16) has no such function to call: its losses are branches inside `DPOTrainer._compute_loss`, behind a model whose
forward it replaces. So the formulas stand here, and a test holds value and gradient against that trainer's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy, logsigmoid

from perseid.training.batching import Batch, lay_out, pass_groups
from perseid.training.loss import answer_logits
from perseid.training.manifest import PairObjective
from perseid.training.objective import Forwarding, ForwardPass
from perseid.training.pairs import EncodedPair


def pair_losses(
    logprobs: torch.Tensor, reference: torch.Tensor, lengths: torch.Tensor, objective: PairObjective
) -> torch.Tensor:
    """The loss of each pair, shape (pairs,).

    `logprobs` and `reference` are log-probabilities in nats, summed over an answer's tokens, of the model that learns
    and of the model that it began as; `lengths` the answers' tokens. All have shape (pairs, 2), chosen before
    rejected.

    - `dpo`: -ln sigmoid(beta * d), d the difference of the sums' gains over the reference (arXiv 2305.18290, eq. 7).
    - `ipo`: (d - 1 / (2 beta))^2 with gains per token, which is what its authors measured and trl computes (arXiv
      2310.12036, eq. 17).
    - `contrastive`: max(0, margin - m), m the difference of the log-probabilities per token. No reference takes part
      (the third stage of METEOR, arXiv 2411.11933).
    """
    if objective.type == "contrastive":
        chosen, rejected = (logprobs / lengths).unbind(1)
        return torch.relu(rejected - chosen + (objective.margin or 0.0))
    beta = objective.beta
    if beta is None:
        raise ValueError(f"objective {objective.type} needs beta")
    gains = logprobs - reference
    if objective.type == "ipo":
        chosen, rejected = (gains / lengths).unbind(1)
        return (chosen - rejected - 1.0 / (2.0 * beta)) ** 2
    chosen, rejected = gains.unbind(1)
    return -logsigmoid(beta * (chosen - rejected))


def answer_logprobs(model: torch.nn.Module, batch: Batch, *, picks_logits: bool) -> torch.Tensor:
    """Log-probability of each answer of a batch, summed over its tokens, in nats, float32, shape (answers,)."""
    logits = answer_logits(model, batch, picks_logits=picks_logits).float()
    tokens = -cross_entropy(logits, batch.targets, reduction="none")
    return torch.stack([answer.sum() for answer in torch.split(tokens, list(batch.answer_lengths))])


@dataclass(frozen=True, slots=True)
class PairPreference:
    """Mean pair loss of the step, and `supervised_weight` times the mean negative log-likelihood per chosen token."""

    objective: PairObjective
    reference: Mapping[str, tuple[float, float]]
    """Log-probabilities before training of each pair's chosen and rejected answer, summed over tokens, by pair id."""
    items_are: str = "pairs"
    learning_rate_field: str = "selfEvolution.learningRate"

    def forward_passes(
        self, mine: Sequence[EncodedPair], step: Sequence[EncodedPair], share: float, how: Forwarding
    ) -> list[ForwardPass]:
        """As `Objective.forward_passes`. Both answers of a pair are in one pass."""
        pair_weight = share / len(step)
        token_weight = self.objective.supervised_weight * share / sum(pair.chosen.answer_length for pair in step)
        return [
            self._pass(group, pair_weight, token_weight, how)
            for group in pass_groups(mine, how.layout, how.tokens_per_forward)
        ]

    def _pass(
        self, group: Sequence[EncodedPair], pair_weight: float, token_weight: float, how: Forwarding
    ) -> ForwardPass:
        batch = lay_out(group, how.layout, how.padding)
        reference = torch.tensor([self.reference[pair.id] for pair in group], device=how.device)
        lengths = torch.tensor(batch.answer_lengths, device=how.device).view(-1, 2)

        def loss(model: torch.nn.Module) -> torch.Tensor:
            logprobs = answer_logprobs(model, batch.to(how.device), picks_logits=how.picks_logits).view(-1, 2)
            pairwise = pair_losses(logprobs, reference, lengths, self.objective).sum() * pair_weight
            # Left out at weight 0 and not multiplied by it, so that its gradient is not computed for nothing.
            return pairwise - logprobs[:, 0].sum() * token_weight if token_weight else pairwise

        return ForwardPass(tuple(pair.id for pair in group), loss)
