"""Looks after the TrainJob of one stage, from its making to its end. Whatever ends the launcher ends the TrainJob:
an error, SIGTERM, or, where it cannot do so itself, Kubernetes, when the launcher's pod is deleted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from perseid.api.attempt import Attempt
from perseid.api.pipeline import QUEUE_LABEL
from perseid.api.stages import StageName
from perseid_trainjob.errors import TrainJobError
from perseid_trainjob.jobs import TrainJobs
from perseid_trainjob.manifest import LauncherPod, identity_labels, train_job

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
"""How often the TrainJob is looked at."""


def launch(
    attempt: Attempt,
    stage: StageName,
    pod: LauncherPod,
    jobs: TrainJobs,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Have a TrainJob run the stage, and return when it is complete. Raises TrainJobError.

    TrainJobs of earlier attempts at the stage, whose launcher was lost, are deleted first: they would hold GPUs for
    nothing.
    """
    manifest = train_job(attempt, stage, pod)
    name = manifest["metadata"]["name"]
    for other in jobs.names(identity_labels(attempt, stage)):
        if other != name:
            jobs.delete(other)
    try:
        jobs.ensure(manifest, pod)
        _wait(jobs, name, sleep)
    finally:
        jobs.delete(name)


def _wait(jobs: TrainJobs, name: str, sleep: Callable[[float], None]) -> None:
    told = ""
    while True:
        job = jobs.get(name)
        if job is None or job["metadata"].get("deletionTimestamp"):
            raise TrainJobError(
                f"the TrainJob {name} was deleted while it ran; if that was not meant, start the stage again: it goes"
                " on from its last checkpoint"
            )
        failed = _condition(job, "Failed")
        if failed is not None:
            raise TrainJobError(f"the TrainJob {name} has failed ({failed['reason']}): {failed['message']}")
        if _condition(job, "Complete") is not None:
            return
        now = _describe(job)
        if now != told:
            log.info("the TrainJob %s %s", name, now)
            told = now
        sleep(LOOK_SECONDS)


def _condition(job: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The condition of that type, where it is true."""
    conditions: list[Mapping[str, Any]] = (job.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind and one["status"] == "True"), None)


def _describe(job: Mapping[str, Any]) -> str:
    """What it is doing, for people."""
    suspended = _condition(job, "Suspended")
    queue = (job["metadata"].get("labels") or {}).get(QUEUE_LABEL)
    if suspended is not None or job["spec"].get("suspend"):
        return "is suspended" if queue is None else f"waits for quota in the queue {queue} of Kueue"
    counts = [
        f"{one['name']}: {one.get('active', 0)} active, {one.get('ready', 0)} ready, {one.get('failed', 0)} failed"
        for one in (job.get("status") or {}).get("jobsStatus") or []
    ]
    return "; ".join(["runs", *counts]) if counts else "is there, and Trainer has not said anything of it yet"
