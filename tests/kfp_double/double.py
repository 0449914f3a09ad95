"""The double as tests use it: start it, order faults, move runs, count what was asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from kfp_double.clock import Clock, RealClock, VirtualClock
from kfp_double.control import add_control_routes
from kfp_double.failures import Drop, Fault
from kfp_double.parts import Executor, NoObjects, OnEnd, Script, Timing, WorkflowObjects
from kfp_double.runs_api import RunsApi
from kfp_double.server import Access, Server
from kfp_double.simulation import FINAL_PHASES, Simulation
from kfp_double.store import Store

TICK_SECONDS = 0.1


@dataclass(frozen=True)
class Counters:
    """What was asked of the double and what came of it, by run id."""

    asked: dict[str, int]
    """Creations that were posted, whatever came of them."""
    rows: dict[str, int]
    """Runs that were ever stored."""
    executions: dict[str, int]
    """Workflows that were ever started, and retries of one. The number that must be 1."""
    most_alive: dict[str, int]
    """The most Workflows that were alive at once."""
    collected: dict[str, int]
    """Workflows without a row that were deleted."""
    requests: dict[str, int]
    """Requests by operation."""


class KfpDouble:
    """An API server, its database, a cluster and Argo, in one.

    Use it as an asynchronous context manager. With a VirtualClock nothing happens until `advance`; waits of the
    server's own move the clock. With a RealClock (or an executor) time passes by itself.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        state: Path | None = None,
        timing: Timing = Timing(),  # noqa: B008 - it is frozen
        access: Access | None = None,
        objects: WorkflowObjects | None = None,
        executor: Executor | None = None,
    ) -> None:
        """`state`: directory of what must survive the process; in memory where there is none."""
        self.clock: Clock = clock or RealClock()
        if executor is not None and self.clock.is_virtual:
            raise ValueError("runs that are really executed need the real clock")
        self._store = Store(state)
        self._simulation = Simulation(self._store, self.clock, timing, objects or NoObjects(), executor)
        self._runs = RunsApi(self._store, self.clock, self._simulation, executor)
        self._server = Server(self._store, self.clock, self._simulation, self._runs, access)
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._host = "127.0.0.1"
        self.port = 0
        self.control_port = 0

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> None:
        """Listen there."""
        self._host = host
        app = web.Application(client_max_size=64 * 1024 * 1024)
        self._server.routes(app)
        add_control_routes(app, self)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self._runner.setup()
        self.port = await self._listen(port)
        # The control has a port of its own, which stays when the API goes down.
        control = web.TCPSite(self._runner, "127.0.0.1", 0)
        await control.start()
        self.control_port = _port(control)
        if not self.clock.is_virtual:
            self._ticker = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            (ended,) = await asyncio.gather(self._ticker, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        await self._simulation.close()
        self._store.close()
        if self._ticker is not None and not isinstance(ended, asyncio.CancelledError):
            raise RuntimeError("the double's time has stopped") from ended

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # Time

    async def advance(self, seconds: float) -> None:
        """Let that much virtual time pass, and carry out what comes due."""
        if not isinstance(self.clock, VirtualClock):
            raise TypeError("only a VirtualClock can be advanced")
        self.clock.advance(seconds)
        await self._simulation.settle()

    async def settle(self) -> None:
        """Carry out what is due now."""
        await self._simulation.settle()

    async def idle(self) -> None:
        """Wait until no request is being served any more, not even one whose client has gone."""
        await self._server.idle()

    # How runs go

    def script(self, script_for: Callable[[dict[str, Any]], Script] | Script) -> None:
        """How runs that are posted from now on go: one script, or one for what was posted."""
        self._runs.script_for = script_for if callable(script_for) else lambda run: script_for

    def on_end(self, hook: OnEnd | None) -> None:
        """Call the hook just before a Workflow ends."""
        self._simulation.on_end = hook

    def hold_pending(self, hold: bool = True) -> None:
        """Keep runs PENDING, as a queue without quota does, or let them go."""
        self._simulation.holding = hold
        self._simulation.release()

    async def start_run(self, run_id: str) -> None:
        """Let a pending run start, and show it."""
        self._simulation.start(self._runs.row(run_id)["workflow"])
        await self._show(run_id)

    async def finish_run(self, run_id: str, outcome: str = "SUCCEEDED", message: str = "") -> None:
        """End a run, SUCCEEDED or FAILED, and show it."""
        self._simulation.finish(self._runs.row(run_id)["workflow"], outcome, message)
        await self._show(run_id)

    async def _show(self, run_id: str) -> None:
        """Carry out what was ordered and have the agent report it at once."""
        await self._simulation.settle()
        await self._simulation.report_now(self._runs.row(run_id)["workflow"])

    # What goes wrong

    async def lose_workflow(self, run_id: str) -> None:
        """Delete the Workflow of a run behind KFP's back."""
        if not await self._simulation.remove_workflow(self._runs.row(run_id)["workflow"]):
            raise ValueError(f"the run {run_id} has no Workflow")

    async def revive_run(self, run_id: str, script: Script | None = None) -> None:
        """Start a second Workflow under the run's id, as a second creation does: its reports go to the same row."""
        await self._runs.start_again(run_id, script or Script())

    async def collect_garbage(self, run_id: str) -> None:
        """Remove a run as KFP's retention does: nothing knows it any more."""
        row = self._runs.row(run_id)
        await self._simulation.remove_workflow(row["workflow"])
        self._store.delete("runs", run_id=run_id)

    def hide_state(self, run_id: str, hide: bool = True) -> None:
        """Show the run without a state, and with a history entry without one."""
        row = self._runs.row(run_id)
        history = [entry for entry in row["history"] if entry["state"]]
        if hide:
            history.append({"at": self.clock.now(), "state": None})
        self._store.update("runs", {"run_id": run_id}, hide_state=int(hide), history=history)

    def fail_next(
        self, operation: str, status: int, times: int = 1, retry_after: str | None = None, text: str = "injected"
    ) -> None:
        """Answer the next calls of the operation (`*`: any) with that status, and do nothing else."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        self._server.faults.add(Fault(operation, times, status=status, text=text, headers=headers))

    def limit_pages(self, runs: int) -> None:
        """Give no more on one page of a list: less than the real 200, where a test needs pages."""
        self._server.largest_page = runs

    def answer_next(self, operation: str, status: int, body: str, location: str | None = None) -> None:
        """Answer the next call as something that is not KFP: a proxy's page, a redirection."""
        headers = {} if location is None else {"Location": location}
        self._server.faults.add(Fault(operation, 1, status=status, raw=body, headers=headers))

    def delay_next(self, operation: str, seconds: float, times: int = 1) -> None:
        """Do nothing for a while, and then what was asked."""
        self._server.faults.add(Fault(operation, times, seconds=seconds))

    def drop_next_create(self, after: str, how: str = "reset") -> None:
        """Lose the answer of the next creation. after: request, workflow, row. how: reset, hang, error, kill (what
        they mean says `kfp_double.failures.Drop`)."""
        self._server.faults.add_drop(Drop(after, how))

    async def go_down(self, seconds: float | None = None) -> None:
        """Refuse connections, until `come_up` or for so many real seconds. Runs go on; nobody reports them."""
        if self._site is None:
            return
        self._server.down = True
        self._simulation.server_up = False
        site, self._site = self._site, None
        await site.stop()
        if seconds is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(seconds, lambda: loop.create_task(self.come_up()))

    async def come_up(self) -> None:
        """Listen again, on the same port."""
        if self._site is None:
            await self._listen(self.port)
        self._server.down = False
        self._simulation.server_up = True

    def set_database(self, up: bool) -> None:
        """Without its database the server answers everything but healthz with 500."""
        self._runs.database_up = up

    def set_kubernetes(self, up: bool) -> None:
        """Without Kubernetes the server reads, but creates and terminates nothing. Workflows go on."""
        self._runs.kubernetes_up = up

    def set_controller(self, up: bool) -> None:
        """Without Argo's controller no Workflow goes on."""
        self._simulation.controller_up = up
        self._simulation.release()

    def set_agent(self, up: bool) -> None:
        """Without the persistence agent the API shows nothing new."""
        self._simulation.agent_up = up
        self._simulation.release()

    # What has happened

    def counters(self) -> Counters:
        count = self._store.counter
        requests = {
            row["name"].removeprefix("requests:"): row["value"]
            for row in self._store.select("counters")
            if row["name"].startswith("requests:")
        }
        return Counters(
            asked=count("asked"),
            rows=count("rows"),
            executions=count("executions"),
            most_alive=count("alive"),
            collected=count("collected"),
            requests=requests,
        )

    def workflows(self, run_id: str | None = None) -> list[dict[str, Any]]:
        """The Workflows that exist: name, run_id, phase and the rest, the oldest first."""
        key = {} if run_id is None else {"run_id": run_id}
        return list(self._store.select("workflows", deleted=0, **key))

    def alive(self, run_id: str) -> int:
        """How many Workflows execute or wait for the run now."""
        return sum(workflow["phase"] not in FINAL_PHASES for workflow in self.workflows(run_id))

    def run_ids(self) -> list[str]:
        """The runs that KFP knows, in the order of their creation."""
        return [row["run_id"] for row in self._store.select("runs")]

    def describe(self) -> dict[str, Any]:
        """All of it, for a test in another process."""
        return {
            "counters": asdict(self.counters()),
            "workflows": [
                {name: workflow[name] for name in ("name", "run_id", "phase", "message")}
                for workflow in self.workflows()
            ],
            "runs": {row["run_id"]: row["state"] for row in self._store.select("runs")},
        }

    async def _listen(self, port: int) -> int:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, self._host, port)
        await self._site.start()
        return _port(self._site)

    async def _tick(self) -> None:
        while True:
            await self._simulation.settle()
            await asyncio.sleep(TICK_SECONDS)


def _port(site: web.TCPSite) -> int:
    server = site._server
    assert isinstance(server, asyncio.Server)
    return int(server.sockets[0].getsockname()[1])
