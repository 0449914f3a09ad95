"""One Lease in memory, as the API server keeps it, and the links by which candidates reach it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable
from typing import Any, Literal

import aiohttp
from kubernetes_asyncio.client import ApiException, V1Lease, V1LeaseSpec, V1ObjectMeta

Mode = Literal["fine", "hangs", "hangs and cannot be cancelled", "answers get lost", "refuses", "fails", "forbids"]


class Leases:
    def __init__(self) -> None:
        self.lease: V1Lease | None = None
        self.writes: list[dict[str, Any]] = []
        self._version = 0

    def read(self) -> V1Lease:
        if self.lease is None:
            raise ApiException(status=404, reason="Not Found")
        return copy.deepcopy(self.lease)

    def create(self, body: dict[str, Any]) -> V1Lease:
        if self.lease is not None:
            raise ApiException(status=409, reason="AlreadyExists")
        return self._store(body)

    def replace(self, body: dict[str, Any]) -> V1Lease:
        if self.lease is None:
            raise ApiException(status=404, reason="Not Found")
        if body["metadata"]["resourceVersion"] != self.lease.metadata.resource_version:
            raise ApiException(status=409, reason="Conflict")
        return self._store(body)

    def _store(self, body: dict[str, Any]) -> V1Lease:
        from datetime import datetime

        spec = body["spec"]
        assert spec.get("holderIdentity") != "", "the API server refuses an empty holder"
        self._version += 1
        self.writes.append(body)
        self.lease = V1Lease(
            metadata=V1ObjectMeta(name=body["metadata"]["name"], resource_version=str(self._version)),
            spec=V1LeaseSpec(
                holder_identity=spec.get("holderIdentity"),
                lease_duration_seconds=spec["leaseDurationSeconds"],
                lease_transitions=spec["leaseTransitions"],
                acquire_time=datetime.fromisoformat(spec["acquireTime"]),
                renew_time=datetime.fromisoformat(spec["renewTime"]),
            ),
        )
        return self.read()

    @property
    def holder(self) -> str | None:
        return None if self.lease is None else self.lease.spec.holder_identity


class Link:
    """A candidate's way to the API server, with all that may be wrong with it. Fits perseid_operator's LeaseApi."""

    def __init__(self, leases: Leases, seconds: float = 0.01) -> None:
        self._leases = leases
        self.seconds = seconds
        self.mode: Mode = "fine"

    async def read_namespaced_lease(self, name: str, namespace: str, **_: Any) -> V1Lease:
        return await self._send(self._leases.read)

    async def create_namespaced_lease(self, namespace: str, body: Any, **_: Any) -> V1Lease:
        return await self._send(lambda: self._leases.create(body))

    async def replace_namespaced_lease(self, name: str, namespace: str, body: Any, **_: Any) -> V1Lease:
        return await self._send(lambda: self._leases.replace(body))

    async def _send(self, call: Callable[[], V1Lease]) -> V1Lease:
        mode = self.mode
        if mode == "refuses":
            raise aiohttp.ClientConnectionError("connection refused")
        if mode == "hangs":
            await asyncio.sleep(1e6)
        while mode == "hangs and cannot be cancelled":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1e6)
        # Half of the time passes on the way there. Once sent, it arrives, also where the sender has given up.
        arrives = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(self.seconds / 2, _arrive, arrives, call, mode)
        try:
            answer: V1Lease = await asyncio.shield(arrives)
        finally:
            arrives.add_done_callback(lambda done: done.exception())
        await asyncio.sleep(1e6 if mode == "answers get lost" else self.seconds / 2)
        return answer


def _arrive(arrives: asyncio.Future[V1Lease], call: Callable[[], V1Lease], mode: Mode) -> None:
    try:
        if mode == "fails":
            raise ApiException(status=500, reason="Internal Server Error")
        if mode == "forbids":
            raise ApiException(status=403, reason="Forbidden")
        answer = call()
    except ApiException as error:
        arrives.set_exception(error)
    else:
        arrives.set_result(answer)
