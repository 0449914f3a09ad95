"""Runs that are carried out in a cluster: a pod for each stage, one after the other, and those of a loop side by side,
as Argo's controller does it.

All state is in the cluster and in files of the double's: one that is killed goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes_asyncio import client
from kubernetes_asyncio.client.exceptions import ApiException

from kfp_double.executing import attempt_of, is_of_its_run
from kfp_double.failures import INVALID, Failure
from kfp_double.parts import ClusterUnreachableError, Look
from kfp_double.stage_pods import WORKFLOW_LABEL, PlannedPod, delay_of, plan_pods, returned, stage_pod

FAILED, DELETED = 1, 137


@dataclass(frozen=True)
class End:
    """What has become of a pod."""

    code: int | None
    """None while it runs."""
    start: int | None = None
    end: int | None = None
    output: str = ""
    words: str = ""
    """Argo's, of one that failed."""
    node: dict[str, Any] | None = None
    """It as Argo's Workflows show it; None where it is not there."""


class PodExecutor:
    """Makes the pods of each Workflow in one namespace."""

    def __init__(self, api: client.ApiClient, namespace: str, directory: Path) -> None:
        """`directory`: of what must survive the double: the posted pipelines, and which pods have been made."""
        self._pods = client.CoreV1Api(api)
        self._namespace = namespace
        self._directory = directory
        self._compiling = asyncio.Lock()

    async def check(self, spec: dict[str, Any], parameters: dict[str, Any]) -> None:
        """Raises Failure where the pipeline is not the one that perseid.pipelines compiles for the run in it."""
        attempt = attempt_of(parameters)
        async with self._compiling:
            fits = await asyncio.to_thread(is_of_its_run, spec["pipeline_spec"], spec.get("platform_spec"), attempt.run)
        if not fits:
            raise Failure(INVALID, "the posted pipeline is not what perseid.pipelines compiles for its run")
        self._directory.mkdir(parents=True, exist_ok=True)
        _write(self._directory / f"{parameters['run_id']}.json", spec)

    async def start(self, workflow: dict[str, Any]) -> None:
        spec = self._spec(workflow)
        pods, _ = plan_pods(workflow, workflow["tasks"][0]["name"], spec, {})
        for planned in pods:
            await self._make(workflow, planned, spec)

    async def look(self, workflow: dict[str, Any]) -> Look:
        tasks = [
            {"name": task["name"], "retried": task["retried"], "state": None, **_times(task)}
            for task in workflow["tasks"]
        ]
        spec, outputs = self._spec(workflow), dict[str, Any]()
        for task in tasks:
            name = task["name"]
            pods, is_loop = plan_pods(workflow, name, spec, outputs)
            missing = [planned for planned in pods if not self._made(planned).exists()]
            if missing:
                # The one before it has ended just now, or the double died before all were made.
                for planned in missing:
                    await self._make(workflow, planned, spec)
                task["state"] = "RUNNING"
                return Look(None, tasks)
            ends = [await self._look_at(planned) for planned in pods]
            task["pods"] = [one.node for one in ends if one.node is not None]
            started = [one.start for one in ends if one.start is not None]
            task["start"] = min(started, default=int(workflow["started_at"] or workflow["created_at"]))
            if any(one.code is None for one in ends):
                task["state"] = "RUNNING"
                return Look(None, tasks)
            task["end"] = max((one.end for one in ends if one.end is not None), default=task["start"])
            failed = [one for one in ends if one.code]
            if failed:
                task["state"] = "FAILED"
                return Look(failed[0].code, tasks, failed[0].words)
            task["state"] = "SUCCEEDED"
            given = [one.output for one in ends]
            outputs[name] = given if is_loop else given[0]
        return Look(0, tasks)

    async def _look_at(self, planned: PlannedPod) -> End:
        pod = await self._read(planned.name)
        if pod is None:
            return End(DELETED, words="pod deleted")
        start = int(pod.metadata.creation_timestamp.timestamp())
        node = {"name": planned.node, "phase": pod.status.phase, "startedAt": start, "message": delay_of(pod)}
        if pod.status.phase in ("Pending", "Running", "Unknown"):
            return End(None, start, node=node)
        terminated = _terminated(pod)
        ended = None if terminated is None or terminated.finished_at is None else terminated.finished_at
        end = start if ended is None else int(ended.timestamp())
        if pod.status.phase != "Succeeded":
            words = _words(pod, terminated)
            return End(FAILED, start, end, words=words, node={**node, "message": words})
        try:
            return End(0, start, end, returned(terminated.message or "" if terminated is not None else ""), node=node)
        except ValueError as error:
            print(f"{planned.name}: {error}", file=sys.stderr)
            return End(FAILED, start, end, words=str(error), node=node)

    async def stop(self, workflow: dict[str, Any]) -> None:
        """Delete the run's pods, as Kubernetes does with those of a Workflow: they get SIGTERM and their grace."""
        _write(self._stopped(workflow), True)
        await self._delete(workflow)

    async def _delete(self, workflow: dict[str, Any]) -> None:
        await _answered(
            self._pods.delete_collection_namespaced_pod(
                self._namespace, label_selector=f"{WORKFLOW_LABEL}={workflow['name']}"
            )
        )

    async def _make(self, workflow: dict[str, Any], planned: PlannedPod, spec: dict[str, Any]) -> None:
        try:
            await _answered(self._pods.create_namespaced_pod(self._namespace, stage_pod(workflow, planned, spec)))
        except ApiException as error:
            if error.status != 409:  # made, and not yet written down, by a double that died
                raise
        # A pod that somebody deletes afterwards is not made again.
        _write(self._made(planned), True)
        if self._stopped(workflow).exists():
            await self._delete(workflow)

    async def _read(self, name: str) -> Any:
        """None where it is not there."""
        try:
            return await _answered(self._pods.read_namespaced_pod(name, self._namespace))
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def _stopped(self, workflow: dict[str, Any]) -> Path:
        return self._directory / f"{workflow['name']}.stopped"

    def _made(self, planned: PlannedPod) -> Path:
        return self._directory / f"{planned.name}.made"

    def _spec(self, workflow: dict[str, Any]) -> dict[str, Any]:
        """What was posted."""
        found: dict[str, Any] = json.loads((self._directory / f"{workflow['parameters']['run_id']}.json").read_text())
        return found


async def _answered(call: Any) -> Any:
    """What the cluster answers. Raises ClusterUnreachableError, after which the double tries again."""
    try:
        async with asyncio.timeout(10):
            return await call
    except ApiException as error:
        if error.status is not None and error.status < 500:
            raise
        raise ClusterUnreachableError(str(error.reason)) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ClusterUnreachableError(str(error) or type(error).__name__) from error


def _terminated(pod: Any) -> Any:
    """How the pod's container ended; None where that is not known."""
    statuses = (pod.status.container_statuses or []) if pod is not None else []
    return statuses[0].state.terminated if statuses else None


def _words(pod: Any, terminated: Any) -> str:
    """What Argo says of a pod that failed: the pod's own message, else how its main container ended."""
    if pod.status.message:
        return str(pod.status.message)
    if terminated is None:
        return "pod failed: neither main nor wait container completed successfully"
    return f"main: {terminated.reason} (exit code {terminated.exit_code})"


def _times(task: dict[str, Any]) -> dict[str, Any]:
    return {name: task[name] for name in ("start", "end") if name in task}


def _write(path: Path, value: Any) -> None:
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(value))
    scratch.rename(path)
