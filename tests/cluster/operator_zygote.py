"""A process that has imported the operator, and forks one whenever it is told to.

Importing takes seconds; a thousand operators that live for one second each would spend most of their time on it. What
is forked is the operator whole, in a process of its own. A line of JSON on standard input ({"environment": ..., "log":
...}) is answered by the new process's id.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys

import perseid_operator.__main__  # noqa: F401  # first: it holds back what the operator must not import
from perseid_operator.app import run
from perseid_operator.logs import configure_logs
from perseid_operator.settings import load_settings


def main() -> None:
    _die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _operate(order)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _operate(order: dict[str, object]) -> None:
    _die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order["environment"])  # type: ignore[arg-type]
    settings = load_settings(os.environ)
    configure_logs(settings.log_format, settings.log_level)
    os._exit(asyncio.run(run(settings)))


def _die_with_parent() -> None:
    """SIGKILL for this process when the thread that started it ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main()
