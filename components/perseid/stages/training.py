"""Training as stages do it: with the spec's settings, in a thread, with its progress told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from perseid.api.base import replace
from perseid.api.meteor import SelfEvolutionSpec
from perseid.data.records import PreferencePair, TrainingSample
from perseid.engines.probe import probe
from perseid.stages.calls import calling, world_of_nodes
from perseid.stages.context import StageContext
from perseid.stages.lineage import BaseModel
from perseid.training.finetune import TrainingResult, fine_tune
from perseid.training.manifest import TrainingDType
from perseid.training.preference import prefer
from perseid.training.several import fine_tune_in_processes
from perseid.training.trainer import TrainingProgress
from perseid.training.world import World


async def train_on_samples(
    context: StageContext,
    samples: Sequence[TrainingSample],
    base: BaseModel,
    output: Path,
    work: Path,
    task: str = "training",
    learning_rate: float | None = None,
) -> TrainingResult:
    """Fine-tune `base` on the samples and commit the model to `output`; `learning_rate` where it is not the spec's.

    Raises TrainingError.
    """
    spec = context.spec.finetune
    if learning_rate is not None:
        spec = replace(spec, learning_rate=learning_rate)

    def train() -> TrainingResult:
        options: dict[str, Any] = {
            "seed": context.seed,
            "dtype": _training_dtype(context),
            "base_model_id": base.resolved.model_id,
            "base_ref": base.reference,
            "trust_remote_code": context.spec.model.trust_remote_code,
        }
        job = context.spec.pipeline.train_job
        world = World(training_processes(context)) if job is None else world_of_nodes(job)
        with contextlib.nullcontext() if job is None else calling(context, samples, base, spec, options):
            base.resolved.fetch_weights()
            what = (samples, base.resolved.path, output, work, spec)
            told = _teller(context, task)
            if world.size == 1:
                return fine_tune(*what, on_progress=told, **options)
            result = fine_tune_in_processes(world, *what, on_progress=told, **options)
        assert result is not None, "the stage is on the first node"
        return result

    return await asyncio.to_thread(train)


async def train_on_pairs(
    context: StageContext,
    pairs: Sequence[PreferencePair],
    base: BaseModel,
    output: Path,
    work: Path,
    spec: SelfEvolutionSpec,
    task: str = "training on pairs",
) -> TrainingResult:
    """Train `base` to prefer each pair's chosen answer and commit the model to `output`. Raises TrainingError."""

    def train() -> TrainingResult:
        base.resolved.fetch_weights()
        return prefer(
            pairs,
            base.resolved.path,
            output,
            work,
            spec,
            context.spec.finetune,
            seed=context.seed,
            dtype=_training_dtype(context),
            on_progress=_teller(context, task),
            base_model_id=base.resolved.model_id,
            base_ref=base.reference,
            trust_remote_code=context.spec.model.trust_remote_code,
        )

    return await asyncio.to_thread(train)


def training_processes(context: StageContext) -> int:
    """What the spec says; else one for each GPU that the stage asks for and finds."""
    spec = context.spec
    asked = spec.pipeline.stages.of(context.stage).gpus
    return spec.finetune.processes or max(1, min(asked, torch.cuda.device_count()))


def _training_dtype(context: StageContext) -> TrainingDType:
    found = probe(context.spec.model.dtype).dtype
    # float16 has too little range for gradients without loss scaling; such a model is trained in float32.
    return "float32" if found == "float16" else found


def _teller(context: StageContext, task: str) -> Callable[[TrainingProgress], None]:
    context.progress.begin(task, unit="steps")
    first = True

    def tell(progress: TrainingProgress) -> None:
        nonlocal first
        if first:
            # The steps of an earlier, interrupted try come with the first one: they are no part of this try's rate.
            context.progress.begin(task, progress.total_steps, "steps", done=progress.step - 1)
            first = False
        context.progress.update(progress.step, note=f"loss {progress.loss:.3f}")

    return tell
