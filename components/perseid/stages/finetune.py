"""Stage 3: train on the records. Reads `samples.jsonl`; writes `model/` with its manifest, or nothing where there is
too little to learn from."""

from __future__ import annotations

import asyncio
import shutil

from perseid.api.result import StageResult
from perseid.data.jsonl import read_jsonl
from perseid.data.records import TrainingSample
from perseid.engines.models import ResolvedModel
from perseid.engines.probe import probe
from perseid.stages.context import StageContext
from perseid.stages.convert import SAMPLES
from perseid.stages.models import resolve_start_model
from perseid.training.finetune import TrainingResult, fine_tune
from perseid.training.manifest import MANIFEST_NAME
from perseid.training.trainer import TrainingProgress

MODEL = "model"
WORK = "work"


async def run(context: StageContext) -> StageResult:
    """Train, unless there are fewer records than the spec asks for."""
    spec = context.spec.finetune
    samples = read_jsonl(context.output("convert", SAMPLES), TrainingSample, may_be_empty=True)
    if len(samples) < spec.min_samples:
        return StageResult(
            stage="finetune", state="done", counts={"samples": len(samples), "steps": 0}, metrics={"trained": 0.0}
        )
    base = await resolve_start_model(context)
    result = await asyncio.to_thread(_train, context, samples, base)
    shutil.rmtree(context.directory / WORK, ignore_errors=True)
    metrics = result.manifest.metrics
    return StageResult(
        stage="finetune",
        state="done",
        counts={"samples": len(samples), "steps": metrics.steps},
        metrics={"trained": 1.0, "samples": len(samples), "steps": metrics.steps, "final_loss": metrics.final_loss},
    )


def _train(context: StageContext, samples: list[TrainingSample], base: ResolvedModel) -> TrainingResult:
    base.fetch_weights()
    spec = context.spec
    found = probe(spec.model.dtype).dtype
    # float16 has too little range for gradients without loss scaling; such a model is trained in float32.
    dtype = "float32" if found == "float16" else found
    context.progress.begin("training", unit="steps")
    first = True

    def tell(progress: TrainingProgress) -> None:
        nonlocal first
        if first:
            # The steps of an earlier, interrupted try come with the first one: they are no part of this try's rate.
            context.progress.begin("training", progress.total_steps, "steps", done=progress.step - 1)
            first = False
        context.progress.update(progress.step, note=f"loss {progress.loss:.3f}")

    return fine_tune(
        samples,
        base.path,
        context.directory / MODEL,
        context.directory / WORK,
        spec.finetune,
        seed=context.seed,
        dtype=dtype,
        on_progress=tell,
        base_model_id=base.model_id,
        base_ref=context.attempt.start_model,
        trust_remote_code=spec.model.trust_remote_code,
    )


def trained_model(context: StageContext) -> str | None:
    """Where this attempt's model lies, as a reference that outlives this machine; None where none was trained."""
    manifest = context.output("finetune", f"{MODEL}/{MANIFEST_NAME}")
    return context.layout.location(manifest.parent.resolve()) if manifest.exists() else None
