"""What KFP tells about a run, without what it only seems to tell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

_EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)
"""KFP writes a time that has not come as the first second of 1970 or of the year 1."""
_HELPER_NODE = re.compile(r".*-driver|executor|root|.*\(\d+\)|.*\.pre|.*\.init", re.DOTALL)
"""Argo's nodes around a task: drivers, the shared executor template, tries of a retry."""


class KfpRunState(StrEnum):
    """State of a run or task, as KFP names it."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    """Also the end of a run that was terminated."""
    CANCELING = "CANCELING"
    CANCELED = "CANCELED"
    """Never seen; here because KFP declares it."""
    PAUSED = "PAUSED"

    @property
    def is_final(self) -> bool:
        """Whether it is an end. It can still be left: a second Workflow of the same run id brings RUNNING back."""
        return self in (KfpRunState.SUCCEEDED, KfpRunState.SKIPPED, KfpRunState.FAILED, KfpRunState.CANCELED)


@dataclass(frozen=True, slots=True)
class StateChange:
    """An entry of a run's history."""

    state: KfpRunState | None
    at: datetime | None


@dataclass(frozen=True, slots=True)
class KfpTask:
    """One component's task."""

    state: KfpRunState | None
    start: datetime | None
    end: datetime | None
    """None while it runs."""


@dataclass(frozen=True, slots=True)
class KfpRun:
    """One run."""

    run_id: str
    state: KfpRunState | None
    """None where KFP does not say, or says something unknown: not an end."""
    display_name: str = ""
    experiment_id: str = ""
    state_history: tuple[StateChange, ...] = ()
    created_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    """KFP's own words. It has never been seen to set any; why a run failed stands elsewhere."""
    archived: bool = False
    tasks: Mapping[str, KfpTask] = field(default_factory=dict)
    """By name of the component's task, or the loop's; the nodes that Argo adds around them are left out. May lag behind
    the run's own state, and be incomplete when that is already final."""

    @property
    def is_final(self) -> bool:
        """Whether the run is over, as far as KFP knows."""
        return self.state is not None and self.state.is_final

    @property
    def was_terminating(self) -> bool:
        """Whether anybody has asked to terminate it, and nobody to retry it since: a terminated run ends as FAILED."""
        states = [*(change.state for change in self.state_history), self.state]
        alive = [state for state in states if state is not None and not state.is_final]
        return alive[-1:] == [KfpRunState.CANCELING]


class NotARunError(ValueError):
    """The answer does not have the shape of a run; the message says where."""


def parse_run(data: Any) -> KfpRun:
    """Read a run from KFP's JSON. Raises NotARunError."""
    run = _mapping(data, "run")
    run_id = run.get("run_id")
    if not isinstance(run_id, str) or not run_id:
        raise NotARunError("run_id is missing")
    details = _mapping(run.get("run_details") or {}, "run_details")
    return KfpRun(
        run_id=run_id,
        state=_state(run.get("state")),
        display_name=_text(run, "display_name"),
        experiment_id=_text(run, "experiment_id"),
        state_history=tuple(_change(entry) for entry in _sequence(run.get("state_history") or (), "state_history")),
        created_at=_time(run.get("created_at"), "created_at"),
        finished_at=_time(run.get("finished_at"), "finished_at"),
        error=_error(run.get("error")),
        archived=run.get("storage_state") == "ARCHIVED",
        tasks=_tasks(_sequence(details.get("task_details") or (), "task_details"), _component_tasks(run)),
    )


def _component_tasks(run: Mapping[str, Any]) -> dict[str, str] | None:
    """Names of the pipeline's own tasks by those of their nodes, which differ where a task is a loop; None where the
    answer does not carry the pipeline."""
    spec = run.get("pipeline_spec")
    if isinstance(spec, Mapping) and isinstance(spec.get("pipeline_spec"), Mapping):
        spec = spec["pipeline_spec"]
    try:
        return {
            node: task["taskInfo"]["name"] if "parameterIterator" in task else node
            for node, task in spec["root"]["dag"]["tasks"].items()  # type: ignore[index]
        }
    except (AttributeError, KeyError, TypeError):
        return None


def _tasks(details: Sequence[Any], wanted: Mapping[str, str] | None) -> dict[str, KfpTask]:
    found: dict[str, KfpTask] = {}
    for entry in details:
        node = _mapping(entry, "task_details")
        name = _text(node, "display_name")
        if not name or (name not in wanted if wanted is not None else _HELPER_NODE.fullmatch(name)):
            continue
        name = name if wanted is None else wanted[name]
        task = KfpTask(
            state=_state(node.get("state")),
            start=_time(node.get("start_time"), f"{name}.start_time"),
            end=_time(node.get("end_time"), f"{name}.end_time"),
        )
        earlier = found.get(name)
        if earlier is None or _later(task.start, earlier.start):
            found[name] = task
    return found


def _later(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and (other is None or one > other)


def _state(value: Any) -> KfpRunState | None:
    try:
        return KfpRunState(value)
    except ValueError:
        return None


def _change(entry: Any) -> StateChange:
    change = _mapping(entry, "state_history")
    return StateChange(_state(change.get("state")), _time(change.get("update_time"), "state_history.update_time"))


def _time(value: Any, where: str) -> datetime | None:
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise NotARunError(f"{where} is no time: {value!r}") from None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    return None if time < _EARLIEST else time


def _error(value: Any) -> str | None:
    if not value:
        return None
    message = value.get("message") if isinstance(value, Mapping) else value
    return str(message) if message else None


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise NotARunError(f"{key} is no text: {value!r}")
    return value


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise NotARunError(f"{where} is no object: {str(value)[:80]!r}")
    return value


def _sequence(value: Any, where: str) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise NotARunError(f"{where} is no list: {str(value)[:80]!r}")
    return value
