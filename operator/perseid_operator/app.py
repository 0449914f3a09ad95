"""The operator, put together: clients, rooms, Kopf's handlers, and how it starts and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import kopf
from kopf._cogs.clients.errors import APIError  # Kopf does not export what ends its watches
from kopf._core.engines.peering import Identity  # nor this

from perseid import __version__
from perseid_operator.actions import Actions
from perseid_operator.compiler import Compiler
from perseid_operator.handlers import announce, handlers, kopf_settings
from perseid_operator.health import Health, serve
from perseid_operator.kfp import KfpClient
from perseid_operator.kube.client import KubeClient
from perseid_operator.kube.connection import Connection
from perseid_operator.kube.leases import LeaseClient
from perseid_operator.kube.protocol import KubeError
from perseid_operator.leader import LeaderElection
from perseid_operator.login import access
from perseid_operator.metrics import Metrics
from perseid_operator.observer import Observer
from perseid_operator.reconciler import Reconciler
from perseid_operator.results import ResultReader
from perseid_operator.runs import Runs
from perseid_operator.settings import Settings
from perseid_operator.snapshots import Snapshots
from perseid_operator.submission import Doubts, Grace, Workflows
from perseid_operator.telling import tell
from perseid_operator.watch import RunWatch

log = logging.getLogger(__name__)

SWEEP_SECONDS = 30.0
WATCH = "the watch on KFP's runs"


class WatchEndedError(KubeError):
    """Nobody tells the operator of EvolutionRuns any more: it ends, and whoever started it starts it again."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Everything that lives as long as the process."""

    settings: Settings
    metrics: Metrics
    health: Health
    watch: RunWatch
    reconciler: Reconciler
    runs: Runs
    compiler: Compiler
    election: LeaderElection | None
    """None where there is one operator alone."""


@contextlib.asynccontextmanager
async def assemble(settings: Settings) -> AsyncIterator[Operator]:
    """Open the clients and put the rooms together."""
    metrics = Metrics()
    health = Health(time.monotonic, settings, on_lag=metrics.loop_lag)
    loop = asyncio.get_running_loop()
    connection = Connection(await access())
    compiler = Compiler()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        stack.push_async_callback(compiler.close)
        election = None
        if settings.leader_election:
            assert settings.lease_namespace is not None  # the settings have seen to it
            own = Connection(await access())
            stack.push_async_callback(own.close)
            election = LeaderElection(LeaseClient(own), settings.lease_namespace, on_change=metrics.leader)
        may_act = (lambda: True) if election is None else (lambda: election.is_leading)

        kube = KubeClient(
            connection,
            workflows_namespace=settings.workflows_namespace,
            on_status_write=metrics.status_write,
            may_write=may_act,
        )
        workflows = Workflows(kube, allowed={"auto": None, "on": True, "off": False}[settings.workflows])
        grace = Grace(settings.submit_grace(workflows_seen=False), settings.submit_grace(workflows_seen=True))
        doubts = Doubts(grace, workflows, _now)
        snapshots = Snapshots(kube, compiler, settings.stages)

        def asked(operation: str, code: str, seconds: float) -> None:
            metrics.kfp_request(operation, code, seconds)
            health.beat(WATCH)

        def round_made() -> None:
            metrics.poll_round(time.time())
            health.beat(WATCH)

        kfp = await stack.enter_async_context(KfpClient(settings.kfp, asked))
        runs: Runs
        watch = RunWatch(kfp, lambda uid: runs.wake(uid), round_made, clock=loop.time)
        observer = Observer(
            kube,
            watch,
            ResultReader(),
            workflows,
            doubts,
            storage=settings.storage,
            link=settings.kfp.run_url,
            lost_seconds=settings.lost_run_seconds,
            now=_now,
            clock=loop.time,
        )
        actions = Actions(
            kfp,
            watch,
            doubts,
            snapshots,
            storage=settings.storage,
            cancel_seconds=settings.cancel_seconds,
            now=_now,
            on_submission=metrics.submission,
            wake=lambda uid: runs.wake(uid),
            may_act=may_act,
        )
        reconciler = Reconciler(
            kube,
            observer,
            actions,
            snapshots,
            doubts,
            progress_seconds=settings.progress_seconds,
            now=_now,
            clock=loop.time,
            announce=announce,
            tell=lambda obj, old, new, seen: tell(metrics, obj, old, new, seen, _now()),
            on_pass=metrics.reconciled,
        )
        runs = Runs(kube, reconciler, health, metrics)
        yield Operator(settings, metrics, health, watch, reconciler, runs, compiler, election)


async def run(settings: Settings) -> int:
    """Carry EvolutionRuns through until SIGTERM or SIGINT; returns the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    async with assemble(settings) as operator, contextlib.AsyncExitStack() as stack:
        lag = asyncio.create_task(operator.health.watch_loop())
        stack.callback(lag.cancel)
        server = await serve(operator.health, operator.metrics, settings.http_port)
        stack.push_async_callback(server.cleanup)
        log.info("Perseid operator %s watches %s", __version__, settings.watch_namespaces or "all namespaces")
        if operator.election is None:
            operator.metrics.leader(True)
            await carry_through(operator, stop)
            return 0
        operator.health.started()
        return await _lead(operator, operator.election, stop)


async def _lead(operator: Operator, election: LeaderElection, stop: asyncio.Event) -> int:
    waiting = asyncio.create_task(stop.wait())
    entering = asyncio.create_task(_led(operator, election, stop))
    await asyncio.wait((waiting, entering), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not entering.done() and not election.is_leading:
        entering.cancel()  # stopped while another one leads
        await asyncio.gather(entering, return_exceptions=True)
        return 0
    return await entering


async def _led(operator: Operator, election: LeaderElection, stop: asyncio.Event) -> int:
    async with election.leading() as lost:
        both = asyncio.Event()
        watchers = [asyncio.create_task(_set_after(event, both)) for event in (stop, lost)]
        await carry_through(operator, both)
        for watcher in watchers:
            watcher.cancel()
        return 1 if lost.is_set() else 0


async def _set_after(event: asyncio.Event, other: asyncio.Event) -> None:
    await event.wait()
    other.set()


async def carry_through(operator: Operator, stop: asyncio.Event) -> None:
    """Watch and reconcile until `stop`. Raises WatchEndedError where the API server refuses the watch for a minute."""
    settings = operator.settings
    tasks = [
        asyncio.create_task(_forever(operator.watch.round, settings.poll_seconds), name="watch-runs"),
        asyncio.create_task(_forever(operator.runs.sweep, SWEEP_SECONDS), name="sweep"),
    ]
    await operator.compiler.warm_up()
    operator.health.expect(WATCH)
    ready = asyncio.Event()
    started = asyncio.create_task(_when(ready, operator.health.started))
    try:
        await kopf.operator(
            registry=handlers(operator.runs, operator.reconciler, settings.cleanup_seconds),
            settings=kopf_settings(),
            clusterwide=settings.cluster_wide,
            namespaces=settings.watch_namespaces,
            # Kopf would ask for the user's name, and a container's user need not have one. Nobody reads this: the Lease
            # has its own.
            identity=Identity(f"perseid-operator-{os.getpid()}"),
            standalone=True,
            stop_flag=stop,
            ready_flag=ready,
        )
    except (APIError, kopf.LoginError) as error:
        raise WatchEndedError(
            f"the watch on EvolutionRuns has ended, since the API server goes on refusing it: {error.args[0]}. "
            "The operator ends too; started again it goes on from the objects' status. If it may not watch them, give "
            "its account the Role of manifests/base/role.yaml back"
        ) from error
    finally:
        operator.health.stopping()
        operator.health.leave_off(WATCH)
        for task in (*tasks, started):
            task.cancel()
        await asyncio.gather(*tasks, started, return_exceptions=True)


async def _forever(work: Any, seconds: float) -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("%s has failed by a mistake of the operator's", getattr(work, "__qualname__", work))
        await asyncio.sleep(seconds)


async def _when(event: asyncio.Event, call: Any) -> None:
    await event.wait()
    call()


def _now() -> datetime:
    return datetime.now(UTC)
