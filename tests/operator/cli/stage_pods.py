"""Pods as Argo and Kubeflow make them for the stages of a run (Kubeflow Pipelines 2.17, Argo 3 and 4)."""

from __future__ import annotations

from typing import Any

WORKFLOW = "perseid-generation-x7k2p"


def pod(
    name: str,
    run_id: str,
    node: str | None,
    *,
    namespace: str = "kubeflow",
    second: int = 0,
    function: str | None = None,
    waiting: dict[str, str] | None = None,
    conditions: list[dict[str, str]] | None = None,
    phase: str = "Succeeded",
) -> dict[str, Any]:
    """A pod whose main container has run, or waits."""
    state: dict[str, Any] = {"running": {}} if phase == "Running" else {"terminated": {"exitCode": 0}}
    if waiting is not None:
        state, phase = {"waiting": waiting}, "Pending"
    statuses = [] if conditions else [{"name": "main", "state": state, "ready": False, "restartCount": 0}]
    for one in statuses:
        one |= {"image": "stage", "imageID": ""}
    command = ["/kfp-launcher/launch", "--", "sh", "-c", "..."]
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"pipeline/runid": run_id, "pipelines.kubeflow.org/v2_component": "true"},
            "annotations": {} if node is None else {"workflows.argoproj.io/node-name": f"{WORKFLOW}.{node}"},
            "creationTimestamp": f"2026-01-01T00:00:{second:02d}Z",
        },
        "spec": {
            "containers": [
                {"name": "wait", "image": "argoexec"},
                {
                    "name": "main",
                    "image": "stage",
                    "command": command,
                    "args": ["--executor_input", "{{$}}", *(["--function_to_execute", function] if function else [])],
                },
            ]
        },
        "status": {
            "phase": "Pending" if conditions else phase,
            "containerStatuses": statuses,
            "conditions": conditions,
        },
    }


def stage(name: str, run_id: str, **more: Any) -> dict[str, Any]:
    """The pod that runs a stage."""
    return pod(f"{WORKFLOW}-{name}", run_id, f"root.{name}.executor", **more)


def driver(name: str, run_id: str) -> dict[str, Any]:
    """The pod with which Kubeflow prepares a stage."""
    return pod(f"{WORKFLOW}-{name}-driver", run_id, f"root.{name}-driver")
