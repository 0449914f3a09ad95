"""What a model makes of pairs without learning: once before training, kept for its resumptions, and once after it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from perseid.training.batching import lay_out, pass_groups
from perseid.training.checkpoint import sync_directory
from perseid.training.errors import TrainingError
from perseid.training.manifest import PairMeasures, PairObjective, PreferenceMetrics, TrainingDType
from perseid.training.objective import Forwarding
from perseid.training.pair_loss import answer_logprobs
from perseid.training.pairs import EncodedPair

PairLogprobs = dict[str, tuple[float, float]]
"""Log-probabilities of chosen and rejected answer, summed over tokens, in nats, by pair id."""

REFERENCE_NAME = "reference.json"


@torch.no_grad()
def measure_pairs(
    model: torch.nn.Module, pairs: Sequence[EncodedPair], dtype: TrainingDType, how: Forwarding
) -> PairLogprobs:
    """Log-probabilities of all answers, with the arithmetic of training but without its randomness (dropout).

    Raises TrainingError, with the pair, where one is not a number.
    """
    was_training = model.training
    model.eval()
    found: PairLogprobs = {}
    try:
        with torch.autocast(how.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            for group in pass_groups(pairs, how.layout, how.tokens_per_forward):
                batch = lay_out(group, how.layout, how.padding).to(how.device)
                both = answer_logprobs(model, batch, picks_logits=how.picks_logits).view(-1, 2).tolist()
                found |= {pair.id: (chosen, rejected) for pair, (chosen, rejected) in zip(group, both, strict=True)}
    finally:
        model.train(was_training)
    for pair_id, logprobs in found.items():
        if not all(math.isfinite(value) for value in logprobs):
            raise TrainingError(
                f"pair {pair_id}: the model's log-probabilities of its answers are {logprobs}. Its weights hold values "
                "that are not finite, or overflow; use another base, or train in float32"
            )
    return found


def save_reference(directory: Path, reference: PairLogprobs) -> None:
    """Keep the start's log-probabilities, exactly, in a file that is complete from the instant it has its name."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / REFERENCE_NAME
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("w") as file:
        json.dump(reference, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_directory(directory)


def load_reference(directory: Path, pairs: Sequence[EncodedPair]) -> PairLogprobs | None:
    """What `save_reference` kept for these pairs; None where there is nothing yet."""
    path = directory / REFERENCE_NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        return {pair.id: (float(content[pair.id][0]), float(content[pair.id][1])) for pair in pairs}
    except (ValueError, TypeError, LookupError) as error:
        raise TrainingError(
            f"{path} does not hold the pairs' log-probabilities ({error!r}). Delete it to have them computed anew"
        ) from error


def compare(
    pairs: Sequence[EncodedPair],
    before: Mapping[str, tuple[float, float]],
    after: Mapping[str, tuple[float, float]],
    objective: PairObjective,
) -> PreferenceMetrics:
    """What training changed in the pairs' log-probabilities."""
    first, last = _per_token(pairs, before), _per_token(pairs, after)
    rose = [c1 - r1 > c0 - r0 for (c0, r0), (c1, r1) in zip(first, last, strict=True)]
    return PreferenceMetrics(
        objective=objective,
        pairs=len(pairs),
        before=_summary(first),
        after=_summary(last),
        raised=sum(rose) / len(rose),
    )


def _per_token(pairs: Sequence[EncodedPair], sums: Mapping[str, tuple[float, float]]) -> list[tuple[float, float]]:
    return [
        (sums[pair.id][0] / pair.chosen.answer_length, sums[pair.id][1] / pair.rejected.answer_length) for pair in pairs
    ]


def _summary(means: Sequence[tuple[float, float]]) -> PairMeasures:
    count = len(means)
    return PairMeasures(
        accuracy=sum(chosen > rejected for chosen, rejected in means) / count,
        margin=sum(chosen - rejected for chosen, rejected in means) / count,
        chosen=sum(chosen for chosen, _ in means) / count,
        rejected=sum(rejected for _, rejected in means) / count,
    )
