"""The Lease that an election goes by: what stands in it, and what is written into it."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol


class LeaseApi(Protocol):
    """The part of kubernetes_asyncio's CoordinationV1Api that an election needs."""

    def read_namespaced_lease(self, name: str, namespace: str, **options: Any) -> Coroutine[Any, Any, Any]:
        """GET."""
        ...

    def create_namespaced_lease(self, namespace: str, body: Any, **options: Any) -> Coroutine[Any, Any, Any]:
        """POST."""
        ...

    def replace_namespaced_lease(
        self, name: str, namespace: str, body: Any, **options: Any
    ) -> Coroutine[Any, Any, Any]:
        """PUT."""
        ...


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A Lease as it was seen. It is another one when its version is."""

    version: str
    holder: str
    """Empty where nobody holds it."""
    duration: float
    """Seconds that its holder asks others to wait; 0 where it does not say."""
    acquired: str | None
    transitions: int
    """How often the holder has changed."""
    seen_at: float
    """When this version was first seen, by the watcher's own clock."""


def parse_lease(lease: Any, seen_at: float) -> LeaseRecord:
    """What a V1Lease says. Raises ValueError for what is none."""
    version = getattr(getattr(lease, "metadata", None), "resource_version", None)
    if not isinstance(version, str) or not version:
        raise ValueError("the answer is no Lease: it has no resourceVersion")
    spec = lease.spec
    if spec is None:
        return LeaseRecord(version, "", 0.0, None, 0, seen_at)
    return LeaseRecord(
        version=version,
        holder=spec.holder_identity or "",
        duration=float(spec.lease_duration_seconds or 0),
        acquired=None if spec.acquire_time is None else _micro_time(spec.acquire_time),
        transitions=spec.lease_transitions or 0,
        seen_at=seen_at,
    )


def claim(name: str, namespace: str, identity: str, seconds: float, seen: LeaseRecord | None) -> dict[str, Any]:
    """A Lease held by `identity`, to be written over the one that was seen, and over no other."""
    now = _micro_time(datetime.now(UTC))
    renewal = seen is not None and seen.holder == identity
    body: dict[str, Any] = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "holderIdentity": identity,
            "leaseDurationSeconds": int(seconds),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": 0,
        },
    }
    if seen is not None:
        body["metadata"]["resourceVersion"] = seen.version
        body["spec"]["acquireTime"] = seen.acquired if renewal and seen.acquired else now
        body["spec"]["leaseTransitions"] = seen.transitions + (0 if renewal else 1)
    return body


def release(name: str, namespace: str, seen: LeaseRecord) -> dict[str, Any]:
    """The Lease that was seen, without a holder: others may take it at once."""
    body = claim(name, namespace, seen.holder, 1.0, seen)
    del body["spec"]["holderIdentity"]  # An empty name would be refused.
    return body


def _micro_time(moment: datetime) -> str:
    """As Kubernetes' MicroTime wants it: with all six digits, also where they are zeros."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
