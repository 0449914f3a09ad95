"""EvolutionRuns on a real API server, for tests: create, change and read them, and what the server says against it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster_access import KubectlError

from perseid.api.base import API_VERSION, KIND

if TYPE_CHECKING:
    from cluster_access import Cluster
    from kubernetes_asyncio.client import ApiClient

REPOSITORY = Path(__file__).parents[2]
MANIFESTS = REPOSITORY / "manifests"
CRD_FILE = MANIFESTS / "base" / "crd.yaml"
CRD_NAME = "evolutionruns.perseid.dev"
UID = "6d0c1f6e-0f64-4c7e-9d3b-0a4b1c2d3e4f"


class RefusedError(Exception):
    """The API server's answer to a wrong object; the message is what a user of kubectl reads."""


def install_crd(cluster: Cluster) -> None:
    """Have the cluster know EvolutionRuns as manifests/ ships them; returns when it serves them."""
    _install(cluster)


@lru_cache
def _install(cluster: Cluster) -> None:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(CRD_FILE))
    wait_until_established(cluster, CRD_NAME)
    wait_until_served(cluster)


def wait_until_established(cluster: Cluster, crd: str) -> None:
    """Return when the API server has taken the kind. `kubectl wait` gives up on a CRD that has no conditions yet."""
    deadline = time.monotonic() + 60
    conditions: dict[str, str] = {}
    while conditions.get("Established") != "True":
        assert time.monotonic() < deadline, f"{crd} is not established after a minute: {conditions}"
        status = json.loads(cluster.kubectl("get", "crd", crd, "--output=json")).get("status", {})
        conditions = {condition["type"]: condition["status"] for condition in status.get("conditions") or []}


def wait_until_served(cluster: Cluster) -> None:
    """Return when the API server answers for EvolutionRuns: it calls a kind Established some moments before it has made
    its storage for it, and is ready after a restart some moments before it serves any."""
    deadline = time.monotonic() + 30
    while True:
        try:
            cluster.kubectl("get", CRD_NAME, "--all-namespaces")
            return
        except KubectlError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class EvolutionRuns:
    """The EvolutionRuns of a namespace, as JSON."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        from kubernetes_asyncio.client import CustomObjectsApi

        self._api = CustomObjectsApi(client)
        self._place = ("perseid.dev", "v1alpha1", namespace, "evolutionruns")

    async def create(
        self, spec: dict[str, Any] | None, name: str = "run", *, dry_run: bool = False, strict: bool = True
    ) -> dict[str, Any]:
        """Create one, or only try. Raises RefusedError."""
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}}
        options = {"field_validation": "Strict" if strict else "Ignore", **({"dry_run": "All"} if dry_run else {})}
        with _refusals():
            return await self._api.create_namespaced_custom_object(
                *self._place, body if spec is None else {**body, "spec": spec}, **options
            )

    async def change(self, name: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Apply a JSON merge patch. Raises RefusedError."""
        with _refusals():
            return await self._api.patch_namespaced_custom_object(
                *self._place, name, changes, _content_type="application/merge-patch+json"
            )

    async def write_status(self, name: str, status: dict[str, Any]) -> dict[str, Any]:
        """Apply a JSON merge patch to the status. Raises RefusedError."""
        with _refusals():
            return await self._api.patch_namespaced_custom_object_status(
                *self._place, name, {"status": status}, _content_type="application/merge-patch+json"
            )

    async def get(self, name: str) -> dict[str, Any]:
        """The object as it is stored."""
        return await self._api.get_namespaced_custom_object(*self._place, name)


@contextlib.contextmanager
def _refusals():
    from kubernetes_asyncio.client import ApiException

    try:
        yield
    except ApiException as error:
        if error.status not in (400, 422):
            raise
        raise RefusedError(json.loads(error.body)["message"]) from error


@contextlib.asynccontextmanager
async def evolution_runs(cluster: Cluster, namespace: str = "default") -> AsyncIterator[EvolutionRuns]:
    """The EvolutionRuns of a namespace, with the CRD installed. In `default` only try (`dry_run`), store nothing."""
    install_crd(cluster)
    async with cluster.client() as client:
        yield EvolutionRuns(client, namespace)


def spec_with(path: str, value: Any) -> dict[str, Any]:
    """A spec that says one thing: `spec_with("finetune.lora.rank", 8)`."""
    spec: Any = value
    for part in reversed(path.split(".")):
        spec = {part: spec}
    return spec
