"""A stage on the nodes of a TrainJob: `python -m perseid.stages.nodes STAGE ARGUMENTS`, on each of them.

The first node runs the stage, as a pod of its own would. The others train with it when it calls them, write nothing,
and end when the stage has ended.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
import time

from perseid.api.attempt import Attempt
from perseid.api.layout import PROGRESS, RESULT, Layout, StorageError, is_remote, read_stage_result
from perseid.api.stages import TRAIN_JOB_STAGES, module_of
from perseid.processes import die_with_starter
from perseid.stages.calls import answer_calls, storage_of, world_of_nodes
from perseid.stages.context import StageContext
from perseid.stages.errors import StageError
from perseid.stages.progress import ProgressWriter
from perseid.stages.runtime import run_stage
from perseid.storage.errors import StorageRefusedError
from perseid.storage.stage import StageStorage
from perseid.training.world import World

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""How often a node looks whether it is called."""


def run_node(name: str, attempt: Attempt) -> None:
    """What one node does, until the stage is done. Raises whatever stopped it."""
    job = attempt.run.spec.pipeline.train_job
    if job is None or name not in TRAIN_JOB_STAGES:
        raise StageError(
            f"stage {name} does not run on several nodes: with pipeline.trainJob, {', '.join(TRAIN_JOB_STAGES)} do"
        )
    world = world_of_nodes(job)
    if world.node == 0:
        run_stage(name, attempt, importlib.import_module(f"perseid.stages.{module_of(name)}").run)
        return
    layout = Layout.of(attempt)
    storage = StageStorage(layout, name) if is_remote(attempt.storage) else None
    directory = layout.stage(name)
    directory.mkdir(parents=True, exist_ok=True)
    help_train(StageContext(attempt, layout, directory, ProgressWriter(directory / PROGRESS, name), storage), world)


def help_train(context: StageContext, world: World) -> None:
    """Train whenever the first node calls, until its stage is done. Raises TrainingError as `answer_calls` does.

    An outage of the storage is waited for: the first node may be training all the while.
    """
    storage = storage_of(context)
    heard: set[str] = set()
    while True:
        try:
            storage.fetch_output(context.stage, RESULT)
            result = read_stage_result(context.directory)
            # One that failed may be of an earlier try. If it is of this one, the TrainJob ends, and this node with it.
            if result is not None and result.state == "done":
                return
            answer_calls(context, world, heard)
        except StorageRefusedError:
            raise
        except StorageError as error:
            log.warning("not looked for a call, and tried again in %g s: %s", LOOK_SECONDS, error)
        time.sleep(LOOK_SECONDS)


def main(name: str, attempt: str) -> None:
    """The process of a node. `attempt`: its `arguments`, as JSON."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # as in perseid.stages.kfp
    die_with_starter()
    # A container's first process does not end at it by itself. The first node's stage has a way of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run_node(name, Attempt.of_arguments(json.loads(attempt)))


if __name__ == "__main__":
    main(*sys.argv[1:])
