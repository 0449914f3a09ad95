"""The operator, which stops (SIGSTOP to itself) on the way to its first submission, until somebody sends SIGCONT.

    python operator_that_stops.py POINT

A stop from outside hits those points, which are some microseconds wide, once in a million times.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import aiohttp

from perseid_operator import __main__ as operator
from perseid_operator.actions import Actions
from perseid_operator.kfp.client import KfpClient
from perseid_operator.observer import Observer
from perseid_operator.reconciler import Reconciler

POINTS: dict[str, tuple[type, str, type, str]] = {
    "deciding": (Observer, "observe", Reconciler, "reconcile"),
    "decided": (Actions, "submit", Reconciler, "reconcile"),
    "ready": (Actions, "_create", Actions, "submit"),
    "allowed": (KfpClient, "create_run", Actions, "submit"),
    "connecting": (aiohttp.TCPConnector, "_create_connection", KfpClient, "create_run"),
}
"""Before which method it stops, when that is called by which other one.

Deciding: the object is there, and nothing of it has been looked at. Decided: the intent is written. Ready: whether this
operator leads is looked at next. Allowed: it has been looked at, and the request comes next. Connecting: the request is
under way, and has no connection yet."""

_called: ContextVar[bool] = ContextVar("called", default=False)


def stopping(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, before whose first call from the right place the process stops."""
    stops = [lambda: os.kill(os.getpid(), signal.SIGSTOP)]

    @functools.wraps(method)
    async def stopped(*arguments: Any, **named: Any) -> Any:
        if _called.get() and stops:
            stops.pop()()
        return await method(*arguments, **named)

    return stopped


def marked(caller: Callable[..., Any]) -> Callable[..., Any]:
    """The right place."""

    @functools.wraps(caller)
    async def marking(*arguments: Any, **named: Any) -> Any:
        token = _called.set(True)
        try:
            return await caller(*arguments, **named)
        finally:
            _called.reset(token)

    return marking


def main(point: str) -> None:
    """Put the stop in, and be the operator."""
    place, name, caller, calling = POINTS[point]
    setattr(place, name, stopping(getattr(place, name)))
    setattr(caller, calling, marked(getattr(caller, calling)))
    operator.main()


if __name__ == "__main__":
    main(sys.argv[1])
