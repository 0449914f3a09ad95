"""Learning from pairs of answers, from the pairs to a committed model directory; reads from top to bottom.

Source: the third stage of METEOR (arXiv 2411.11933), where cheap decoding learns from expensive decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

from perseid.api.meteor import SelfEvolutionSpec
from perseid.api.training import FinetuneSpec
from perseid.data.records import PreferencePair
from perseid.engines.identity import content_id
from perseid.training.errors import TrainingError
from perseid.training.job import Job, TrainingResult, nothing_to_learn
from perseid.training.loss import can_pick_logits
from perseid.training.manifest import (
    PairObjective,
    PreferenceMetrics,
    TrainingDType,
    config_digest,
    data_digest,
    pair_objective,
)
from perseid.training.model import end_tokens, load_model, load_tokenizer
from perseid.training.objective import Forwarding
from perseid.training.pair_loss import PairPreference
from perseid.training.pairs import EncodedPair, encode_pairs
from perseid.training.reference import (
    PairLogprobs,
    compare,
    load_reference,
    measure_pairs,
    save_reference,
)
from perseid.training.trainer import TrainingProgress, tokens_per_forward


def prefer(
    pairs: Sequence[PreferencePair],
    base: Path,
    output: Path,
    work_dir: Path,
    spec: SelfEvolutionSpec,
    finetune: FinetuneSpec,
    *,
    seed: int,
    dtype: TrainingDType,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    base_model_id: str | None = None,
    base_ref: str | None = None,
    trust_remote_code: bool = False,
) -> TrainingResult:
    """Train `base` to find each pair's chosen answer likelier than the rejected one, and commit it to `output`.

    `spec` says by which loss, and gives the learning rate in place of `finetune.learning_rate`; everything else about
    the steps is `finetune`'s, whose batch_size counts pairs and whose max_length holds for each answer with its
    prompt. The reference of `dpo` and `ipo` is `base` itself, so a turn is pulled to its own start; its
    log-probabilities are computed once. A pair with equal answers, or with one that is empty or too long, is dropped
    with its reason (`manifest.dropped`).

    Goes on after interruptions, gives the same bits on a CPU, returns a finished output at once and raises, all as
    `finetune.fine_tune` does. `manifest.preference` says what changed in the pairs' likelihoods.
    """
    how = finetune.model_copy(update={"learning_rate": spec.learning_rate})
    objective = pair_objective(spec)
    job = Job(
        kind="prefer",
        output=output,
        work_dir=work_dir,
        base_id=base_model_id or content_id(base),
        base_ref=base_ref or base.name,
        data=data_digest(pairs),
        config=config_digest(how, seed, dtype, objective),
        spec=how,
        seed=seed,
        dtype=dtype,
    )
    accelerator = Accelerator(mixed_precision="no")  # as in fine_tune
    finished = job.finished(accelerator)
    if finished is not None:
        return finished

    tokenizer = load_tokenizer(base, trust_remote_code=trust_remote_code)
    load = partial(load_model, base, how, dtype, trust_remote_code=trust_remote_code)
    plain = load()
    encoded, dropped = encode_pairs(pairs, tokenizer, end_tokens(plain, tokenizer), how.max_length)
    if not encoded:
        raise nothing_to_learn(len(pairs), "pairs", dropped)

    # Padded: right for every model, whether or not it keeps packed sequences apart.
    forwarding = Forwarding(
        layout="padded",
        tokens_per_forward=tokens_per_forward(accelerator.device),
        padding=tokenizer.pad_token_id or 0,
        device=accelerator.device,
        picks_logits=can_pick_logits(plain),
    )
    reference = _reference(job, plain.to(accelerator.device), encoded, forwarding, accelerator)
    return job.run(
        encoded,
        dropped,
        PairPreference(objective, reference),
        plain,
        tokenizer,
        accelerator,
        on_progress,
        load,
        partial(_changes, encoded, reference, objective, dtype, forwarding),
    )


def _reference(
    job: Job, plain: torch.nn.Module, pairs: Sequence[EncodedPair], forwarding: Forwarding, accelerator: Accelerator
) -> PairLogprobs:
    """The base's log-probabilities of the pairs, from the file of an earlier call or computed now."""
    if accelerator.is_main_process and load_reference(job.directory, pairs) is None:
        save_reference(job.directory, measure_pairs(plain, pairs, job.dtype, forwarding))
    accelerator.wait_for_everyone()
    # Read back also by the process that wrote it: an interrupted run and an undisturbed one see the same numbers.
    reference = load_reference(job.directory, pairs)
    if reference is None:
        raise TrainingError(f"{job.directory} lost its log-probabilities: every process must see the same file system")
    return reference


def _changes(
    pairs: Sequence[EncodedPair],
    reference: PairLogprobs,
    objective: PairObjective,
    dtype: TrainingDType,
    forwarding: Forwarding,
    trained: torch.nn.Module,
) -> PreferenceMetrics:
    return compare(pairs, reference, measure_pairs(trained, pairs, dtype, forwarding), objective)
