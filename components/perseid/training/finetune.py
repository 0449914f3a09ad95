"""Supervised fine-tuning from samples to a committed model directory; reads from top to bottom."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from perseid import __version__
from perseid.api.training import FinetuneSpec
from perseid.data.records import TrainingSample
from perseid.engines.identity import content_id
from perseid.training.checkpoint import discard_checkpoints, load_checkpoint
from perseid.training.encode import encode_samples
from perseid.training.errors import TrainingError
from perseid.training.manifest import (
    ModelManifest,
    TrainingDType,
    config_digest,
    data_digest,
    library_versions,
    read_manifest,
)
from perseid.training.model import commit, end_tokens, load_model, load_tokenizer, merged, write_model
from perseid.training.trainer import Trainer, TrainingProgress


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A model directory and what it was made of."""

    path: Path
    manifest: ModelManifest
    reused: bool
    """It was there already, made of the same base, data and configuration."""
    resumed_from_step: int | None
    """Steps that an earlier, interrupted call had done; None where this call did all of it, or none."""


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
    """
    base_id = base_model_id or content_id(base)
    data, config = data_digest(samples), config_digest(spec, seed, dtype)
    finished = _finished(output, base_id, data, config)
    if finished is not None:
        return TrainingResult(output, finished, reused=True, resumed_from_step=None)

    tokenizer = load_tokenizer(base, trust_remote_code=trust_remote_code)
    plain = load_model(base, spec, dtype, trust_remote_code=trust_remote_code)
    encoded, dropped = encode_samples(samples, tokenizer, end_tokens(plain, tokenizer), spec.max_length)
    if not encoded:
        reasons = sorted({drop.reason for drop in dropped})
        raise TrainingError(
            f"none of {len(samples)} samples can be learned from (dropped as {reasons or 'none given'})"
        )

    # Mixed precision is torch's autocast below: accelerate would keep it in a state that is global to the process.
    accelerator = Accelerator(mixed_precision="no")
    run_key = hashlib.sha256(f"{base_id}\n{data}\n{config}".encode()).hexdigest()[:16]
    checkpoints = work_dir / f"finetune-{run_key}"
    with torch.random.fork_rng(devices=[accelerator.device] if accelerator.device.type == "cuda" else []):
        trainer = Trainer(plain, encoded, spec, seed, dtype, accelerator, padding=tokenizer.pad_token_id or 0)
        resumed_from = trainer.restore(load_checkpoint(checkpoints))
        trainer.train(checkpoints, on_progress)

    metrics = trainer.metrics()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        unfinished = output.with_name(f".{output.name}.unfinished")
        write_model(unfinished, merged(trainer.unwrapped), tokenizer, dtype)
        manifest = ModelManifest(
            model_id=content_id(unfinished),
            base_model_id=base_id,
            base_ref=base_ref or base.name,
            data_digest=data,
            config_digest=config,
            spec=spec,
            seed=seed,
            dtype=dtype,
            metrics=metrics,
            dropped=tuple(dropped),
            perseid_version=__version__,
            libraries=library_versions(),
        )
        commit(unfinished, output, manifest)
        discard_checkpoints(checkpoints)
    accelerator.wait_for_everyone()
    committed = _finished(output, base_id, data, config)
    if committed is None:
        raise TrainingError(f"{output} is not there after it was written: every process must see the same file system")
    return TrainingResult(output, committed, reused=False, resumed_from_step=resumed_from)


def _finished(output: Path, base_id: str, data: str, config: str) -> ModelManifest | None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    manifest = read_manifest(output) if output.is_dir() else None
    if manifest is None:
        raise TrainingError(f"{output} exists and is not a model of Perseid's. Remove it or choose another output")
    if (manifest.base_model_id, manifest.data_digest, manifest.config_digest) != (base_id, data, config):
        raise TrainingError(
            f"{output} holds a model of another base, other data or another configuration. Remove it or choose another "
            "output"
        )
    return manifest
