"""Runs inside vLLM's own process: ends it when the process that started it is gone.

vLLM's engine core is a child process that outlives a killed parent and keeps its memory, GPU memory included. vLLM
imports this module in its worker because the engine names `ParentWatch` as worker extension; the watch starts with
the import, and it needs nothing but the operating system, so that a busy event loop cannot stop it.
"""

from __future__ import annotations

import os
import signal
import threading
import time

PARENT_VARIABLE = "PERSEID_ENGINE_PARENT"
_INTERVAL_SECONDS = 0.5


class ParentWatch:
    """Mixed into vLLM's worker class. Empty: what counts is that this module gets imported."""


def _watch(parent: int) -> None:
    # A child of the parent sees another parent id at once; a grandchild (a tensor-parallel worker) asks for it.
    direct = os.getppid() == parent
    while os.getppid() == parent if direct else _exists(parent):
        time.sleep(_INTERVAL_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _start() -> None:
    parent = os.environ.get(PARENT_VARIABLE)
    if parent and int(parent) != os.getpid():
        threading.Thread(target=_watch, args=(int(parent),), name="perseid-parent-watch", daemon=True).start()


_start()
