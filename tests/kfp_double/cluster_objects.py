"""The double's Workflows as custom resources of a real cluster, for whoever watches or lists them there.

An object that somebody deletes is a lost Workflow. Nothing acts on the objects: what they show is the double's doing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Self

import aiohttp
from kubernetes_asyncio import client, config, watch
from kubernetes_asyncio.client.exceptions import ApiException

from kfp_double.answers import time_text
from kfp_double.parts import ClusterUnreachableError

GROUP, VERSION, PLURAL = "argoproj.io", "v1alpha1", "workflows"
RUN_LABEL = "pipeline/runid"
_CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"{PLURAL}.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"kind": "Workflow", "plural": PLURAL, "singular": "workflow", "shortNames": ["wf"]},
        "versions": [
            {
                "name": VERSION,
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


class ClusterObjects:
    """Workflow objects in one namespace."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.api = api
        self._place = (GROUP, VERSION, namespace, PLURAL)
        self._objects = client.CustomObjectsApi(api)
        self.patience = 10.0
        """Seconds after which a cluster that does not answer counts as unreachable."""

    @classmethod
    async def connect(cls, kubeconfig: Path | None, namespace: str) -> Self:
        """Install the CRD where the cluster has none, and wait until it is served. The namespace must exist. Without a
        kubeconfig: the cluster that this process is a pod of."""
        configuration = client.Configuration()
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
        connected = cls(client.ApiClient(configuration), namespace)
        await connected._install()
        return connected

    async def close(self) -> None:
        await self.api.close()

    async def create(self, workflow: dict[str, Any]) -> None:
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "Workflow",
            "metadata": {
                "name": workflow["name"],
                "labels": {RUN_LABEL: workflow["run_id"]},
                "annotations": {"pipelines.kubeflow.org/run_name": workflow["name"]},
            },
            "spec": {"serviceAccountName": "pipeline-runner", "entrypoint": "entrypoint"},
            "status": _status(workflow),
        }
        await self._answered(self._objects.create_namespaced_custom_object(*self._place, body))

    async def update(self, workflow: dict[str, Any]) -> None:
        labels = {"workflows.argoproj.io/phase": workflow["phase"]}
        if workflow["phase"] in {"Succeeded", "Failed"}:
            labels["workflows.argoproj.io/completed"] = "true"
        if workflow.get("persisted"):
            labels["pipeline/persistedFinalState"] = "true"
        patch = {"metadata": {"labels": labels}, "status": _status(workflow)}
        # One that has been deleted just now is found missing at the next look.
        await self._answered(
            self._objects.patch_namespaced_custom_object(
                *self._place,
                workflow["name"],
                patch,
                _content_type="application/merge-patch+json",
            ),
            may_be_missing=True,
        )

    async def delete(self, name: str) -> None:
        await self._answered(
            self._objects.delete_namespaced_custom_object(*self._place, name),
            may_be_missing=True,
        )

    async def gone(self, names: list[str]) -> list[str]:
        """Those of the names that the cluster does not have any more."""
        if not names:
            return []
        listed = await self._answered(self._objects.list_namespaced_custom_object(*self._place))
        there = {item["metadata"]["name"] for item in listed["items"]}
        return [name for name in names if name not in there]

    async def _install(self) -> None:
        definitions = client.ApiextensionsV1Api(self.api)
        try:
            await definitions.create_custom_resource_definition(_CRD)
        except ApiException as error:
            if error.status != 409:
                raise
        async with watch.Watch() as watcher:
            async for event in watcher.stream(
                definitions.list_custom_resource_definition, field_selector=f"metadata.name={_CRD['metadata']['name']}"
            ):
                conditions = event["object"].status.conditions or []
                if any(condition.type == "Established" and condition.status == "True" for condition in conditions):
                    return

    async def _answered(self, call: Awaitable[Any], *, may_be_missing: bool = False) -> Any:
        """What the cluster answers. Raises ClusterUnreachableError."""
        try:
            async with asyncio.timeout(self.patience):
                return await call
        except ApiException as error:
            if error.status == 404 and may_be_missing:
                return None
            if error.status is not None and error.status < 500:
                raise
            raise ClusterUnreachableError(str(error.reason)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterUnreachableError(str(error) or type(error).__name__) from error


def _status(workflow: dict[str, Any]) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": workflow["phase"]}
    for field, column in (("startedAt", "started_at"), ("finishedAt", "finished_at")):
        if workflow.get(column):
            status[field] = time_text(workflow[column])
    if workflow.get("message"):
        status["message"] = workflow["message"]
    pods = [pod for task in workflow["tasks"] for pod in task.get("pods", [])]
    if pods:
        status["nodes"] = {pod["name"]: _node(pod) for pod in pods}
    return status


def _node(pod: dict[str, Any]) -> dict[str, Any]:
    message = {"message": pod["message"]} if pod["message"] else {}
    return {
        "id": pod["name"],
        "name": pod["name"],
        "type": "Pod",
        "phase": pod["phase"],
        "startedAt": time_text(pod["startedAt"]),
        **message,
    }
