"""Rows as KFP's REST API shows them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from kfp_double.specs import check_answer

_NOT_YET_OF_A_TASK = "0001-01-01T00:00:00Z"


def run_json(row: dict[str, Any]) -> dict[str, Any]:
    """A run, whole."""
    run = {
        "experiment_id": row["experiment_id"],
        "run_id": row["run_id"],
        "display_name": row["display_name"],
        "storage_state": row["storage_state"],
        "pipeline_spec": row["pipeline_spec"],
        "runtime_config": row["runtime_config"],
        "service_account": row["service_account"],
        "created_at": time_text(row["created_at"]),
        "scheduled_at": time_text(row["scheduled_at"]),
        "finished_at": time_text(row["finished_at"]),
        "state": row["state"],
        "state_history": [
            {"update_time": time_text(entry["at"]), **({"state": entry["state"]} if entry["state"] else {})}
            for entry in row["history"]
        ],
    }
    if row["description"]:
        run["description"] = row["description"]
    if row["hide_state"]:
        del run["state"]
    nodes = [node for task in row["tasks"] for node in _nodes(row["run_id"], task)]
    if nodes:
        run["run_details"] = {"task_details": nodes}
    # What a client posted, it gets back as it was; only the rest is the double's own.
    check_answer({**run, "pipeline_spec": {}, "runtime_config": {}}, "V2beta1Run")
    return run


def experiment_json(row: dict[str, Any]) -> dict[str, Any]:
    """An experiment."""
    experiment = {
        "experiment_id": row["experiment_id"],
        "display_name": row["display_name"],
        "created_at": time_text(row["created_at"]),
        "storage_state": row["storage_state"],
        "last_run_created_at": time_text(row["last_run_created_at"]),
    }
    for name in ("description", "namespace"):
        if row[name]:
            experiment[name] = row[name]
    return check_answer(experiment, "V2beta1Experiment")


def _nodes(run_id: str, task: dict[str, Any]) -> list[dict[str, Any]]:
    """A task as KFP shows it: as the nodes of Argo, of which a task has several."""
    if task["state"] is None:
        return []
    name, start, end = task["name"], task.get("start"), task.get("end")
    names = [(f"{name}-driver", "SUCCEEDED", start), (name, task["state"], end), ("executor", task["state"], end)]
    if task["retried"]:
        names.insert(2, (f"{name}(0)", task["state"], end))
    return [
        {
            "run_id": run_id,
            "task_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id}/{name}/{node}")),
            "display_name": node,
            "create_time": time_text(start),
            "start_time": time_text(start) if start else _NOT_YET_OF_A_TASK,
            "end_time": time_text(ended) if ended else _NOT_YET_OF_A_TASK,
            "state": state,
        }
        for node, state, ended in names
    ]


def time_text(seconds: float | None) -> str:
    return datetime.fromtimestamp(int(seconds or 0), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
