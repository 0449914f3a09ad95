"""The Lease that an election goes by: what stands in it, and what is written into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from perseid_operator.kube.protocol import Object


class LeaseApi(Protocol):
    """What an election needs of Kubernetes. All calls raise KubeErrors and nothing else."""

    async def read_lease(self, namespace: str, name: str) -> Object:
        """The Lease. Raises NotFoundError."""
        ...

    async def create_lease(self, namespace: str, body: dict[str, Any]) -> Object:
        """Raises ConflictError where there is one."""
        ...

    async def replace_lease(self, namespace: str, name: str, body: dict[str, Any]) -> Object:
        """Raises ConflictError where it is not the version any more that the body names."""
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


def parse_lease(lease: Object, seen_at: float) -> LeaseRecord:
    """What a Lease says. Raises ValueError for what is none."""
    try:
        version = lease["metadata"]["resourceVersion"]
        spec: Mapping[str, Any] = lease.get("spec") or {}
        return LeaseRecord(
            version=str(version),
            holder=spec.get("holderIdentity") or "",
            duration=float(spec.get("leaseDurationSeconds") or 0),
            acquired=spec.get("acquireTime"),
            transitions=int(spec.get("leaseTransitions") or 0),
            seen_at=seen_at,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the answer is no Lease ({error!r})") from error


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
