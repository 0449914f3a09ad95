"""What a simulation is put together from: times, scripts, and what may stand behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol


@dataclass(frozen=True)
class Timing:
    """Seconds that things take; the defaults are those of the real one."""

    lag: float = 1.0
    """From a change of a Workflow to the state in the API, with a healthy agent."""
    task_lag: float = 0.05
    """From a run's state to its tasks: a finished run may show tasks that are not."""
    heartbeat: float = 10.0
    """Between two reports of a running Workflow that has not changed."""
    terminate: float = 10.0
    """From a termination to the Workflow's end."""
    orphan: float = 130.0
    """Age at which a Workflow without a row is deleted. 130, 171 and 450 were seen."""
    workflow_ttl: float = 3600.0
    """A finished Workflow is deleted after this long."""
    poll: float = 0.2
    """Between two looks at an executed run's process."""
    create: float = 0.05
    workflow_gone: float = 9.5
    kubernetes_down: float = 11.6
    list_per_run: float = 0.0043
    rate: float = 5.0
    """Requests a second that the server's own Kubernetes client sends, after a burst."""
    burst: int = 10

    def scaled(self, factor: float) -> Timing:
        """All of it faster or slower."""
        fields = {name: value * factor for name, value in asdict(self).items() if name not in {"rate", "burst"}}
        return replace(self, **fields, rate=self.rate / factor)


@dataclass(frozen=True)
class Script:
    """How a run goes."""

    pending: float | None = 1.0
    """Seconds; None until `start`."""
    running: float | None = 20.0
    """Seconds; None until `finish`."""
    outcome: str = "SUCCEEDED"
    message: str = ""


class ClusterUnreachableError(Exception):
    """The cluster with the custom resources does not answer."""


class WorkflowObjects(Protocol):
    """Where the custom resources are that others see of the Workflows. All of it raises ClusterUnreachableError."""

    async def create(self, workflow: dict[str, Any]) -> None: ...

    async def update(self, workflow: dict[str, Any]) -> None: ...

    async def delete(self, name: str) -> None: ...

    async def gone(self, names: list[str]) -> list[str]:
        """Those that somebody else has deleted."""
        ...

    async def close(self) -> None: ...


class NoObjects:
    """Nobody sees them."""

    async def create(self, workflow: dict[str, Any]) -> None: ...

    async def update(self, workflow: dict[str, Any]) -> None: ...

    async def delete(self, name: str) -> None: ...

    async def gone(self, names: list[str]) -> list[str]:
        return []

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Look:
    """What an executor sees of a Workflow: its exit code, None while it runs, and its tasks."""

    code: int | None
    tasks: list[dict[str, Any]]
    words: str = ""
    """Argo's, of one that failed."""


class Executor(Protocol):
    """Carries Workflows out instead of a script."""

    async def check(self, spec: dict[str, Any], parameters: dict[str, Any]) -> None: ...

    async def start(self, workflow: dict[str, Any]) -> None: ...

    async def look(self, workflow: dict[str, Any]) -> Look: ...

    async def stop(self, workflow: dict[str, Any]) -> None: ...


OnEnd = Callable[[dict[str, Any], str], Awaitable[None] | None]
"""Called just before a Workflow ends, with the Workflow (name, run_id, parameters) and SUCCEEDED or FAILED: where a
test writes what the run's last stage would have written. It must not settle the double."""
