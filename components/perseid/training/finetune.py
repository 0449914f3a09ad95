"""Supervised fine-tuning from samples to a committed model directory; reads from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from perseid.api.training import FinetuneSpec
from perseid.data.records import TrainingSample
from perseid.engines.identity import content_id
from perseid.training.encode import encode_samples
from perseid.training.job import Job, TrainingResult, nothing_to_learn
from perseid.training.manifest import TrainingDType, config_digest, data_digest
from perseid.training.model import end_tokens, load_model, load_tokenizer
from perseid.training.objective import AnswerLikelihood
from perseid.training.trainer import TrainingProgress

__all__ = ["TrainingResult", "fine_tune"]


def fine_tune(
    samples: Sequence[TrainingSample],
    base: Path,
    output: Path,
    work_dir: Path,
    spec: FinetuneSpec,
    *,
    seed: int,
    dtype: TrainingDType,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    base_model_id: str | None = None,
    base_ref: str | None = None,
    trust_remote_code: bool = False,
) -> TrainingResult:
    """Fine-tune `base` on `samples` and commit the result to `output`.

    A call that was interrupted at any moment goes on from its last checkpoint in `work_dir` when it is made again, and
    on a CPU gives the weights that an undisturbed one gives, bit for bit (GPU kernels may add in another order). A
    finished output of the same base, data and configuration is returned at once.

    `base_model_id` is the identity of the base's weights, by default `content_id(base)`; `base_ref` what users call
    it, by default the directory's name. Raises TrainingError; an exception of `on_progress` passes through, and leaves
    the checkpoints for the next call.

    Where several processes of one torch.distributed world make the same call (`several.fine_tune_in_processes` starts
    them), each learns from its part of every step, and the main one commits. `output` and `work_dir` are its alone.
    """
    job = Job(
        kind="finetune",
        output=output,
        work_dir=work_dir,
        base_id=base_model_id or content_id(base),
        base_ref=base_ref or base.name,
        data=data_digest(samples),
        config=config_digest(spec, seed, dtype),
        spec=spec,
        seed=seed,
        dtype=dtype,
    )
    # Mixed precision is torch's autocast in the trainer: accelerate would keep it in a state global to the process.
    accelerator = Accelerator(mixed_precision="no")
    finished = job.finished(accelerator)
    if finished is not None:
        return finished

    tokenizer = load_tokenizer(base, trust_remote_code=trust_remote_code)
    load = partial(load_model, base, spec, dtype, trust_remote_code=trust_remote_code)
    plain = load()
    encoded, dropped = encode_samples(samples, tokenizer, end_tokens(plain, tokenizer), spec.max_length)
    if not encoded:
        raise nothing_to_learn(len(samples), "samples", dropped)
    return job.run(encoded, dropped, AnswerLikelihood(), plain, tokenizer, accelerator, on_progress, load)
