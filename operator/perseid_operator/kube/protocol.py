"""The few things that the operator reads and writes in Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Object = Mapping[str, Any]
"""A Kubernetes object as JSON."""


class KubeError(Exception):
    """The API server did not do what was asked. The message says what and why."""


class ConflictError(KubeError):
    """The object has changed since it was read: read it again and decide again."""


class NotFoundError(KubeError):
    """There is no such object (any more)."""


class ForbiddenError(KubeError):
    """The operator's role does not allow it."""


class InvalidError(KubeError):
    """The API server refuses the object itself: too big, or not what its schema says. Asking again will not help."""


class NotLeadingError(KubeError):
    """Another operator leads by now: nothing is written any more."""


class UnavailableError(KubeError):
    """The API server cannot be reached, is overloaded or broken: ask again later."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that it asked to wait; None where it did not say."""


class Kube(Protocol):
    """All calls raise KubeErrors and nothing else; a namespace and a name say which object."""

    async def get_run(self, namespace: str, name: str) -> Object:
        """An EvolutionRun."""
        ...

    async def write_status(self, run: Object, status: Mapping[str, Any]) -> Object:
        """Replace the status of the EvolutionRun if it still is the version that `run` shows; returns the new one.

        Raises ConflictError otherwise: this is what keeps two operators from carrying out the same decision.
        """
        ...

    async def delete_run(self, run: Object) -> None:
        """Delete the EvolutionRun if it still is the version that `run` shows. One that is gone is no error."""
        ...

    async def get_config_map(self, namespace: str, name: str) -> Object:
        """A ConfigMap."""
        ...

    async def create_config_map(self, owner: Object, name: str, data: Mapping[str, str], *, immutable: bool) -> Object:
        """A ConfigMap that goes with its owner, an EvolutionRun. Raises ConflictError where the name is taken."""
        ...

    async def add_to_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        """Set some keys."""
        ...

    async def workflows(self, run_id: str) -> list[Object]:
        """The Argo Workflows with that run id. Raises ForbiddenError where the operator may not look, NotFoundError
        where the cluster has none at all."""
        ...

    async def train_jobs(self, run_id: str) -> list[Object]:
        """The TrainJobs of Kubeflow Trainer that the run's launchers have made. Raises what `workflows` does."""
        ...

    async def delete_workflow(self, workflow: Object) -> None:
        """Delete a Workflow. One that is gone is no error."""
        ...
