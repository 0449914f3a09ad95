"""Runs that are carried out in a cluster: a pod for each stage, one after the other, as Argo's controller does it.

All state is in the cluster and in files of the double's: one that is killed goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes_asyncio import client
from kubernetes_asyncio.client.exceptions import ApiException

from kfp_double.executing import attempt_of, is_of_its_run
from kfp_double.failures import INVALID, Failure
from kfp_double.parts import ClusterUnreachableError, Look
from kfp_double.stage_pods import WORKFLOW_LABEL, pod_name, returned, stage_pod, tasks_without_a_pod

FAILED, DELETED = 1, 137


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
        if loops := tasks_without_a_pod(spec):
            raise Failure(
                INVALID, f"this double makes pods of tasks, and none of loops: {loops}; set pipeline.shards to 1"
            )
        self._directory.mkdir(parents=True, exist_ok=True)
        _write(self._directory / f"{parameters['run_id']}.json", spec)

    async def start(self, workflow: dict[str, Any]) -> None:
        await self._make(workflow, workflow["tasks"][0]["name"], {})

    async def look(self, workflow: dict[str, Any]) -> Look:
        tasks = [
            {"name": task["name"], "retried": task["retried"], "state": None, **_times(task)}
            for task in workflow["tasks"]
        ]
        outputs: dict[str, str] = {}
        for task in tasks:
            name = task["name"]
            if not self._made(workflow, name).exists():
                # The one before it has ended just now, or the double died before it was made.
                await self._make(workflow, name, outputs)
                task["state"] = "RUNNING"
                return Look(None, tasks)
            pod = await self._read(pod_name(workflow, name))
            phase = "Deleted" if pod is None else str(pod.status.phase)
            if pod is not None:
                task["start"] = int(pod.metadata.creation_timestamp.timestamp())
            if phase in ("Pending", "Running", "Unknown"):
                task["state"] = "RUNNING"
                return Look(None, tasks)
            terminated = _terminated(pod)
            if terminated is not None and terminated.finished_at is not None:
                task["end"] = int(terminated.finished_at.timestamp())
            task.setdefault("start", int(workflow["started_at"] or workflow["created_at"]))
            task.setdefault("end", task["start"])
            if phase != "Succeeded":
                task["state"] = "FAILED"
                return Look(DELETED if pod is None else FAILED, tasks)
            try:
                outputs[name] = returned(terminated.message or "" if terminated is not None else "")
            except ValueError as error:
                print(f"{pod_name(workflow, name)}: {error}", file=sys.stderr)
                task["state"] = "FAILED"
                return Look(FAILED, tasks)
            task["state"] = "SUCCEEDED"
        return Look(0, tasks)

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

    async def _make(self, workflow: dict[str, Any], task: str, outputs: dict[str, str]) -> None:
        spec = json.loads((self._directory / f"{workflow['parameters']['run_id']}.json").read_text())
        try:
            await _answered(self._pods.create_namespaced_pod(self._namespace, stage_pod(workflow, task, spec, outputs)))
        except ApiException as error:
            if error.status != 409:  # made, and not yet written down, by a double that died
                raise
        # A pod that somebody deletes afterwards is not made again.
        _write(self._made(workflow, task), True)
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

    def _made(self, workflow: dict[str, Any], task: str) -> Path:
        return self._directory / f"{pod_name(workflow, task)}.made"


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


def _times(task: dict[str, Any]) -> dict[str, Any]:
    return {name: task[name] for name in ("start", "end") if name in task}


def _write(path: Path, value: Any) -> None:
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(value))
    scratch.rename(path)
