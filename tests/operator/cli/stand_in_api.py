"""A stand-in for the API server: the few paths that the commands use, worded as Kubernetes words them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from served import Served

Object = dict[str, Any]
RUNS = "evolutionruns"


class StandInApi(Served):
    """Serves what the test puts into it."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[tuple[str, str], Object] = {}
        self.pods: list[Object] = []
        self.config_maps: dict[tuple[str, str], dict[str, str]] = {}
        self.logs: dict[str, bytes] = {}
        """By pod; a pod without one is waiting to start."""
        self.token = "a-good-token"
        self.knows_the_kind = True
        self.page_size: int | None = None
        self.forbidden: set[tuple[str, str, str]] = set()
        """(verb, resource, namespace); the namespace is empty for all."""
        self.answers: dict[tuple[str, str], tuple[int, str]] = {}
        """(verb, resource): an answer in place of the true one."""
        self.asked: list[tuple[str, str, str]] = []
        """(verb, resource, namespace) of every request."""
        self.patches: list[tuple[str, Object]] = []
        """Content type and body."""
        self.before: Callable[[str, str], None] = lambda verb, resource: None
        """Called before every answer, to change what there is."""
        self.after_log: Callable[[str], None] = lambda pod: None
        """Called when a pod's log is written out."""
        self.watches: list[list[Callable[[], None] | None]] = []
        """What happens during each watch in its order; None ends it as an expired version does."""
        self._version = 100
        self._events: list[tuple[int, Object]] = []

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """The paths that the commands use."""
        base = "/apis/perseid.dev/v1alpha1"
        router.add_get(f"{base}/{RUNS}", self._list)
        router.add_get(f"{base}/namespaces/{{namespace}}/{RUNS}", self._list)
        router.add_get(f"{base}/namespaces/{{namespace}}/{RUNS}/{{name}}", self._get)
        router.add_patch(f"{base}/namespaces/{{namespace}}/{RUNS}/{{name}}", self._patch)
        router.add_get("/api/v1/pods", self._pods)
        router.add_get("/api/v1/namespaces/{namespace}/configmaps/{name}", self._config_map)
        router.add_get("/api/v1/namespaces/{namespace}/pods", self._pods)
        router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", self._log)

    def put(self, run: Object) -> None:
        """Create or replace a run."""
        key = (run["metadata"]["namespace"], run["metadata"]["name"])
        self._store("MODIFIED" if key in self.runs else "ADDED", run)

    def delete(self, namespace: str, name: str) -> None:
        """Delete a run."""
        self._version += 1
        self._events.append((self._version, {"type": "DELETED", "object": self.runs.pop((namespace, name))}))

    def _store(self, kind: str, run: Object) -> None:
        self._version += 1
        stored = copy.deepcopy(run)
        stored["metadata"]["resourceVersion"] = str(self._version)
        self.runs[stored["metadata"]["namespace"], stored["metadata"]["name"]] = stored
        self._events.append((self._version, {"type": kind, "object": stored}))

    def _refusal(self, request: web.Request, verb: str, resource: str) -> web.Response | None:
        namespace = request.match_info.get("namespace", "")
        self.asked.append((verb, resource, namespace))
        self.before(verb, resource)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        if (verb, resource) in self.answers:
            code, text = self.answers[verb, resource]
            return web.Response(status=code, text=text)
        if (verb, resource, namespace) in self.forbidden:
            where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
            said = f'{resource} is forbidden: User "kim" cannot {verb} resource "{resource}" {where}'
            return _status(403, "Forbidden", said)
        if resource == RUNS and not self.knows_the_kind:
            return web.Response(status=404, text="404 page not found\n")
        return None

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") in ("true", "True"):
            return await self._watch(request)
        refusal = self._refusal(request, "list", RUNS)
        if refusal is not None:
            return refusal
        namespace = request.match_info.get("namespace")
        found = [one for (where, _), one in sorted(self.runs.items()) if namespace in (None, where)]
        begin = int(request.query.get("continue") or 0)
        size = self.page_size or int(request.query.get("limit", 500))
        metadata: Object = {"resourceVersion": str(self._version)}
        if len(found) > begin + size:
            metadata["continue"] = str(begin + size)
        return web.json_response({"metadata": metadata, "items": found[begin : begin + size]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request, "watch", RUNS)
        if refusal is not None:
            return refusal
        sent = int(request.query["resourceVersion"])
        selected = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1"}}}\n')
        happening = self.watches.pop(0) if self.watches else []
        for happens in happening:
            if happens is None:
                gone = {"code": 410, "reason": "Expired", "message": "too old resource version"}
                await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
                return response
            happens()
            for version, event in self._events:
                if version > sent and selected in ("", event["object"]["metadata"]["name"]):
                    await response.write(json.dumps(event).encode() + b"\n")
                    sent = version
        return response

    async def _get(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request, "get", RUNS)
        if refusal is not None:
            return refusal
        return self._found(request) or web.json_response(self.runs[_key(request)])

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request, "patch", RUNS) or self._found(request)
        if refusal is not None:
            return refusal
        patch = await request.json()
        self.patches.append((request.headers["Content-Type"], patch))
        old = self.runs[_key(request)]
        if patch.get("metadata", {}).get("uid") not in (None, old["metadata"]["uid"]):
            said = 'EvolutionRun.perseid.dev "small" is invalid: metadata.uid: Invalid value: "x": field is immutable'
            return _status(422, "Invalid", said)
        self._store("MODIFIED", _merged(old, patch))
        return web.json_response(self.runs[_key(request)])

    def _found(self, request: web.Request) -> web.Response | None:
        namespace, name = _key(request)
        if (namespace, name) in self.runs:
            return None
        said = f'{RUNS}.perseid.dev "{name}" not found'
        return _status(404, "NotFound", said, {"name": name, "group": "perseid.dev", "kind": RUNS})

    async def _config_map(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request, "get", "configmaps")
        if refusal is not None:
            return refusal
        name = request.match_info["name"]
        if _key(request) not in self.config_maps:
            return _status(404, "NotFound", f'configmaps "{name}" not found', {"name": name, "kind": "configmaps"})
        return web.json_response({"metadata": {"name": name}, "data": self.config_maps[_key(request)]})

    async def _pods(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request, "list", "pods")
        if refusal is not None:
            return refusal
        namespace = request.match_info.get("namespace")
        label, _, value = request.query["labelSelector"].partition("=")
        found = [
            pod
            for pod in self.pods
            if namespace in (None, pod["metadata"]["namespace"]) and pod["metadata"]["labels"].get(label) == value
        ]
        return web.json_response({"kind": "PodList", "metadata": {}, "items": found})

    async def _log(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request, "get", "pods/log")
        if refusal is not None:
            return refusal
        query = {key: values[0] for key, values in parse_qs(request.query_string).items()}
        assert query["container"] in ("main", "node")
        pod = request.match_info["name"]
        if pod not in self.logs:
            return _status(400, "BadRequest", f'container "main" in pod "{pod}" is waiting to start: PodInitializing')
        text = self.logs[pod]
        if "tailLines" in query:
            text = b"".join(text.splitlines(keepends=True)[-int(query["tailLines"]) :])
        response = web.StreamResponse()
        await response.prepare(request)
        half = len(text) // 2  # a line may come in two parts
        await response.write(text[:half])
        await response.write(text[half:])
        self.after_log(pod)
        return response

    def kubeconfig(self, directory: Path, *, token: str | None = None, namespace: str | None = "lab") -> Path:
        """A kubeconfig for it."""
        context: Object = {"cluster": "stand-in", "user": "kim"}
        if namespace is not None:
            context["namespace"] = namespace
        path = directory / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "stand-in", "cluster": {"server": self.url}}],
                    "users": [{"name": "kim", "user": {"token": token or self.token}}],
                    "contexts": [{"name": "stand-in", "context": context}],
                    "current-context": "stand-in",
                }
            )
        )
        return path


def _key(request: web.Request) -> tuple[str, str]:
    return request.match_info["namespace"], request.match_info["name"]


def _status(code: int, reason: str, message: str, details: Object | None = None) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return web.json_response({**body, "details": details or {}}, status=code)


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
