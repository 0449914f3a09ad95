"""What the bodies of the pipeline's components call: parameters in, result and KFP artifacts out."""

from __future__ import annotations

import functools
import importlib
import logging
import os
from typing import TYPE_CHECKING, Any

from perseid.api.attempt import Attempt
from perseid.api.layout import RESULT, Layout
from perseid.api.result import StageResult
from perseid.api.stages import STAGES, StageName, module_of, shard_name
from perseid.processes import die_with_starter
from perseid.stages.artifacts import StageArtifacts
from perseid.stages.cache import prepare_cache
from perseid.stages.context import StageBody, StageContext
from perseid.stages.runtime import run_stage

if TYPE_CHECKING:
    from kfp import dsl


Parameters = tuple[dict[str, Any], str, int, int, str, str]
"""run, run_id, generation, attempt, storage, start_model: as `Attempt.arguments` gives them."""


def attempt_of(parameters: Parameters) -> Attempt:
    """The parameters of a component as what they mean."""
    names = ("run", "run_id", "generation", "attempt", "storage", "start_model")
    return Attempt.of_arguments(dict(zip(names, parameters, strict=True)))


def run_component(
    name: StageName,
    parameters: Parameters,
    metrics: dsl.Metrics,
    *,
    model: dsl.Model | None = None,
    yields: dsl.Markdown | None = None,
    generation: tuple[dsl.Metrics, dsl.HTML, dsl.Model] | None = None,
    shard: int | None = None,
) -> str:
    """Run stage `name`, or its shard of that number from 0, and publish its metrics and its other artifacts; returns
    where its result.json lies. `generation`: what the last stage says of the generation, as `StageArtifacts` does.
    """
    if name not in STAGES:
        raise ValueError(f"no stage is called {name}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    die_with_starter()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a log is no place for bars that redraw themselves
    attempt = attempt_of(parameters)
    module = importlib.import_module(f"perseid.stages.{module_of(name)}")
    part: str = name
    body = module.run
    if shard is not None:
        part, body = shard_name(int(shard)), functools.partial(module.run_shard, shard=int(shard))
    result = run_stage(part, attempt, functools.partial(_run_with_cache, body))
    for key, value in sorted(result.metrics.items()):
        metrics.log_metric(key, value)
    if model is not None or yields is not None or generation is not None:
        artifacts = StageArtifacts(attempt, name, result)
        if model is not None:
            artifacts.model(model)
        if yields is not None:
            artifacts.yields(yields)
        if generation is not None:
            artifacts.generation(*generation)
    layout = Layout.of(attempt)
    return layout.location(layout.stage(part) / RESULT)


async def _run_with_cache(body: StageBody, context: StageContext) -> StageResult:
    prepare_cache(context.spec.pipeline)
    return await body(context)
