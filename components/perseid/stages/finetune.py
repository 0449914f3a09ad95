"""Stage 3: train on the records. Reads `samples.jsonl`; writes `model/` with its manifest, or nothing where there is
too little to learn from."""

from __future__ import annotations

import shutil

from perseid.api.files import SAMPLES
from perseid.api.result import StageResult
from perseid.data.jsonl import read_jsonl
from perseid.data.records import TrainingSample
from perseid.stages.context import StageContext
from perseid.stages.lineage import MODEL, WORK, resolve_base_model
from perseid.stages.training import train_on_samples


async def run(context: StageContext) -> StageResult:
    """Train, unless there are fewer records than the spec asks for."""
    spec = context.spec.finetune
    samples = read_jsonl(context.output("convert", SAMPLES), TrainingSample, may_be_empty=True)
    if len(samples) < spec.min_samples:
        return StageResult(
            stage="finetune", state="done", counts={"samples": len(samples), "steps": 0}, metrics={"trained": 0.0}
        )
    base = await resolve_base_model(context)
    result = await train_on_samples(context, samples, base, context.directory / MODEL, context.directory / WORK)
    shutil.rmtree(context.directory / WORK, ignore_errors=True)
    metrics = result.manifest.metrics
    return StageResult(
        stage="finetune",
        state="done",
        counts={"samples": len(samples), "steps": metrics.steps},
        metrics={"trained": 1.0, "samples": len(samples), "steps": metrics.steps, "final_loss": metrics.final_loss},
    )
