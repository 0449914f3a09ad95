"""`Kube` by the API server's REST interface."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from perseid.api.base import API_VERSION, KIND
from perseid.api.pipeline import RUN_ID_LABEL
from perseid_operator.kube.connection import MERGE_PATCH, Connection, path_of
from perseid_operator.kube.protocol import ConflictError, KubeError, NotFoundError, NotLeadingError, Object

GROUP, VERSION = API_VERSION.split("/")
PLURAL = "evolutionruns"
WORKFLOWS = ("argoproj.io", "v1alpha1", "workflows")
TRAIN_JOBS = ("trainer.kubeflow.org", "v1alpha1", "trainjobs")


class KubeClient:
    """Every call is one request; nothing is tried again here."""

    def __init__(
        self,
        connection: Connection,
        *,
        workflows_namespace: str | None = None,
        on_status_write: Callable[[str], None] = lambda result: None,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        """`workflows_namespace`: where KFP's Workflows and its pods' TrainJobs are; None for all namespaces.
        `may_write`: whether this process leads at this very moment; where it does not, whatever would write raises
        NotLeadingError."""
        self._connection = connection
        self._may_write = may_write
        self._workflows_namespace = workflows_namespace
        self._on_status_write = on_status_write

    async def _ask(self, what: str, method: str, path: str, *body: Mapping[str, Any], **options: Any) -> Any:
        if method != "GET" and not self._may_write():
            raise NotLeadingError(f"cannot {what}: another operator leads by now")
        return await self._connection.ask(what, method, path, *body, **options)

    async def get_run(self, namespace: str, name: str) -> Object:
        """As in `Kube`."""
        found: Object = await self._ask(f"get EvolutionRun {namespace}/{name}", "GET", _run_path(namespace, name))
        return found

    async def write_status(self, run: Object, status: Mapping[str, Any]) -> Object:
        """As in `Kube`."""
        metadata = run["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        # Not a patch: a merge leaves keys of maps that the new status lacks, and a JSON patch's failed test is no
        # conflict. The object's version goes with it, and the API server takes nothing but the status from it.
        body = {**run, "status": dict(status)}
        path = _run_path(namespace, name) + "/status"
        try:
            written: Object = await self._ask(f"write the status of EvolutionRun {namespace}/{name}", "PUT", path, body)
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
        same = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        with contextlib.suppress(NotFoundError):
            what = f"delete EvolutionRun {namespace}/{name}"
            await self._ask(what, "DELETE", _run_path(namespace, name), {"preconditions": same})

    async def get_config_map(self, namespace: str, name: str) -> Object:
        """As in `Kube`."""
        path = _config_map_path(namespace, name)
        found: Object = await self._ask(f"get ConfigMap {namespace}/{name}", "GET", path)
        return found

    async def create_config_map(self, owner: Object, name: str, data: Mapping[str, str], *, immutable: bool) -> Object:
        """As in `Kube`."""
        metadata = owner["metadata"]
        namespace = metadata["namespace"]
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
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
        path = _config_map_path(namespace)
        made: Object = await self._ask(f"create ConfigMap {namespace}/{name}", "POST", path, body)
        return made

    async def add_to_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        """As in `Kube`."""
        path = _config_map_path(namespace, name)
        what = f"write ConfigMap {namespace}/{name}"
        await self._ask(what, "PATCH", path, {"data": dict(data)}, content_type=MERGE_PATCH)

    async def workflows(self, run_id: str) -> list[Object]:
        """As in `Kube`."""
        return await self._of_run(f"list the Workflows of run {run_id}", WORKFLOWS, run_id)

    async def train_jobs(self, run_id: str) -> list[Object]:
        """As in `Kube`."""
        return await self._of_run(f"list the TrainJobs of run {run_id}", TRAIN_JOBS, run_id)

    async def _of_run(self, what: str, kind: tuple[str, str, str], run_id: str) -> list[Object]:
        query = {"labelSelector": f"{RUN_ID_LABEL}={run_id}"}
        listed = await self._ask(what, "GET", _path_of_kind(kind, self._workflows_namespace), query=query)
        return list(listed.get("items", []))

    async def delete_workflow(self, workflow: Object) -> None:
        """As in `Kube`."""
        namespace, name = workflow["metadata"]["namespace"], workflow["metadata"]["name"]
        with contextlib.suppress(NotFoundError):
            path = _path_of_kind(WORKFLOWS, namespace, name)
            await self._ask(f"delete Workflow {namespace}/{name}", "DELETE", path)


def _run_path(namespace: str, name: str) -> str:
    return path_of("apis", GROUP, VERSION, "namespaces", namespace, PLURAL, name)


def _config_map_path(namespace: str, *name: str) -> str:
    return path_of("api", "v1", "namespaces", namespace, "configmaps", *name)


def _path_of_kind(kind: tuple[str, str, str], namespace: str | None, *name: str) -> str:
    group, version, plural = kind
    scope = [] if namespace is None else ["namespaces", namespace]
    return path_of("apis", group, version, *scope, plural, *name)
