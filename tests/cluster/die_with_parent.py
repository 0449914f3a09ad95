"""Starts a program that dies with its parent: python -IS die_with_parent.py PARENT PROGRAM ARGUMENT...

The kernel sends SIGKILL when the thread that started this process ends, however it ends. Becoming the program by exec
keeps that so; a `preexec_fn` would run Python between fork and exec, in a process that has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        sys.exit(f"process {parent}, which wanted {command[0]}, is gone")  # It died before the kernel was told.
    os.execv(command[0], command)


main(int(sys.argv[1]), sys.argv[2:])
