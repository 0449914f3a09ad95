"""Processes that end with the one that started them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
from typing import NoReturn

DIE_WITH = "PERSEID_DIE_WITH"
"""Environment variable: the process that this one must not outlive."""
GRACE_SECONDS = 10.0
"""What a process gets between SIGTERM and SIGKILL."""


def die_with_starter() -> None:
    """Kill this process when the one that `DIE_WITH` names dies, so that a killed `perseid run` leaves nothing running.

    Not PR_SET_PDEATHSIG: that speaks of the direct parent, and kfp.local puts a shell in between, which outlives a
    kill. Nor does that notice a starter that died before the call.
    """
    starter = os.environ.get(DIE_WITH)
    if starter is None:
        return
    try:
        descriptor = os.pidfd_open(int(starter))
    except ProcessLookupError:
        _die()
    threading.Thread(target=_wait_and_die, args=(descriptor,), name="die-with-starter", daemon=True).start()


def _wait_and_die(descriptor: int) -> None:
    select.select([descriptor], [], [])
    _die()


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL cannot be survived")


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own group, with all that is in the group."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        # The leader is gone; whoever ignored SIGTERM in its group must go too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        break
    process.wait()
