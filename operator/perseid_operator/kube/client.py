"""`Kube` by kubernetes_asyncio."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import aiohttp
from kubernetes_asyncio import client, config
from kubernetes_asyncio.client.exceptions import ApiException

from perseid.api.base import API_VERSION, KIND
from perseid_operator.kube.protocol import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
    Object,
    UnavailableError,
)

GROUP, VERSION = API_VERSION.split("/")
PLURAL = "evolutionruns"
WORKFLOWS = ("argoproj.io", "v1alpha1", "workflows")
RUN_ID_LABEL = "pipeline/runid"
MERGE_PATCH = "application/merge-patch+json"
TIMEOUT_SECONDS = 30.0


async def connect() -> client.ApiClient:
    """The API server's client: of the pod's own service account, or of the kubeconfig (KUBECONFIG, or kubectl's own)
    where there is none. Raises KubeError where there is neither."""
    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        try:
            # Read now: the library's own default is what the variable said when it was imported.
            await config.load_kube_config(config_file=os.environ.get("KUBECONFIG"), client_configuration=settings)
        except (config.ConfigException, OSError) as error:
            raise KubeError(
                f"the operator runs in no pod and finds no kubeconfig that it can use ({error}); set KUBECONFIG"
            ) from error
    return client.ApiClient(settings)


class KubeClient:
    """Every call is one request with a time-out; nothing is tried again here."""

    def __init__(
        self,
        api: client.ApiClient,
        *,
        workflows_namespace: str | None = None,
        on_status_write: Callable[[str], None] = lambda result: None,
    ) -> None:
        """`workflows_namespace`: where KFP's Workflows are; None for all namespaces."""
        # Its methods are generated, and their types lack the options that every call takes.
        self._api: Any = api
        self._custom: Any = client.CustomObjectsApi(api)
        self._core: Any = client.CoreV1Api(api)
        self._workflows_namespace = workflows_namespace
        self._on_status_write = on_status_write

    async def get_run(self, namespace: str, name: str) -> Object:
        """As in `Kube`."""
        call = self._custom.get_namespaced_custom_object(
            GROUP, VERSION, namespace, PLURAL, name, _request_timeout=TIMEOUT_SECONDS
        )
        found: Object = await _ask(f"get EvolutionRun {namespace}/{name}", call)
        return found

    async def write_status(self, run: Object, status: Mapping[str, Any]) -> Object:
        """As in `Kube`."""
        metadata = run["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        # Not a patch: a merge leaves keys of maps that the new status lacks, and a JSON patch's failed test is no
        # conflict. The object's version goes with it, and the API server takes nothing but the status from it.
        body = {**run, "status": dict(status)}
        call = self._custom.replace_namespaced_custom_object_status(
            GROUP, VERSION, namespace, PLURAL, name, body, _request_timeout=TIMEOUT_SECONDS
        )
        try:
            written: Object = await _ask(f"write the status of EvolutionRun {namespace}/{name}", call)
        except ConflictError:
            self._on_status_write("conflict")
            raise
        except KubeError:
            self._on_status_write("failed")
            raise
        self._on_status_write("written")
        return written

    async def delete_run(self, run: Object) -> None:
        """As in `Kube`."""
        metadata = run["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        same = client.V1Preconditions(uid=metadata["uid"], resource_version=metadata["resourceVersion"])
        call = self._custom.delete_namespaced_custom_object(
            GROUP,
            VERSION,
            namespace,
            PLURAL,
            name,
            body=client.V1DeleteOptions(preconditions=same),
            _request_timeout=TIMEOUT_SECONDS,
        )
        with contextlib.suppress(NotFoundError):
            await _ask(f"delete EvolutionRun {namespace}/{name}", call)

    async def get_config_map(self, namespace: str, name: str) -> Object:
        """As in `Kube`."""
        call = self._core.read_namespaced_config_map(name, namespace, _request_timeout=TIMEOUT_SECONDS)
        found = await _ask(f"get ConfigMap {namespace}/{name}", call)
        return self._plain(found)

    async def create_config_map(self, owner: Object, name: str, data: Mapping[str, str], *, immutable: bool) -> Object:
        """As in `Kube`."""
        metadata = owner["metadata"]
        body = {
            "metadata": {
                "name": name,
                "labels": {"app.kubernetes.io/managed-by": "perseid-operator", "perseid.dev/run": metadata["name"]},
                "ownerReferences": [
                    {
                        "apiVersion": API_VERSION,
                        "kind": KIND,
                        "name": metadata["name"],
                        "uid": metadata["uid"],
                        "controller": True,
                    }
                ],
            },
            "data": dict(data),
            "immutable": immutable,
        }
        call = self._core.create_namespaced_config_map(metadata["namespace"], body, _request_timeout=TIMEOUT_SECONDS)
        return self._plain(await _ask(f"create ConfigMap {metadata['namespace']}/{name}", call))

    async def add_to_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        """As in `Kube`."""
        call = self._core.patch_namespaced_config_map(
            name, namespace, {"data": dict(data)}, _content_type=MERGE_PATCH, _request_timeout=TIMEOUT_SECONDS
        )
        await _ask(f"write ConfigMap {namespace}/{name}", call)

    async def workflows(self, run_id: str) -> list[Object]:
        """As in `Kube`."""
        group, version, plural = WORKFLOWS
        selector = f"{RUN_ID_LABEL}={run_id}"
        if self._workflows_namespace is None:
            call = self._custom.list_cluster_custom_object(
                group, version, plural, label_selector=selector, _request_timeout=TIMEOUT_SECONDS
            )
        else:
            call = self._custom.list_namespaced_custom_object(
                group,
                version,
                self._workflows_namespace,
                plural,
                label_selector=selector,
                _request_timeout=TIMEOUT_SECONDS,
            )
        listed = await _ask(f"list the Workflows of run {run_id}", call)
        return list(listed.get("items", []))

    async def delete_workflow(self, workflow: Object) -> None:
        """As in `Kube`."""
        group, version, plural = WORKFLOWS
        namespace, name = workflow["metadata"]["namespace"], workflow["metadata"]["name"]
        call = self._custom.delete_namespaced_custom_object(
            group, version, namespace, plural, name, _request_timeout=TIMEOUT_SECONDS
        )
        with contextlib.suppress(NotFoundError):
            await _ask(f"delete Workflow {namespace}/{name}", call)

    def _plain(self, found: Any) -> Object:
        plain: Object = self._api.sanitize_for_serialization(found)
        return plain


async def _ask(what: str, call: Awaitable[Any]) -> Any:
    with _translated(what):
        return await call


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        raise _failure(what, error) from error
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise UnavailableError(
            f"cannot {what}: the API server does not answer ({type(error).__name__}: {error})"
        ) from error


def _failure(what: str, error: ApiException) -> KubeError:
    said = f"cannot {what}: {error.status} {error.reason}: {str(error.body)[:500]}"
    match error.status:
        case 404 | 410:
            return NotFoundError(said)
        case 409:
            return ConflictError(said)
        case 401 | 403:
            return ForbiddenError(said)
        case 400 | 413 | 422:
            return InvalidError(said)
    headers: Any = error.headers or {}
    wait = headers.get("Retry-After")
    return UnavailableError(said, float(wait) if wait and str(wait).isdigit() else None)
