"""What happens behind the API: Workflows that run, a controller that moves them, an agent that reports them.

Nothing here runs by itself. `settle` carries out, in order, what was due until now, so that a test that moves the
clock sees each state at its second, and a double that was killed catches up.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import secrets
from dataclasses import asdict
from typing import Any

from kfp_double.clock import Clock
from kfp_double.parts import ClusterUnreachableError, Executor, NoObjects, OnEnd, Script, Timing, WorkflowObjects
from kfp_double.store import Store

FINAL_PHASES = ("Succeeded", "Failed")
_STATES = {"Running": "RUNNING", "Succeeded": "SUCCEEDED", "Failed": "FAILED"}
_CONTROLLER = ("start", "finish", "stage", "poll", "expire")
_AGENT = ("report", "tasks")
LONGEST_BACKOFF = 360.0


class Simulation:
    """Workflows, the controller and the agent."""

    def __init__(
        self, store: Store, clock: Clock, timing: Timing, objects: WorkflowObjects, executor: Executor | None
    ) -> None:
        self._store = store
        self._clock = clock
        self.timing = timing
        self._objects = objects
        self._executor = executor
        self._lock = asyncio.Lock()
        self.on_end: OnEnd | None = None
        self.holding = False
        """Runs stay PENDING."""
        self.controller_up = True
        self.agent_up = True
        self.server_up = True

    async def settle(self) -> None:
        """Carry out what was due until now. Where the cluster does not answer, the rest waits for the next time."""
        async with self._lock:
            with contextlib.suppress(ClusterUnreachableError):
                await self._settle()

    async def create_workflow(
        self, run_id: str, pipeline: str, tasks: list[str], retried: frozenset[str], script: Script, parameters: Any
    ) -> str:
        """Make a Workflow, whatever others there are for the run; returns its name."""
        now = self._clock.now()
        workflow = {
            "name": f"{pipeline}-{secrets.token_hex(3)}",
            "run_id": run_id,
            "phase": "Pending",
            "created_at": now,
            "script": asdict(script),
            "tasks": [{"name": task, "retried": task in retried, "state": None} for task in tasks],
            "parameters": parameters,
        }
        await self._objects.create(workflow)
        self._store.insert("workflows", **workflow)
        self._store.count("executions", run_id)
        alive = [w for w in self._store.select("workflows", run_id=run_id, deleted=0) if w["phase"] not in FINAL_PHASES]
        self._store.raise_counter("alive", run_id, len(alive))
        name = str(workflow["name"])
        self._push("report", name, now + self.timing.lag)
        if self._executor is not None:
            self._push("start", name, now)
        elif script.pending is not None:
            self._push("start", name, now + script.pending)
        return name

    async def remove_workflow(self, name: str) -> bool:
        """Delete a Workflow with its pods; False where there is none."""
        workflow = self._workflow(name)
        if workflow is None:
            return False
        await self._objects.delete(name)
        await self._forget(name)
        return True

    def workflow(self, name: str) -> dict[str, Any] | None:
        """A Workflow that exists."""
        return self._workflow(name)

    async def terminate(self, name: str) -> None:
        """Set the Workflow's deadline to now; it takes the controller some time to act on it."""
        now = self._clock.now()
        workflow = self._workflow(name)
        assert workflow is not None
        self._store.update("workflows", {"name": name}, deadline=now)
        if self._executor is not None:
            await self._executor.stop(workflow)
        self._push("finish", name, now + self.timing.terminate, outcome="FAILED", message="terminated")

    async def retry(self, name: str) -> None:
        """Run the failed tasks of a Workflow again."""
        workflow = self._store.get("workflows", name=name)
        assert workflow is not None
        self._store.update("workflows", {"name": name}, phase="Pending", deleted=0, deadline=None, finished_at=None)
        if workflow["deleted"]:
            await self._objects.create({**workflow, "phase": "Pending"})
        self._push("start", name, self._clock.now())

    def start(self, name: str) -> None:
        self._push("start", name, self._clock.now(), forced=True)

    def finish(self, name: str, outcome: str, message: str) -> None:
        if outcome not in {"SUCCEEDED", "FAILED"}:
            raise ValueError(f"a Workflow ends SUCCEEDED or FAILED, not {outcome}")
        self._push("finish", name, self._clock.now(), outcome=outcome, message=message)

    async def report_now(self, name: str) -> None:
        """What the agent would report in a moment, without the moment."""
        workflow = self._workflow(name)
        if workflow is not None:
            async with self._lock:
                await self._report(workflow, self._clock.now(), 0)

    async def close(self) -> None:
        """Let go of the objects; they stay where they are."""
        await self._objects.close()

    def report_soon(self, name: str) -> None:
        self._push("report", name, self._clock.now() + self.timing.lag)

    def release(self) -> None:
        """Go on with what waited, as far as it can."""
        kinds = (*(_CONTROLLER if self.controller_up else ()), *(_AGENT if self.agent_up else ()))
        self._store.release_events(self._clock.now(), kinds)

    async def _settle(self) -> None:
        if not isinstance(self._objects, NoObjects):
            alive = [workflow["name"] for workflow in self._store.select("workflows", deleted=0)]
            for name in await self._objects.gone(alive):
                await self._forget(name)
        # What comes due while this works is for the next time, or it might never end.
        now = self._clock.now()
        while (event := self._store.next_event(now)) is not None:
            await self._carry_out(event)

    def _push(self, kind: str, workflow: str, at: float, held: bool = False, **payload: Any) -> None:
        self._store.insert("events", at=at, kind=kind, workflow=workflow, payload=payload, held=int(held))

    async def _carry_out(self, event: dict[str, Any]) -> None:
        # An event is taken off only when it is done: a double that is killed in between does it again.
        kind, name, at, payload = event["kind"], event["workflow"], event["at"], event["payload"]
        workflow = self._workflow(name)
        if workflow is not None:
            up = self.controller_up if kind in _CONTROLLER else self.agent_up
            if not up or (kind == "start" and self.holding and not payload.get("forced")):
                self._store.update("events", {"seq": event["seq"]}, held=1)
                return
            match kind:
                case "start":
                    await self._start(workflow, at)
                case "stage":
                    await self._stage(workflow, at, payload["done"])
                case "finish":
                    await self._finish(workflow, at, payload["outcome"], payload["message"])
                case "poll":
                    await self._poll(workflow)
                case "report":
                    await self._report(workflow, at, payload.get("tries", 0))
                case "tasks":
                    self._store.update("runs", {"run_id": workflow["run_id"]}, tasks=payload["tasks"])
                case "expire":
                    if workflow["phase"] in FINAL_PHASES:
                        await self._objects.delete(name)
                        self._store.update("workflows", {"name": name}, deleted=1)
        self._store.delete("events", seq=event["seq"])

    async def _start(self, workflow: dict[str, Any], at: float) -> None:
        if workflow["phase"] != "Pending":
            return
        name, script = workflow["name"], Script(**workflow["script"])
        if self._executor is not None:
            # First of all: a double that is killed before the process has started finds it missing afterwards.
            self._push("poll", name, at + self.timing.poll)
        await self._change(workflow, at, phase="Running", started_at=at)
        if workflow["deadline"] is not None:
            return
        if self._executor is not None:
            await self._executor.start(workflow)
        else:
            await self._stage(workflow, at, 0)
            if script.running is not None:
                tasks = workflow["tasks"]
                for done in range(1, len(tasks)):
                    self._push("stage", name, at + script.running * done / len(tasks), done=done)
                self._push("finish", name, at + script.running, outcome=script.outcome, message=script.message)
        self._push("report", name, at + self.timing.heartbeat)

    async def _stage(self, workflow: dict[str, Any], at: float, done: int) -> None:
        """So many tasks are done, and the next one runs."""
        if workflow["phase"] in FINAL_PHASES:
            return
        tasks = workflow["tasks"]
        for index, task in enumerate(tasks[: done + 1]):
            if index < done and task["state"] != "SUCCEEDED":
                task.update(state="SUCCEEDED", end=at, start=task.get("start", at))
            elif index == done:
                task.update(state="RUNNING", start=at)
        self._store.update("workflows", {"name": workflow["name"]}, tasks=tasks)
        self._push("report", workflow["name"], at + self.timing.lag)

    async def _poll(self, workflow: dict[str, Any]) -> None:
        if workflow["phase"] in FINAL_PHASES or workflow["deadline"] is not None:
            return
        assert self._executor is not None
        name, now = workflow["name"], self._clock.now()
        look = await self._executor.look(workflow)
        if look.tasks != workflow["tasks"]:
            await self._objects.update({**workflow, "tasks": look.tasks})
            self._store.update("workflows", {"name": name}, tasks=look.tasks)
            self._push("report", name, now + self.timing.lag)
        if look.code is None:
            self._push("poll", name, now + self.timing.poll)
        else:
            outcome = "SUCCEEDED" if look.code == 0 else "FAILED"
            self._push("finish", name, now, outcome=outcome, message=look.words if look.code else "")

    async def _finish(self, workflow: dict[str, Any], at: float, outcome: str, message: str) -> None:
        if workflow["phase"] in FINAL_PHASES:
            return
        if self.on_end is not None:
            waiting = self.on_end(workflow, outcome)
            if inspect.isawaitable(waiting):
                await waiting
        tasks = workflow["tasks"]
        for task in tasks:
            if outcome == "FAILED" and task["state"] == "RUNNING":
                task.update(state="FAILED", end=at)
            elif outcome == "SUCCEEDED" and self._executor is None:
                task.update(state="SUCCEEDED", start=task.get("start", at), end=task.get("end", at))
        phase = outcome.capitalize()
        await self._change(workflow, at, phase=phase, finished_at=at, tasks=tasks, message=message)
        self._push("expire", workflow["name"], at + self.timing.workflow_ttl)

    async def _change(self, workflow: dict[str, Any], at: float, **values: Any) -> None:
        # The cluster first: what it refuses is done again, and must look undone.
        await self._objects.update({**workflow, **values})
        self._store.update("workflows", {"name": workflow["name"]}, **values)
        workflow.update(values)
        self._push("report", workflow["name"], at + self.timing.lag)

    async def _report(self, workflow: dict[str, Any], at: float, tries: int) -> None:
        name = workflow["name"]
        if not self.server_up:
            self._push("report", name, at + min(2.0**tries, LONGEST_BACKOFF), tries=tries + 1)
            return
        row = self._store.get("runs", run_id=workflow["run_id"])
        if row is None:
            # Nobody knows this run. It executes until it is old enough to be taken for an orphan.
            collected_at = workflow["created_at"] + self.timing.orphan
            if at < collected_at:
                self._push("report", name, collected_at)
            else:
                self._store.count("collected", workflow["run_id"])
                await self.remove_workflow(name)
            return
        now_state = _STATES.get(workflow["phase"])
        if now_state == "RUNNING" and row["state"] == "CANCELING" and workflow["deadline"] is not None:
            now_state = None
        values: dict[str, Any] = {"reported": 1}
        if now_state is not None and now_state != row["state"]:
            values |= {"state": now_state, "history": [*row["history"], {"at": at, "state": now_state}]}
            values["finished_at"] = workflow["finished_at"] if workflow["phase"] in FINAL_PHASES else None
        self._store.update("runs", {"run_id": workflow["run_id"]}, **values)
        if now_state is not None:
            self._push("tasks", name, at + self.timing.task_lag, tasks=workflow["tasks"])
        if workflow["phase"] in FINAL_PHASES:
            await self._objects.update({**workflow, "persisted": True})
        elif workflow["phase"] == "Running" and not self._is_due(name):
            self._push("report", name, at + self.timing.heartbeat)

    def _is_due(self, name: str) -> bool:
        """Whether another report of the Workflow is on its way already."""
        return sum(1 for _ in self._store.select("events", workflow=name, kind="report")) > 1

    def _workflow(self, name: str) -> dict[str, Any] | None:
        return self._store.get("workflows", name=name, deleted=0)

    async def _forget(self, name: str) -> None:
        workflow = self._workflow(name)
        if workflow is not None and self._executor is not None and workflow["phase"] not in FINAL_PHASES:
            await self._executor.stop(workflow)
        self._store.update("workflows", {"name": name}, deleted=1)
