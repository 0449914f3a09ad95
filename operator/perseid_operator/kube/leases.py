"""Leases, by the API server's REST interface."""

from __future__ import annotations

from typing import Any

from perseid_operator.kube.connection import Connection, path_of
from perseid_operator.kube.protocol import Object


class LeaseClient:
    """`LeaseApi` on a connection. Give it one of its own: an election must not wait behind other requests."""

    def __init__(self, connection: Connection) -> None:
        self._ask = connection.ask

    async def read_lease(self, namespace: str, name: str) -> Object:
        """GET."""
        found: Object = await self._ask(f"get the Lease {namespace}/{name}", "GET", _path(namespace, name))
        return found

    async def create_lease(self, namespace: str, body: dict[str, Any]) -> Object:
        """POST."""
        made: Object = await self._ask(f"create a Lease in {namespace}", "POST", _path(namespace), body)
        return made

    async def replace_lease(self, namespace: str, name: str, body: dict[str, Any]) -> Object:
        """PUT."""
        what = f"write the Lease {namespace}/{name}"
        written: Object = await self._ask(what, "PUT", _path(namespace, name), body)
        return written


def _path(namespace: str, *name: str) -> str:
    return path_of("apis", "coordination.k8s.io", "v1", "namespaces", namespace, "leases", *name)
