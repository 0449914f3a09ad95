"""Weights that are not needed any more are deleted from a bucket, too."""

from __future__ import annotations

from perseid.api.attempt import Attempt
from perseid.api.result import StageResult
from perseid.api.spec import EvolutionRun
from perseid.stages.context import StageContext
from perseid.stages.retention import delete_superseded_models
from perseid.stages.runtime import run_stage
from perseid.storage.objects import Objects


def test_models_that_were_not_promoted_are_deleted_and_the_start_model_is_not(root: str) -> None:
    objects = Objects(root)
    models = [f"generations/{generation:03d}/attempts/0/finetune/model/model.safetensors" for generation in range(3)]
    for key in models:
        objects.write(key, b"weights")
    run = EvolutionRun.model_validate({"metadata": {"name": "tiny"}, "spec": {"retainModels": "promoted"}})
    attempt = Attempt(
        run=run,
        run_id="6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11",
        generation=2,
        number=0,
        storage=root,
        start_model=f"{root}/generations/000/attempts/0/finetune/model",
    )

    async def body(context: StageContext) -> StageResult:
        delete_superseded_models(context)
        return StageResult(stage="convert", state="done")

    run_stage("convert", attempt, body)
    kept = {found.key for found in objects.list("generations")}
    assert [key in kept for key in models] == [True, False, True]
