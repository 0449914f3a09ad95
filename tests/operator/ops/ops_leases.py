"""One Lease in memory, as the API server keeps it, and the links by which candidates reach it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from perseid_operator.kube.protocol import (
    ConflictError,
    ForbiddenError,
    KubeError,
    NotFoundError,
    Object,
    UnavailableError,
)

Mode = Literal["fine", "hangs", "hangs and cannot be cancelled", "answers get lost", "refuses", "fails", "forbids"]


class Leases:
    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.writes: list[dict[str, Any]] = []
        self._version = 0

    def read(self) -> Object:
        if self.lease is None:
            raise NotFoundError("404 Not Found")
        return copy.deepcopy(self.lease)

    def create(self, body: dict[str, Any]) -> Object:
        if self.lease is not None:
            raise ConflictError("409 AlreadyExists")
        return self._store(body)

    def replace(self, body: dict[str, Any]) -> Object:
        if self.lease is None:
            raise NotFoundError("404 Not Found")
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ConflictError("409 Conflict")
        return self._store(body)

    def _store(self, body: dict[str, Any]) -> Object:
        assert body["spec"].get("holderIdentity") != "", "the API server refuses an empty holder"
        for time in ("acquireTime", "renewTime"):
            datetime.fromisoformat(body["spec"][time])  # the API server refuses what is no time
        self._version += 1
        self.writes.append(body)
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self._version)
        return self.read()

    @property
    def holder(self) -> str | None:
        return None if self.lease is None else self.lease["spec"].get("holderIdentity")


class Link:
    """A candidate's way to the API server, with all that may be wrong with it. Fits perseid_operator's LeaseApi."""

    def __init__(self, leases: Leases, seconds: float = 0.01) -> None:
        self._leases = leases
        self.seconds = seconds
        self.mode: Mode = "fine"

    async def read_lease(self, namespace: str, name: str) -> Object:
        return await self._send(self._leases.read)

    async def create_lease(self, namespace: str, body: dict[str, Any]) -> Object:
        return await self._send(lambda: self._leases.create(body))

    async def replace_lease(self, namespace: str, name: str, body: dict[str, Any]) -> Object:
        return await self._send(lambda: self._leases.replace(body))

    async def _send(self, call: Callable[[], Object]) -> Object:
        mode = self.mode
        if mode == "refuses":
            raise UnavailableError("connection refused")
        if mode == "hangs":
            await asyncio.sleep(1e6)
        while mode == "hangs and cannot be cancelled":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1e6)
        # Half of the time passes on the way there. Once sent, it arrives, also where the sender has given up.
        arrives = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(self.seconds / 2, _arrive, arrives, call, mode)
        try:
            answer: Object = await asyncio.shield(arrives)
        finally:
            arrives.add_done_callback(lambda done: done.exception())
        await asyncio.sleep(1e6 if mode == "answers get lost" else self.seconds / 2)
        return answer


def _arrive(arrives: asyncio.Future[Object], call: Callable[[], Object], mode: Mode) -> None:
    try:
        if mode == "fails":
            raise UnavailableError("500 Internal Server Error")
        if mode == "forbids":
            raise ForbiddenError("403 Forbidden")
        answer = call()
    except KubeError as error:
        arrives.set_exception(error)
    else:
        arrives.set_result(answer)
