"""How the first node of a TrainJob calls the others to a training, through the stage's files in object storage.

The first node alone writes there. A call is a directory with the samples, the base and all settings; it names the try
that made it, because a try that was killed leaves its call behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from perseid.api.files import SAMPLES
from perseid.api.layout import is_remote
from perseid.api.pipeline import TrainJobSpec
from perseid.api.training import FinetuneSpec
from perseid.data.jsonl import read_jsonl, write_json, write_jsonl
from perseid.data.records import TrainingSample
from perseid.engines.models import resolve_model
from perseid.stages.context import StageContext
from perseid.stages.errors import StageError
from perseid.stages.lineage import MODEL, WORK, BaseModel
from perseid.stages.models import resolve_start_model
from perseid.storage.stage import StageStorage
from perseid.training.several import fine_tune_in_processes
from perseid.training.world import World

log = logging.getLogger(__name__)

CALLS, CALL = "nodes", "call.json"
"""Directory of a stage with a directory for each call, and what is in it, beside the samples."""


def world_of_nodes(job: TrainJobSpec) -> World:
    """The nodes that train together. Raises TrainingError or StageError where this process is on none of them."""
    world = World.of_nodes(os.environ)
    if world is None or world.nodes != job.num_nodes:
        found = "on none" if world is None else f"one of {world.nodes}"
        raise StageError(
            f"pipeline.trainJob wants training on {job.num_nodes} nodes, and this process is {found}: it must run in a"
            " TrainJob whose runtime has the ML policy of torch"
        )
    return world


@contextlib.contextmanager
def calling(
    context: StageContext,
    samples: Sequence[TrainingSample],
    base: BaseModel,
    spec: FinetuneSpec,
    options: Mapping[str, Any],
) -> Iterator[None]:
    """Call the other nodes to a training, as long as the context lasts. `options` are those of `fine_tune`."""
    mirror = storage_of(context).mirror
    reference = base.reference
    if reference != context.attempt.start_model and not is_remote(reference):
        reference = context.layout.location(base.resolved.path)  # a model that the stage itself has made
    calls = context.directory / CALLS
    shutil.rmtree(calls, ignore_errors=True)  # of a try that was killed
    place = calls / f"{mirror.token[:8]}-{time.time_ns()}"
    place.mkdir(parents=True)
    write_jsonl(place / SAMPLES, samples)
    told = {"token": mirror.token, "base": reference, "spec": spec.model_dump(mode="json"), "options": dict(options)}
    write_json(place / CALL, told)
    mirror.push()
    try:
        yield
    finally:
        shutil.rmtree(calls, ignore_errors=True)


def answer_calls(context: StageContext, world: World, heard: set[str]) -> None:
    """Train with the first node, where it calls and the call is not among those that were `heard`.

    Raises TrainingError where a process of the training ends, on whatever node.
    """
    storage = storage_of(context)
    for name in storage.committed(context.stage, f"{CALLS}/"):
        if name.endswith(f"/{CALL}") and name not in heard:
            call = _fetched(context, storage, context.directory / name)
            heard.add(name)  # not before: where it could not be fetched it is still to be answered
            # One of a try that was killed is not for us: the next try calls anew.
            if call is not None and call["token"] == storage.writer(context.stage):
                _answer(context, call, context.directory / name, world)


def _fetched(context: StageContext, storage: StageStorage, path: Path) -> dict[str, Any] | None:
    """A call, with its samples beside it; None where it was over in that moment."""
    for each in (path.with_name(SAMPLES), path):
        storage.fetch_output(context.stage, each.relative_to(context.directory).as_posix())
        if not each.exists():
            return None
    call: dict[str, Any] = json.loads(path.read_bytes())
    return call


def _answer(context: StageContext, call: Mapping[str, Any], path: Path, world: World) -> None:
    log.info("training with the first node, from %s", call["base"])
    if call["base"] == context.attempt.start_model:
        base = asyncio.run(resolve_start_model(context))
    else:
        base = resolve_model(call["base"])
    base.fetch_weights()
    fine_tune_in_processes(
        world,
        read_jsonl(path.with_name(SAMPLES), TrainingSample, may_be_empty=True),
        base.path,
        context.directory / MODEL,
        context.directory / WORK,
        FinetuneSpec.model_validate(call["spec"]),
        **call["options"],
    )


def storage_of(context: StageContext) -> StageStorage:
    """Where the nodes meet. Raises StageError where that is a directory."""
    if context.storage is None:
        raise StageError(
            f"the nodes of pipeline.trainJob meet in object storage, and {context.attempt.storage} is a directory: set"
            " storage.uri to s3://bucket/prefix, or remove trainJob"
        )
    return context.storage
