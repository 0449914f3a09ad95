"""What the server does with runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from kfp_double import specs
from kfp_double.answers import run_json
from kfp_double.clock import Clock
from kfp_double.failures import ABORTED, INTERNAL, INVALID, NOT_FOUND, Drop, DroppedError, Failure
from kfp_double.parts import ClusterUnreachableError, Executor, Script
from kfp_double.simulation import Simulation
from kfp_double.store import DuplicateError, Store

FINAL = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
LARGEST_BODY = 4 * 1024 * 1024
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
ClientGone = Callable[[], Awaitable[None]]
"""Returns when the client of the request has closed its connection."""


class Rate:
    """At most so many a second, after a burst. Whoever comes too early waits."""

    def __init__(self, clock: Clock, rate: float, burst: int) -> None:
        self._clock = clock
        self._each = 1.0 / rate
        self._ahead = (burst - 1) / rate
        self._next = 0.0

    async def turn(self) -> None:
        now = self._clock.now()
        due = max(self._next, now)
        self._next = due + self._each
        if due - self._ahead > now:
            await self._clock.sleep(due - self._ahead - now)


class RunsApi:
    """Create, terminate, retry, archive, delete."""

    def __init__(self, store: Store, clock: Clock, simulation: Simulation, executor: Executor | None) -> None:
        self._store = store
        self._clock = clock
        self._simulation = simulation
        self._executor = executor
        self._rate = Rate(clock, simulation.timing.rate, simulation.timing.burst)
        self.script_for: Callable[[dict[str, Any]], Script] = lambda run: Script()
        """The script of a run, from what was posted."""
        self.kubernetes_up = True
        self.database_up = True

    def row(self, run_id: str) -> dict[str, Any]:
        row = self._store.get("runs", run_id=run_id)
        if row is None:
            raise Failure(NOT_FOUND, f"Failed to find the run: ResourceNotFoundError: Run {run_id} not found.")
        return row

    async def create(self, body: bytes, drop: Drop | None, client_gone: ClientGone) -> dict[str, Any]:
        """Workflow first, row afterwards, nothing taken back."""
        await self._lose(drop, "request", client_gone)
        posted, pipeline, parameters = await self._check(body)
        run_id = posted.get("run_id") or str(uuid.uuid4())
        await self._rate.turn()
        await self._clock.sleep(self._simulation.timing.create)
        if not self.kubernetes_up:
            raise Failure(INTERNAL, "Failed to create a workflow: connection refused")
        if len(body) > specs.MAX_OBJECT:
            raise Failure(INTERNAL, "Failed to create a workflow: etcdserver: request is too large")
        if not _LABEL_VALUE.fullmatch(run_id):
            raise Failure(INTERNAL, f"Failed to create a workflow: {run_id!r} is an invalid label value")
        script = self.script_for(posted)
        try:
            workflow = await self._simulation.create_workflow(
                run_id, pipeline.name, pipeline.tasks, pipeline.retried, script, parameters
            )
        except ClusterUnreachableError as error:
            raise Failure(INTERNAL, f"Failed to create a workflow: {error}") from None
        await self._lose(drop, "workflow", client_gone)
        row = self._insert(run_id, posted, workflow)
        await self._lose(drop, "row", client_gone)
        return run_json(row)

    async def terminate(self, run_id: str) -> None:
        row = self.row(run_id)
        if row["state"] in (*FINAL, "CANCELING"):
            raise Failure(INVALID, "Failed to terminate a run: InvalidArgument: Row not found")
        self._set_state(row, "CANCELING")
        if not self.kubernetes_up:
            self._simulation.report_soon(row["workflow"])
            await self._clock.sleep(self._simulation.timing.kubernetes_down)
            raise Failure(INTERNAL, "Failed to terminate a run: connection refused")
        if self._simulation.workflow(row["workflow"]) is None:
            await self._clock.sleep(self._simulation.timing.workflow_gone)
            raise Failure(INTERNAL, "Failed to terminate a run: the workflow was not found")
        await self._simulation.terminate(row["workflow"])

    async def retry(self, run_id: str) -> None:
        row = self.row(run_id)
        if row["state"] != "FAILED":
            raise Failure(ABORTED, f"Failed to retry a run: it is {row['state']}, and only FAILED ones can be retried")
        if not row["reported"]:
            raise Failure(ABORTED, "Failed to retry a run: Workflow manifest cannot be empty")
        await self._simulation.retry(row["workflow"])
        self._store.count("executions", run_id)
        self._set_state(row, "RUNNING")

    async def start_again(self, run_id: str, script: Script) -> None:
        """A second Workflow under the run's id, of which its row knows nothing."""
        row = self.row(run_id)
        pipeline = specs.check_pipeline(row["pipeline_spec"])
        parameters = row["runtime_config"].get("parameters") or {}
        await self._simulation.create_workflow(
            row["run_id"], pipeline.name, pipeline.tasks, pipeline.retried, script, parameters
        )

    async def delete(self, run_id: str) -> None:
        row = self.row(run_id)
        if self.kubernetes_up:
            await self._rate.turn()
            # KFP says that it has deleted the run, whatever becomes of the Workflow.
            with contextlib.suppress(ClusterUnreachableError):
                await self._simulation.remove_workflow(row["workflow"])
        self._store.delete("runs", run_id=run_id)

    def set_storage_state(self, run_id: str, state: str) -> None:
        self.row(run_id)
        self._store.update("runs", {"run_id": run_id}, storage_state=state)

    def _set_state(self, row: dict[str, Any], state: str) -> None:
        history = [*row["history"], {"at": self._clock.now(), "state": state}]
        self._store.update("runs", {"run_id": row["run_id"]}, state=state, history=history, finished_at=None)

    async def _check(self, body: bytes) -> tuple[dict[str, Any], specs.Pipeline, dict[str, Any]]:
        if len(body) >= LARGEST_BODY:
            raise Failure(INTERNAL, "received message larger than max")
        try:
            posted = json.loads(body)
        except ValueError:
            raise Failure(INVALID, "the request is not JSON") from None
        specs.parse(posted, "V2beta1Run")
        if not posted.get("display_name"):
            raise Failure(INTERNAL, "Failed to create a run: the run name is empty")
        experiment_id = posted.get("experiment_id") or DEFAULT_EXPERIMENT
        if self._store.get("experiments", experiment_id=experiment_id) is None:
            raise Failure(NOT_FOUND, f"Failed to create a run: Experiment {experiment_id} not found.")
        spec = posted.get("pipeline_spec")
        pipeline = specs.check_pipeline(spec)
        parameters = (posted.get("runtime_config") or {}).get("parameters") or {}
        specs.check_parameters(spec, parameters)
        if self._executor is not None:
            await self._executor.check(spec, parameters)
        return posted, pipeline, parameters

    def _insert(self, run_id: str, posted: dict[str, Any], workflow: str) -> dict[str, Any]:
        if not self.database_up:
            raise Failure(INTERNAL, "Failed to store the run: invalid connection")
        now = self._clock.now()
        for name in ("display_name", "description"):
            if len(posted.get(name) or "") > 255:
                raise Failure(INTERNAL, f"Failed to store the run: Error 1406 (22001): Data too long for '{name}'")
        stored = {name: value for name, value in posted.items() if name not in {"state", "created_at"}}
        if max(json.dumps(stored, ensure_ascii=False)) > "\uffff":
            raise Failure(INTERNAL, "Failed to store the run: Error 1366 (22007): Incorrect string value")
        scheduled = posted.get("scheduled_at")
        row = {
            "run_id": run_id,
            "experiment_id": posted.get("experiment_id") or DEFAULT_EXPERIMENT,
            "display_name": posted["display_name"],
            "description": posted.get("description") or "",
            "storage_state": posted.get("storage_state") or "AVAILABLE",
            "service_account": posted.get("service_account") or "pipeline-runner",
            "pipeline_spec": posted["pipeline_spec"],
            "runtime_config": posted.get("runtime_config") or {},
            "created_at": now,
            "scheduled_at": datetime.fromisoformat(scheduled).timestamp() if scheduled else now,
            "finished_at": None,
            "state": "PENDING",
            "history": [{"at": now, "state": "PENDING"}],
            "tasks": [],
            "workflow": workflow,
            "hide_state": 0,
        }
        try:
            self._store.insert("runs", **row)
        except DuplicateError:
            raise Failure(
                INTERNAL, f"Failed to store the run: Error 1062 (23000): Duplicate entry '{run_id}' for key 'PRIMARY'"
            ) from None
        self._store.count("rows", run_id)
        self._store.update("experiments", {"experiment_id": row["experiment_id"]}, last_run_created_at=now)
        return row

    async def _lose(self, drop: Drop | None, after: str, client_gone: ClientGone) -> None:
        if drop is None or drop.after != after:
            return
        match drop.how:
            case "reset":
                raise DroppedError
            case "error":
                raise Failure(INTERNAL, "Failed to create a run: invalid connection")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
                await asyncio.Event().wait()
            case "hang":
                await client_gone()


DEFAULT_EXPERIMENT = str(uuid.uuid5(uuid.NAMESPACE_OID, "Default"))
