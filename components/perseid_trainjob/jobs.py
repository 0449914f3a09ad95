"""TrainJobs as Kubernetes' API has them: made once, adopted where they are there, looked at, and deleted."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from perseid_trainjob.errors import TrainJobError
from perseid_trainjob.manifest import GROUP, PLURAL, VERSION, LauncherPod

log = logging.getLogger(__name__)

REQUEST_SECONDS = 30.0
PATIENCE_SECONDS = 600.0
"""How long an outage of the API server is waited for."""
PAUSE_SECONDS = 3.0

T = TypeVar("T")


def connect() -> client.ApiClient:
    """With the pod's service account; outside of a cluster, with the kubeconfig. Raises TrainJobError."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        try:
            config.load_kube_config()
        except config.ConfigException as error:
            raise TrainJobError(f"there is no way to Kubernetes from here: {error}") from error
    return client.ApiClient()


class TrainJobs:
    """The TrainJobs of one namespace. Calls raise TrainJobError where they are refused, or an outage is too long."""

    def __init__(self, api: client.ApiClient, namespace: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._api = client.CustomObjectsApi(api)
        self._namespace = namespace
        self._sleep = sleep

    def ensure(self, manifest: Mapping[str, Any], pod: LauncherPod) -> None:
        """Create it, or adopt the one of that name: a launcher before this one has made it, and was killed."""
        name = manifest["metadata"]["name"]
        while True:
            if self._create(manifest):
                log.info("made the TrainJob %s", name)
                return
            found = self.get(name)
            if found is None:
                continue
            if found["metadata"].get("deletionTimestamp"):
                self._sleep(PAUSE_SECONDS)  # of the try before: its successor must have the name
                continue
            self._adopt(found, pod)
            log.info("adopted the TrainJob %s, which is there already", name)
            return

    def _create(self, manifest: Mapping[str, Any]) -> bool:
        """False where there is one of that name. A request whose answer was lost may have made it, too."""
        try:
            self._ask("create", lambda: self._api.create_namespaced_custom_object(
                GROUP, VERSION, self._namespace, PLURAL, manifest, _request_timeout=REQUEST_SECONDS
            ))  # fmt: skip
        except _ConflictError:
            return False
        return True

    def _adopt(self, found: Mapping[str, Any], pod: LauncherPod) -> None:
        """Become an owner, too: the first launcher's pod may be cleared away while this one looks after the job."""
        owners = found["metadata"].get("ownerReferences") or []
        if any(owner["uid"] == pod.uid for owner in owners):
            return
        metadata = {
            "ownerReferences": [*owners, pod.reference],
            "resourceVersion": found["metadata"]["resourceVersion"],
        }
        name = found["metadata"]["name"]
        try:
            self._ask("patch", lambda: self._api.patch_namespaced_custom_object(
                GROUP, VERSION, self._namespace, PLURAL, name, {"metadata": metadata}, _request_timeout=REQUEST_SECONDS
            ))  # fmt: skip
        except _ConflictError:
            again = self.get(name)
            if again is not None:
                self._adopt(again, pod)

    def get(self, name: str) -> dict[str, Any] | None:
        """The TrainJob; None where there is none."""
        try:
            found: dict[str, Any] = self._ask("get", lambda: self._api.get_namespaced_custom_object(
                GROUP, VERSION, self._namespace, PLURAL, name, _request_timeout=REQUEST_SECONDS
            ))  # fmt: skip
        except _AbsentError:
            return None
        return found

    def names(self, labels: Mapping[str, str]) -> list[str]:
        """Those with these labels."""
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        try:
            found = self._ask("list", lambda: self._api.list_namespaced_custom_object(
                GROUP, VERSION, self._namespace, PLURAL, label_selector=selector, _request_timeout=REQUEST_SECONDS
            ))  # fmt: skip
        except _AbsentError as error:
            raise TrainJobError(
                f"this cluster knows no TrainJobs ({error}): install Kubeflow Trainer 2.2 or later, or remove"
                " pipeline.trainJob"
            ) from error
        return [one["metadata"]["name"] for one in found["items"]]

    def delete(self, name: str) -> None:
        """Delete it, and with it its pods; one that is gone is no error."""
        try:
            self._ask("delete", lambda: self._api.delete_namespaced_custom_object(
                GROUP, VERSION, self._namespace, PLURAL, name,
                propagation_policy="Background", _request_timeout=REQUEST_SECONDS,
            ))  # fmt: skip
        except _AbsentError:
            return
        log.info("deleted the TrainJob %s", name)

    def _ask(self, verb: str, request: Callable[[], T]) -> T:
        """Make a request, again and again while the API server cannot answer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return request()
            except ApiException as error:
                if error.status == 404:
                    raise _AbsentError(_said(error)) from error
                if error.status == 409:
                    raise _ConflictError(_said(error)) from error
                if error.status in (401, 403):
                    raise TrainJobError(
                        f"Kubernetes refuses to {verb} TrainJobs in namespace {self._namespace}: {_said(error)}; the"
                        " service account of the pipeline's pods needs the Role of manifests/train-jobs (or the chart's"
                        " trainJobs.enabled)"
                    ) from error
                if error.status is not None and 400 <= error.status < 500 and error.status != 429:
                    raise TrainJobError(f"Kubernetes does not take the TrainJob: {_said(error)}") from error
                trouble = _said(error)
            except HTTPError as error:
                trouble = str(error)
            if time.monotonic() >= deadline:
                raise TrainJobError(f"Kubernetes' API server cannot be asked ({verb}): {trouble}")
            log.warning("Kubernetes' API server cannot be asked, trying again: %s", trouble)
            self._sleep(PAUSE_SECONDS)


class _AbsentError(Exception):
    """There is no such object, or no such kind."""


class _ConflictError(Exception):
    """It is there already, or was changed in between."""


def _said(error: ApiException) -> str:
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason
    return " ".join(str(message).split())[:600]
