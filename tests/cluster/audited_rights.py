"""Which rights somebody has used, by the API server's own audit log, and which ones a Role gives."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from control_plane import ControlPlane


def rights_in(role_file: Path) -> set[tuple[str, str]]:
    """(resource, verb) that a Role gives."""
    role = next(part for part in yaml.safe_load_all(role_file.read_text()) if part["kind"] == "Role")
    return {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}


def rights_used(cluster: ControlPlane, user: str) -> set[tuple[str, str]]:
    """(resource, verb) that somebody was allowed to use, by the API server's audit log. Watches are there once they
    have ended."""
    used = set()
    for line in cluster.audit_log.read_text().splitlines():
        event = json.loads(line)
        at = event.get("objectRef", {})
        if event["user"]["username"] == user and event["responseStatus"].get("code") != 403 and "resource" in at:
            resource = at["resource"] + (f"/{at['subresource']}" if at.get("subresource") else "")
            used.add((resource, event["verb"]))
    return used
