"""The operator, put together: clients, rooms, Kopf's handlers, and how it starts and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import kopf
from kubernetes_asyncio import client

from perseid import __version__
from perseid.api.base import KIND
from perseid.api.reasons import ConditionStatus, ConditionType
from perseid.api.status import Condition
from perseid_operator.actions import Actions
from perseid_operator.compiler import Compiler
from perseid_operator.health import Health, serve
from perseid_operator.kfp import KfpClient, KfpError
from perseid_operator.kube.client import GROUP, PLURAL, VERSION, KubeClient, connect
from perseid_operator.kube.protocol import KubeError, Object
from perseid_operator.leader import LeaderElection
from perseid_operator.metrics import Metrics
from perseid_operator.objects import BadObjectError, needs_work
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
CLEANUP_RETRY_SECONDS = 10.0
WATCH = "the watch on KFP's runs"
FINALIZER = f"{GROUP}/cleanup"
_BAD_WHEN_TRUE = (ConditionType.FAILED,)
_BAD_WHEN_FALSE = (ConditionType.BACKEND_READY, ConditionType.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Operator:
    """Everything that lives as long as the process."""

    settings: Settings
    metrics: Metrics
    health: Health
    watch: RunWatch
    reconciler: Reconciler
    runs: Runs
    election: LeaderElection | None
    """None where there is one operator alone."""


@contextlib.asynccontextmanager
async def assemble(settings: Settings) -> AsyncIterator[Operator]:
    """Open the clients and put the rooms together."""
    metrics = Metrics()
    health = Health(time.monotonic, settings, on_lag=metrics.loop_lag)
    loop = asyncio.get_running_loop()
    api = await connect()
    compiler = Compiler()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(api.close)
        stack.push_async_callback(compiler.close)
        kube = KubeClient(api, workflows_namespace=settings.workflows_namespace, on_status_write=metrics.status_write)
        workflows = Workflows(kube, allowed={"auto": None, "on": True, "off": False}[settings.workflows])
        grace = Grace(settings.submit_grace(workflows_seen=False), settings.submit_grace(workflows_seen=True))
        doubts = Doubts(grace, workflows, _now)
        snapshots = Snapshots(kube, compiler)

        election = None
        if settings.leader_election:
            assert settings.lease_namespace is not None  # the settings have seen to it
            leases: Any = client.CoordinationV1Api(api)
            election = LeaderElection(leases, settings.lease_namespace, on_change=metrics.leader)

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
            may_act=(lambda: True) if election is None else (lambda: election.is_leading),
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
        yield Operator(settings, metrics, health, watch, reconciler, runs, election)


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
    """Watch and reconcile until `stop`."""
    settings = operator.settings
    tasks = [
        asyncio.create_task(_forever(operator.watch.round, settings.poll_seconds), name="watch-runs"),
        asyncio.create_task(_forever(operator.runs.sweep, SWEEP_SECONDS), name="sweep"),
    ]
    operator.health.expect(WATCH)
    ready = asyncio.Event()
    started = asyncio.create_task(_when(ready, operator.health.started))
    try:
        await kopf.operator(
            registry=handlers(operator),
            settings=kopf_settings(),
            clusterwide=settings.cluster_wide,
            namespaces=settings.watch_namespaces,
            standalone=True,
            stop_flag=stop,
            ready_flag=ready,
        )
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


def handlers(operator: Operator) -> kopf.OperatorRegistry:
    """What Kopf calls."""
    registry = kopf.OperatorRegistry()
    runs, cleanup_seconds = operator.runs, operator.settings.cleanup_seconds

    @kopf.on.login(registry=registry)
    async def login(**arguments: Any) -> Any:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, id="seen")
    async def seen(event: Any, **_: Any) -> None:
        raw = event["object"]
        if event["type"] == "DELETED":
            runs.gone(raw)
        else:
            runs.seen(raw)

    @kopf.daemon(
        GROUP,
        VERSION,
        PLURAL,
        registry=registry,
        id="follow",
        when=lambda body, **_: needs_work(body),
        cancellation_backoff=1.0,
        cancellation_timeout=10.0,
    )
    async def follow(body: kopf.Body, stopped: Any, **_: Any) -> None:
        await runs.follow(plain(body), lambda: bool(stopped))

    @kopf.on.delete(
        GROUP,
        VERSION,
        PLURAL,
        registry=registry,
        id="clean-up",
        when=lambda body, **_: needs_work(body),
        errors=kopf.ErrorsMode.TEMPORARY,
    )
    async def clean_up(body: kopf.Body, started: datetime, **_: Any) -> None:
        raw = plain(body)
        newest = runs.newest(raw["metadata"]["uid"]) or raw
        try:
            wait = await operator.reconciler.clean_up(newest)
        except (KubeError, KfpError, BadObjectError) as error:
            # Kopf would try again for ever, and the object could never go.
            log.warning("cleaning up has failed, and is tried again: %s", error)
            wait = CLEANUP_RETRY_SECONDS
        if wait is None:
            return
        waited = (_now() - _aware(started)).total_seconds()
        if waited > cleanup_seconds:
            message = (
                f"Its pipeline runs could not be seen to end within {cleanup_seconds:.0f} s; look for them in Kubeflow"
                f" Pipelines: {', '.join(_run_ids(newest)) or 'none is known'}"
            )
            log.warning(message)
            kopf.warn(body, reason="CleanupFailed", message=message)
            return
        raise kopf.TemporaryError("its pipeline runs are being stopped", delay=wait)

    return registry


class NoDiffBase(kopf.DiffBaseStorage):
    """Remembers no last state. Kopf would write a copy of every spec into an annotation, to tell changes that nothing
    here asks for: what is decided depends on what is, not on what has changed."""

    def build(self, **_: Any) -> Any:
        """Nothing of an object matters."""
        return {}

    def fetch(self, **_: Any) -> Any:
        """Nothing has changed."""
        return {}

    def store(self, **_: Any) -> None:
        """Nothing is kept."""


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf, told to write as little as it can and to end rather than to be blind."""
    # It tells every call of a handler, which for us is every change of every object.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # needs rights on CRDs and namespaces, and without them a minute of retries
    settings.persistence.finalizer = FINALIZER
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.posting.reporting_component = "perseid-operator"
    settings.posting.level = logging.INFO
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.watching.connect_timeout = 10
    return settings


def announce(obj: Object, condition: Condition) -> None:
    """An Event for a condition that has changed. Kopf posts it, in the background."""
    holds = condition.status is ConditionStatus.TRUE
    bad = (condition.type in _BAD_WHEN_TRUE and holds) or (condition.type in _BAD_WHEN_FALSE and not holds)
    involved: Any = {"kind": KIND, **obj}
    kopf.event(
        involved,
        type="Warning" if bad else "Normal",
        reason=condition.reason.value,
        message=condition.message,
    )


def plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """Kopf's view of an object as plain JSON."""
    return {key: _plain(value) for key, value in body.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _run_ids(raw: Object) -> list[str]:
    status = raw.get("status") or {}
    current = [status["current"]["runId"]] if status.get("current") else []
    return [*current, *status.get("stopping", [])]


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _now() -> datetime:
    return datetime.now(UTC)
