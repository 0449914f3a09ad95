"""What the bodies of the pipeline's components call where a TrainJob runs their stage."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from perseid.api.attempt import Attempt
from perseid.api.base import replace
from perseid.api.layout import Layout, StorageError, is_remote
from perseid.api.pipeline import POD_NAME, POD_NAMESPACE, POD_UID
from perseid.api.result import StageResult
from perseid.api.stages import StageName
from perseid.stages.endings import MAX_MESSAGE
from perseid.stages.kfp import Parameters, attempt_of, run_component
from perseid.storage.stage import StageStorage
from perseid_trainjob.errors import TrainJobError
from perseid_trainjob.jobs import TrainJobs, connect
from perseid_trainjob.launcher import launch
from perseid_trainjob.manifest import LauncherPod

if TYPE_CHECKING:
    from kfp import dsl

log = logging.getLogger(__name__)


def launch_component(
    stage: StageName,
    parameters: Parameters,
    metrics: dsl.Metrics,
    *,
    model: dsl.Model,
    yields: dsl.Markdown | None = None,
) -> str:
    """Have a TrainJob run the stage, unless it is done, and publish what came of it as `run_component` does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    end_on_sigterm()
    attempt = attempt_of(parameters)
    run_on_nodes(attempt, stage, own_pod())
    return run_component(stage, parameters, metrics, model=model, yields=yields)


def end_on_sigterm() -> None:
    """End as by an error: the TrainJob is deleted on the way out."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def run_on_nodes(attempt: Attempt, stage: StageName, pod: LauncherPod) -> None:
    """Have a TrainJob run the stage until it is done. Raises TrainJobError, in the stage's own words where it failed.

    Where the stage did not come to words, they are put into its result: nobody looks into a launcher's log.
    """
    if not is_remote(attempt.storage):
        raise TrainJobError(
            f"the nodes of pipeline.trainJob meet in object storage, and {attempt.storage} is a directory: set"
            " storage.uri to s3://bucket/prefix, or remove trainJob"
        )
    storage = StageStorage(Layout.of(attempt), stage)
    before = storage.result()
    if before is not None and before.state == "done":
        return
    try:
        launch(attempt, stage, pod, TrainJobs(connect(), pod.namespace))
        ended = storage.result()
        if ended is None or ended.state != "done":
            raise TrainJobError(
                f"the TrainJob is complete, but stage {stage} has left no result in {storage.mirror.uri}: does the"
                " runtime start the command that it is given?"
            )
    except TrainJobError as error:
        ended = storage.result()
        if ended is not None and ended.state == "done":
            log.warning("stage %s is done all the same: %s", stage, error)
            return
        if ended is not None and ended != before:
            raise TrainJobError(f"{ended.error} ({error})") from error
        _put_into_words(storage, stage, ended, error)
        raise


def _put_into_words(storage: StageStorage, stage: StageName, before: StageResult | None, error: TrainJobError) -> None:
    """What earlier tries have used stays in the result."""
    words = str(error)[:MAX_MESSAGE]
    failed = StageResult(stage=stage, state="failed", error=words)
    if before is not None:
        failed = replace(before, state="failed", error=words)
    try:
        storage.mirror.replace_result(failed.model_dump_json(by_alias=True).encode())
    except StorageError as second:
        log.error("and why the stage failed could not be stored: %s", second)


def own_pod() -> LauncherPod:
    """This pod, as the pipeline's downward API has put it into the environment. Raises TrainJobError."""
    try:
        return LauncherPod(os.environ[POD_NAME], os.environ[POD_UID], os.environ[POD_NAMESPACE])
    except KeyError as error:
        raise TrainJobError(
            f"the environment lacks {error}, which the compiled pipeline sets: a TrainJob can only be launched from a"
            " pod of Kubeflow Pipelines"
        ) from error
