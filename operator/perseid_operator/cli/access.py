"""The calls to the API server that the commands need. Everything that can go wrong comes out as ClusterError."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from kubernetes_asyncio.client import ApiException, CoreV1Api, CustomObjectsApi

from perseid.api.base import API_VERSION, KIND
from perseid.api.fields import nearest
from perseid_operator.cli.errors import ClusterError, WatchEndedError
from perseid_operator.cli.kubeconfig import Target, open_target

GROUP, VERSION = API_VERSION.split("/")
PLURAL = "evolutionruns"
REQUEST_SECONDS = 30.0
PAGE = 500
NAMES_COMPARED = 1000

_MERGE_PATCH: dict[str, Any] = {
    "_content_type": "application/merge-patch+json",
    "field_manager": "perseid-cli",
    "_request_timeout": REQUEST_SECONDS,
}
_FOLLOWING = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS)
T = TypeVar("T")
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A call, in the words of Kubernetes' access rules."""

    verb: str
    resource: str
    namespace: str | None
    """None: all of them."""
    name: str | None = None

    def __str__(self) -> str:
        what = f"{self.verb} {self.resource}"
        if self.name is not None:
            what += f" {self.name}"
        return f"{what} in {'all namespaces' if self.namespace is None else f'namespace {self.namespace}'}"


class ForbiddenError(ClusterError):
    """The user may not do that."""


class UnreachableError(ClusterError):
    """No answer, or one that broke off."""


class RefusedError(ClusterError):
    """The API server found the request itself wrong."""


class Access:
    """One cluster, for the time of one command."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._objects = CustomObjectsApi(target.client)
        self._core = CoreV1Api(target.client)

    @classmethod
    async def open(cls, kubeconfig: Path | None, context: str | None) -> Self:
        """The cluster that the user means."""
        return cls(await open_target(kubeconfig, context))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.target.client.close()

    async def run(self, namespace: str, name: str) -> Object:
        """One EvolutionRun. Where there is none, the error names the nearest names that there are."""
        asked = Asked("get", PLURAL, namespace, name)
        try:
            found = await self._call(
                asked,
                lambda: self._objects.get_namespaced_custom_object(
                    GROUP, VERSION, namespace, PLURAL, name, _request_timeout=REQUEST_SECONDS
                ),
            )
        except _NoSuchObjectError:
            raise ClusterError(await self._no_such_run(namespace, name)) from None
        return self._object(asked, found)

    async def runs(self, namespace: str | None) -> tuple[list[Object], str]:
        """All EvolutionRuns of a namespace, or of all (None), by namespace and name; and the version to watch from."""
        asked = Asked("list", PLURAL, namespace)
        found: list[Object] = []
        token = ""
        while True:
            listed = await self._call(asked, partial(self._list, namespace, limit=PAGE, _continue=token))
            page = self._object(asked, listed)
            found += [one for one in page.get("items") or [] if isinstance(one, dict)]
            metadata = page.get("metadata") or {}
            token = metadata.get("continue") or ""
            if not token:
                found.sort(key=lambda one: (one["metadata"].get("namespace", ""), one["metadata"]["name"]))
                return found, str(metadata.get("resourceVersion", ""))

    async def changes(self, namespace: str | None, version: str, name: str | None = None) -> AsyncGenerator[Object]:
        """Events since that version, each with `type` and `object`. Raises WatchEndedError when the API server ends
        the stream, or no longer knows the version."""
        asked = Asked("watch", PLURAL, namespace)
        chosen = {} if name is None else {"field_selector": f"metadata.name={name}"}
        response = await self._call(
            asked,
            lambda: self._list(
                namespace,
                watch=True,
                resource_version=version,
                allow_watch_bookmarks=True,
                _preload_content=False,
                _request_timeout=_FOLLOWING,
                **chosen,
            ),
        )
        try:
            async with contextlib.aclosing(self._lines(asked, response)) as lines:
                async for line in lines:
                    event = self._object(asked, _parsed(line))
                    if event.get("type") == "ERROR":
                        raise WatchEndedError
                    if event.get("type") != "BOOKMARK":
                        yield event
        except UnreachableError as error:
            raise WatchEndedError from error
        raise WatchEndedError

    async def patch(self, namespace: str, name: str, patch: Object) -> Object:
        """Change some fields of an EvolutionRun, and return the whole of it."""
        asked = Asked("patch", PLURAL, namespace, name)
        try:
            changed = await self._call(
                asked,
                lambda: self._objects.patch_namespaced_custom_object(
                    GROUP,
                    VERSION,
                    namespace,
                    PLURAL,
                    name,
                    patch,
                    **_MERGE_PATCH,
                ),
            )
        except _NoSuchObjectError:
            raise ClusterError(f"EvolutionRun {name} has just been deleted from namespace {namespace}") from None
        except RefusedError as error:
            if "metadata.uid" not in str(error):
                raise
            raise ClusterError(
                f"EvolutionRun {name} in namespace {namespace} has just been deleted and made anew, so nothing was"
                " done; look at it and try again"
            ) from error
        return self._object(asked, changed)

    async def config_map(self, namespace: str, name: str) -> dict[str, str]:
        """The data of a ConfigMap; empty where there is none."""
        try:
            found = await self._call(
                Asked("get", "configmaps", namespace, name),
                lambda: self._core.read_namespaced_config_map(name, namespace, _request_timeout=REQUEST_SECONDS),
            )
        except _NoSuchObjectError:
            return {}
        return dict(found.data or {})

    async def pods(self, namespace: str | None, selector: str) -> list[Any]:
        """Pods (V1Pod) of a namespace or of all (None)."""
        asked = Asked("list", "pods", namespace)
        arguments: dict[str, Any] = {"label_selector": selector, "_request_timeout": REQUEST_SECONDS}
        if namespace is None:
            found = await self._call(asked, lambda: self._core.list_pod_for_all_namespaces(**arguments))
        else:
            found = await self._call(asked, lambda: self._core.list_namespaced_pod(namespace, **arguments))
        return list(found.items or [])

    async def log(
        self, namespace: str, pod: str, container: str, *, follow: bool, tail: int | None
    ) -> AsyncGenerator[str]:
        """Lines of a container's log, without their ends."""
        asked = Asked("get", "pods/log", namespace, pod)
        arguments: dict[str, Any] = {"container": container, "follow": follow}
        if tail is not None:
            arguments["tail_lines"] = tail
        try:
            response: Any = await self._call(
                asked,
                lambda: self._core.read_namespaced_pod_log(
                    pod, namespace, _preload_content=False, _request_timeout=_FOLLOWING, **arguments
                ),
            )
        except _NoSuchObjectError:
            raise ClusterError(f"the pod {pod} has just gone from namespace {namespace}; ask again") from None
        async with contextlib.aclosing(self._lines(asked, response)) as lines:
            async for line in lines:
                yield line

    def _object(self, asked: Asked, answer: Any) -> Object:
        if isinstance(answer, dict):
            return answer
        raise ClusterError(
            f"{self.target.client.configuration.host} ({self.target.source}) did not answer like an API server when"
            f" asked to {asked}, but with {str(answer)[:80]!r}. Is that a proxy's page for signing in?"
        )

    def _list(self, namespace: str | None, **arguments: Any) -> Awaitable[Any]:
        arguments.setdefault("_request_timeout", REQUEST_SECONDS)
        if namespace is None:
            listed: Awaitable[Any] = self._objects.list_cluster_custom_object(GROUP, VERSION, PLURAL, **arguments)
        else:
            listed = self._objects.list_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, **arguments)
        return listed

    async def _lines(self, asked: Asked, response: aiohttp.ClientResponse) -> AsyncGenerator[str]:
        """Lines of a stream, whatever their length."""
        rest = b""
        async with response:
            try:
                if response.status >= 300:
                    raise self._refused(asked, response.status, await response.text())
                async for chunk in response.content.iter_any():
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield line.decode(errors="replace")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._unreachable(error) from error
        if rest:
            yield rest.decode(errors="replace")

    async def _call(self, asked: Asked, request: Callable[[], Awaitable[T]]) -> T:
        try:
            return await request()
        except ApiException as error:
            raise self._refused(asked, error.status, error.body) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: BaseException) -> UnreachableError:
        url, source = self.target.client.configuration.host, self.target.source
        if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError | aiohttp.ClientConnectorSSLError):
            return UnreachableError(
                f"the certificates of the API server at {url} and of {source} do not fit: {error}. Fetch the kubeconfig"
                " anew from whoever runs the cluster"
            )
        said = f"no answer within {REQUEST_SECONDS:g} s" if isinstance(error, TimeoutError) else str(error)
        return UnreachableError(
            f"the API server at {url} ({source}) cannot be reached: {said or type(error).__name__}. Is the cluster up,"
            " and this machine in its network?"
        )

    def _refused(self, asked: Asked, status: int | None, body: Any) -> Exception:
        """What the API server's refusal means, as an error to be raised."""
        answer = _status_of(body)
        message = str(answer.get("message") or body or "it gave no reason").strip()
        source = self.target.source
        match status:
            case 401:
                return ClusterError(
                    f"the API server does not accept your identity ({source}): the token has expired or was never"
                    " valid. Log in again with the tool of your cluster's provider"
                )
            case 403:
                return ForbiddenError(
                    f"you may not {asked} ({source}). Ask whoever runs the cluster for the verb {asked.verb} on"
                    f" {asked.resource}. The API server says: {message}"
                )
            case 404 if asked.name is not None and (answer.get("details") or {}).get("name") == asked.name:
                return _NoSuchObjectError()
            case 404 if asked.resource == PLURAL:
                return ClusterError(
                    f"the cluster ({source}) does not know {KIND}s: the CustomResourceDefinition {PLURAL}.{GROUP} in"
                    f" version {VERSION} is not installed. Install Perseid's operator, or choose another --context"
                )
            case 409 | 412:
                return ClusterError(f"somebody changed it at the same time, so nothing was done; try again ({message})")
            case 400 | 422:
                return RefusedError(f"the API server refused to {asked}: {message}")
            case _:
                return ClusterError(f"the API server answered {status} when asked to {asked}: {message}; try again")

    async def _no_such_run(self, namespace: str, name: str) -> str:
        said = f"there is no {KIND} {name} in namespace {namespace} ({self.target.source})"
        try:
            page = await self._call(
                Asked("list", PLURAL, namespace), lambda: self._list(namespace, limit=NAMES_COMPARED)
            )
        except ForbiddenError:
            return said  # who may not list may not be told names either
        names = sorted(one["metadata"]["name"] for one in page.get("items") or [])
        if not names:
            return f"{said}, nor any other; look in all namespaces with `perseid get -A`"
        meant = nearest(name, names)
        hint = f"did you mean {meant}?" if meant else f"there are {', '.join(names[:5])}{' ...' if names[5:] else ''}"
        return f"{said}; {hint}"


class _NoSuchObjectError(Exception):
    """The API server knows the kind, and has no object of that name."""


def _status_of(body: Any) -> Object:
    """A refusal as Kubernetes words it; empty where something else worded it."""
    answer = _parsed(body)
    return answer if isinstance(answer, dict) else {}


def _parsed(text: Any) -> Any:
    """JSON as data; what is no JSON as it is."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text
