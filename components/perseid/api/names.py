"""Names that are made from a run's own: the same whoever computes them, whenever."""

from __future__ import annotations

HISTORY_SIZE = 500
"""Generations in one history ConfigMap: at a kilobyte each well under what one object may hold."""


def display_name(namespace: str, name: str, generation: int, attempt: int) -> str:
    """An attempt's run in the Kubeflow UI: lower case, digits, `.` and `-` only."""
    return f"{namespace}.{name}-g{generation:03d}-a{attempt}"


def experiment_name(namespace: str, name: str) -> str:
    """The experiment that holds a run's attempts."""
    return f"{namespace}.{name}"


def pipeline_config_map(name: str, uid: str) -> str:
    """The ConfigMap with the frozen pipeline. The uid keeps a re-created object apart from the one before it."""
    return f"{name}-{uid[:8]}-pipeline"


def history_config_map(name: str, uid: str, generation: int) -> str:
    """The ConfigMap with a generation that the status has no more room for."""
    return f"{name}-{uid[:8]}-history-{generation // HISTORY_SIZE}"


def storage_root(wanted: str | None, default: str, namespace: str, name: str, uid: str) -> str:
    """Where a run's files lie: what its spec says, else a directory of its own below the operator's root."""
    return (wanted or f"{default.rstrip('/')}/{namespace}/{name}-{uid}").rstrip("/")
