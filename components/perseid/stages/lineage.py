"""Models that an attempt makes on its way: each training stage goes on from the one before."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from perseid.api.stages import LAST_STAGE, StageName
from perseid.engines.models import ResolvedModel, resolve_model
from perseid.stages.context import StageContext
from perseid.stages.files import link_or_copy
from perseid.stages.models import resolve_start_model
from perseid.training.manifest import MANIFEST_NAME

MODEL = "model"
"""Directory of a stage's model, below the stage's own."""
WORK = "work"
"""Directory of a training's checkpoints; gone when the training is over."""


@dataclass(frozen=True, slots=True)
class MadeModel:
    """A model that a stage of this attempt has made."""

    stage: StageName
    reference: str
    """Where it lies, as a reference that outlives this machine."""


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A model that a stage starts from."""

    reference: str
    """What it is called: a reference, or where it lies."""
    resolved: ResolvedModel


def made_models(context: StageContext, before: StageName = LAST_STAGE) -> list[MadeModel]:
    """The models of the stages before that one, in the stages' order. A stage that had too little to learn from, or
    whose training was rolled back, has made none."""
    stages = context.spec.stages
    made = []
    for stage in stages[: stages.index(before)]:
        manifest = context.output(stage, f"{MODEL}/{MANIFEST_NAME}")
        if manifest.exists():
            made.append(MadeModel(stage, context.layout.location(manifest.parent.resolve())))
    return made


async def resolve_base_model(context: StageContext) -> BaseModel:
    """The model that this stage goes on from: the newest of the attempt, or the generation's start model."""
    made = await asyncio.to_thread(made_models, context, context.stage)
    if not made:
        return BaseModel(context.attempt.start_model, await resolve_start_model(context))
    reference = made[-1].reference
    return BaseModel(reference, await asyncio.to_thread(resolve_model, reference))


def commit_model(source: Path, target: Path) -> None:
    """Make a model that the stage has tried the stage's own, in one step. Its weights are linked where they can be."""
    if target.exists():
        return
    scratch = target.with_name(f".{target.name}.commit")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source, scratch, copy_function=link_or_copy)
    scratch.rename(target)
