"""Answers that are errors, and the faults that tests order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

INVALID, NOT_FOUND, EXISTS, DENIED, EXHAUSTED, ABORTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = (
    3, 5, 6, 7, 8, 10, 13, 14, 16,
)  # fmt: skip
_STATUS = {
    INVALID: 400,
    NOT_FOUND: 404,
    EXISTS: 409,
    DENIED: 403,
    EXHAUSTED: 429,
    ABORTED: 409,
    INTERNAL: 500,
    UNAVAILABLE: 503,
    UNAUTHENTICATED: 401,
}
_CODE = {400: INVALID, 404: NOT_FOUND, 409: EXISTS, 403: DENIED, 429: EXHAUSTED, 503: UNAVAILABLE, 401: UNAUTHENTICATED}


class Failure(Exception):  # noqa: N818 - it is an answer
    """An error as KFP answers it: gRPC's code and a text, and the HTTP status that belongs to the code."""

    def __init__(self, code: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.headers = dict(headers or {})

    @classmethod
    def of_status(cls, status: int, text: str, headers: Mapping[str, str] | None = None) -> Failure:
        failure = cls(_CODE.get(status, INTERNAL), text, headers)
        failure._forced = status
        return failure

    _forced: int | None = None

    @property
    def status(self) -> int:
        return self._forced or _STATUS[self.code]

    @property
    def body(self) -> dict[str, Any]:
        detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": self.code, "message": self.text}
        return {"error": self.text, "code": self.code, "message": self.text, "details": [detail]}


class DroppedError(Exception):
    """The connection breaks without an answer."""


@dataclass
class Fault:
    """What happens to the next calls of one operation."""

    operation: str
    times: int
    status: int | None = None
    """Answer with this status instead of doing anything."""
    text: str = "injected"
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """Wait first, and then do what was asked."""
    raw: str | None = None
    """Body and status of something that is not KFP, as a proxy would answer."""


@dataclass
class Drop:
    """How the answer of a creation is lost."""

    after: str
    """request: nothing is done. workflow: the Workflow is there, the row never comes (the server died). row: both."""
    how: str
    """reset: the connection breaks. error: 500. kill: the double's process is killed, at that very place. hang: no
    answer until the client has gone, and then the server goes on and does the rest as if nothing had been."""


class Faults:
    """Faults in the order in which they were ordered."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._drops: list[Drop] = []

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)

    def add_drop(self, drop: Drop) -> None:
        if drop.after not in {"request", "workflow", "row"} or drop.how not in {"reset", "hang", "kill", "error"}:
            raise ValueError(f"no such drop: {drop}")
        self._drops.append(drop)

    def take(self, operation: str) -> Fault | None:
        for fault in self._faults:
            if fault.operation in (operation, "*"):
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
        return None

    def take_drop(self) -> Drop | None:
        return self._drops.pop(0) if self._drops else None
