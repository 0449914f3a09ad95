"""The double's HTTP side: /apis/v2beta1, with faults, latencies and outages in front of it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from kfp_double import lists, specs
from kfp_double.answers import experiment_json, run_json
from kfp_double.clock import Clock
from kfp_double.failures import (
    DENIED,
    EXISTS,
    INTERNAL,
    INVALID,
    NOT_FOUND,
    UNAUTHENTICATED,
    DroppedError,
    Failure,
    Faults,
)
from kfp_double.runs_api import DEFAULT_EXPERIMENT, RunsApi
from kfp_double.simulation import Simulation
from kfp_double.store import DuplicateError, Store, decode

API = "/apis/v2beta1"
JsonHandler = Callable[[web.Request], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Access:
    """Multi-user mode: who may ask. It was read in KFP's source, and not seen live."""

    tokens: Mapping[str, str]
    """User by token."""
    allowed: frozenset[str]


class Server:
    """Routes."""

    def __init__(
        self, store: Store, clock: Clock, simulation: Simulation, runs: RunsApi, access: Access | None
    ) -> None:
        self._store = store
        self._clock = clock
        self._simulation = simulation
        self._runs = runs
        self._access = access
        self.faults = Faults()
        self.down = False
        self.largest_page = lists.LARGEST_PAGE
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        if store.get("experiments", experiment_id=DEFAULT_EXPERIMENT) is None:
            self._new_experiment(DEFAULT_EXPERIMENT, "Default", "", None)

    def routes(self, app: web.Application) -> None:
        runs, experiments = f"{API}/runs", f"{API}/experiments"
        for method, path, operation, handler in (
            ("GET", f"{API}/healthz", "healthz", self._healthz),
            ("POST", runs, "create_run", self._create_run),
            ("GET", runs, "list_runs", self._list_runs),
            ("GET", f"{runs}/{{id}}", "get_run", self._get_run),
            ("DELETE", f"{runs}/{{id}}", "delete_run", self._delete_run),
            ("POST", f"{runs}/{{id}}", "run_verb", self._run_verb),
            ("POST", experiments, "create_experiment", self._create_experiment),
            ("GET", experiments, "list_experiments", self._list_experiments),
            ("GET", f"{experiments}/{{id}}", "get_experiment", self._get_experiment),
            ("DELETE", f"{experiments}/{{id}}", "delete_experiment", self._delete_experiment),
            ("POST", f"{experiments}/{{id}}", "experiment_verb", self._experiment_verb),
        ):
            app.router.add_route(method, path, self._wrap(operation, handler))

    async def idle(self) -> None:
        """Wait until no request is being served, also none whose client has gone."""
        await self._idle.wait()

    def _wrap(self, operation: str, handler: JsonHandler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            if self.down:
                return _abort(request)
            self._in_flight += 1
            self._idle.clear()
            try:
                return await self._serve(_named(operation, request), request, handler)
            except (DroppedError, ConnectionResetError):  # the latter: the client died before it had sent all of it
                return _abort(request)
            except Failure as failure:
                body = specs.check_answer({"code": failure.code, "message": failure.text}, "GoogleRpcStatus")
                return web.json_response(failure.body | body, status=failure.status, headers=failure.headers)
            finally:
                self._in_flight -= 1
                if not self._in_flight:
                    self._idle.set()

        return handle

    async def _serve(self, operation: str, request: web.Request, handler: JsonHandler) -> web.StreamResponse:
        self._store.count(f"requests:{operation}")
        if operation == "create_run":
            self._store.count("asked", _posted_id(await request.read()))
        fault = self.faults.take(operation)
        if fault is not None:
            await self._clock.sleep(fault.seconds)
            if fault.raw is not None:
                return web.Response(
                    status=fault.status or 200, text=fault.raw, content_type="text/html", headers=fault.headers
                )
            if fault.status is not None:
                raise Failure.of_status(fault.status, fault.text, fault.headers)
        if operation != "healthz":
            self._check_access(request)
            if not self._runs.database_up:
                raise Failure(INTERNAL, "dial tcp: connect: connection refused")
        await self._simulation.settle()
        return web.json_response(await handler(request))

    def _check_access(self, request: web.Request) -> None:
        if self._access is None:
            return
        user = request.headers.get("kubeflow-userid")
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if user is None and kind == "Bearer":
            user = self._access.tokens.get(token)
        if user is None:
            raise Failure(UNAUTHENTICATED, f"Request header error: there is no user identity header; token {token!r}")
        if user not in self._access.allowed:
            raise Failure(DENIED, f"User '{user}' is not authorized with reason: (request: {request.method})")
        listing = request.method == "GET" and request.path in {f"{API}/runs", f"{API}/experiments"}
        if listing and not (request.query.get("namespace") or request.query.get("experiment_id")):
            raise Failure(INVALID, "A namespace is needed in multi-user mode")

    async def _healthz(self, request: web.Request) -> dict[str, Any]:
        answer = {"multi_user": self._access is not None, "pipeline_store": "database"}
        return {"commit_sha": "double", "tag_name": "2.17.0", **specs.check_answer(answer, "V2beta1GetHealthzResponse")}

    async def _create_run(self, request: web.Request) -> dict[str, Any]:
        async def client_gone() -> None:
            # aiohttp tells nobody; a look now and then is the only way.
            while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

        return await self._runs.create(await request.read(), self.faults.take_drop(), client_gone)

    async def _get_run(self, request: web.Request) -> dict[str, Any]:
        return run_json(self._runs.row(request.match_info["id"]))

    async def _list_runs(self, request: web.Request) -> dict[str, Any]:
        experiment_id = request.query.get("experiment_id")
        rows = self._store.select_encoded("runs")
        if experiment_id:
            self._experiment(experiment_id)
            rows = [row for row in rows if row["experiment_id"] == experiment_id]
        page, total, token = lists.page(rows, lists.RUN_KEYS, request.query, self.largest_page)
        await self._clock.sleep(len(page) * self._simulation.timing.list_per_run)
        return _listed("runs", [run_json(decode(row)) for row in page], total, token)

    async def _delete_run(self, request: web.Request) -> dict[str, Any]:
        await self._runs.delete(request.match_info["id"])
        return {}

    async def _run_verb(self, request: web.Request) -> dict[str, Any]:
        run_id, verb = _split_verb(request)
        match verb:
            case "terminate":
                await self._runs.terminate(run_id)
            case "retry":
                await self._runs.retry(run_id)
            case "archive":
                self._runs.set_storage_state(run_id, "ARCHIVED")
            case "unarchive":
                self._runs.set_storage_state(run_id, "AVAILABLE")
            case _:
                raise Failure(NOT_FOUND, "Not Found")
        return {}

    async def _create_experiment(self, request: web.Request) -> dict[str, Any]:
        posted = await request.json()
        specs.parse(posted, "V2beta1Experiment")
        name = posted.get("display_name") or ""
        if not 1 <= len(name) <= 128 or max(name) > "\uffff":
            raise Failure(INTERNAL, "Failed to create an experiment: its name is empty or cannot be stored")
        if self._access is not None and not posted.get("namespace"):
            raise Failure(INVALID, "An experiment needs a namespace in multi-user mode")
        try:
            # A client's own id is ignored.
            self._new_experiment(str(uuid.uuid4()), name, posted.get("description") or "", posted.get("namespace"))
        except DuplicateError:
            raise Failure(EXISTS, f"Failed to create an experiment: the name {name} already exists") from None
        return experiment_json(self._store.get("experiments", display_name=name) or {})

    async def _get_experiment(self, request: web.Request) -> dict[str, Any]:
        return experiment_json(self._experiment(request.match_info["id"]))

    async def _list_experiments(self, request: web.Request) -> dict[str, Any]:
        rows = list(self._store.select("experiments"))
        page, total, token = lists.page(rows, lists.EXPERIMENT_KEYS, request.query, self.largest_page)
        return _listed("experiments", [experiment_json(row) for row in page], total, token)

    async def _delete_experiment(self, request: web.Request) -> dict[str, Any]:
        # Its runs stay.
        self._store.delete("experiments", experiment_id=self._experiment(request.match_info["id"])["experiment_id"])
        return {}

    async def _experiment_verb(self, request: web.Request) -> dict[str, Any]:
        experiment_id, verb = _split_verb(request)
        if verb not in {"archive", "unarchive"}:
            raise Failure(NOT_FOUND, "Not Found")
        state = "ARCHIVED" if verb == "archive" else "AVAILABLE"
        self._experiment(experiment_id)
        self._store.update("experiments", {"experiment_id": experiment_id}, storage_state=state)
        if verb == "archive":
            self._store.update("runs", {"experiment_id": experiment_id}, storage_state=state)
        return {}

    def _experiment(self, experiment_id: str) -> dict[str, Any]:
        row = self._store.get("experiments", experiment_id=experiment_id)
        if row is None:
            raise Failure(NOT_FOUND, f"ResourceNotFoundError: Experiment {experiment_id} not found.")
        return row

    def _new_experiment(self, experiment_id: str, name: str, description: str, namespace: str | None) -> None:
        self._store.insert(
            "experiments",
            experiment_id=experiment_id,
            display_name=name,
            description=description,
            created_at=self._clock.now(),
            storage_state="AVAILABLE",
            namespace=namespace,
        )


def _listed(key: str, entries: list[dict[str, Any]], total: int, token: str | None) -> dict[str, Any]:
    """An empty list is an answer without the list."""
    answer: dict[str, Any] = {}
    if entries:
        answer = {key: entries, "total_size": total}
    if token is not None:
        answer["next_page_token"] = token
    return answer


def _abort(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _named(operation: str, request: web.Request) -> str:
    """The operation, with the verb at the end of the path in it: `terminate_run`."""
    if not operation.endswith("_verb"):
        return operation
    return f"{_split_verb(request)[1]}_{operation.removesuffix('_verb')}"


def _split_verb(request: web.Request) -> tuple[str, str]:
    key, _, verb = str(request.match_info["id"]).rpartition(":")
    return key, verb


def _posted_id(body: bytes) -> str:
    try:
        return str(json.loads(body).get("run_id", ""))
    except (ValueError, AttributeError):
        return ""
