"""Landlock: the kernel keeps a process to a list of directories, without privileges (Linux 5.13 and later)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from . import kernel

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FOR_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # execute, write, read, truncate, ioctl on devices
_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}  # number of rights on files; 16 from version 5 on
_VERSION_FLAG = 1
_PATH_BENEATH = 1


def version() -> int:
    """Version of Landlock that the kernel offers; 0 where it has none or a container denies it."""
    try:
        return kernel.syscall("landlock_create_ruleset", None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def restrict(landlock_version: int, readable: Iterable[str], writable: Iterable[str]) -> None:
    """Keep this process, for good, to reading some paths and to using others fully; no TCP from version 4 on.

    Paths that do not exist are passed over. Raises OSError. It needs PR_SET_NO_NEW_PRIVS.
    """
    handled = (1 << _RIGHTS_BY_VERSION.get(landlock_version, 16)) - 1
    network = 0b11 if landlock_version >= 4 else 0  # bind and connect
    scoped = 0b11 if landlock_version >= 6 else 0  # abstract UNIX sockets and signals
    size = 24 if landlock_version >= 6 else 16 if landlock_version >= 4 else 8
    attributes = ctypes.create_string_buffer(struct.pack("3Q", handled, network, scoped)[:size], size)
    ruleset = kernel.syscall("landlock_create_ruleset", attributes, size, 0)
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in writable:
            _allow(ruleset, path, handled)
        kernel.syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        is_directory = os.fstat(descriptor).st_mode & 0o170000 == 0o040000
        granted = rights if is_directory else rights & _FOR_FILES
        rule = ctypes.create_string_buffer(struct.pack("=Qi", granted, descriptor), 12)
        kernel.syscall("landlock_add_rule", ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
