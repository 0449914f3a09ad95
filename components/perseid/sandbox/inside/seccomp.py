"""The system call filter: the layer that every execution has, because it needs no privilege and no container's leave.

It is an allow-list. No sockets (but stream pairs, which connect to nothing), no new processes, no new programs, no
signals to others, no ptrace, no mounts, no other user. Threads are allowed.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

from .kernel import architecture
from .syscall_table import ALWAYS, BY_ARGUMENT, CHANGES_FILES

_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW = 0x7FFF_0000
_KILL_PROCESS = 0x8000_0000
_DENY = 0x0005_0000 | errno.EPERM
_UNKNOWN = 0x0005_0000 | errno.ENOSYS
_AUDIT_ARCH = (0xC000_003E, 0xC000_00B7)

_CLONE_THREAD = 0x0001_0000
_O_WRITES = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC: alike on both machines
_O_TRUNC = 0o1000
_STREAM_PAIRS = (0x1, 0x801, 0x8_0001, 0x8_0801)  # SOCK_STREAM with and without SOCK_NONBLOCK and SOCK_CLOEXEC
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)  # duplicate, flags, locks, pipe size; not F_SETOWN: it sends signals
_IOCTL = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # is it a terminal, its size, bytes to read, blocking, cloexec
_PRCTL = (15, 16)  # the thread's name

PID_PLACEHOLDER = 0x5EC0_FFEE


def _instruction(code: int, k: int, on_true: int = 0, on_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, on_true, on_false, k)


def _return(action: int) -> bytes:
    return _instruction(_RETURN, action)


def _load_argument(index: int) -> bytes:
    return _instruction(_LOAD, 16 + 8 * index)  # low half: both machines are little-endian, and these are ints


def _when(number: int | None, body: Iterable[bytes]) -> bytes:
    """Instructions for one system call; without it on this machine, none."""
    if number is None:
        return b""
    instructions = b"".join(body)
    return _instruction(_JUMP_EQUAL, number, 0, len(instructions) // 8) + instructions


def _one_of(argument: int, values: Iterable[int]) -> list[bytes]:
    tests = [_instruction(_JUMP_EQUAL, value, 0, 1) + _return(_ALLOW) for value in values]
    return [_load_argument(argument), *tests, _return(_DENY)]


def _without_bits(argument: int, bits: int) -> list[bytes]:
    return [_load_argument(argument), _instruction(_JUMP_SET, bits, 0, 1), _return(_DENY), _return(_ALLOW)]


def _open(argument: int, may_write: bool) -> list[bytes]:
    if not may_write:
        return _without_bits(argument, _O_WRITES)
    # Landlock before its third version lets O_RDONLY | O_TRUNC empty a file that may be read.
    return [
        _load_argument(argument),
        _instruction(_JUMP_SET, _O_TRUNC, 0, 2),
        _instruction(_JUMP_SET, 0o3, 1, 0),
        _return(_DENY),
        _return(_ALLOW),
    ]


def program(*, may_write: bool, may_thread: bool) -> bytes:
    """The filter as BPF, eight bytes an instruction; replace PID_PLACEHOLDER by the process's id with `for_process`.

    `may_write`: another layer confines writing to the execution's own directory; otherwise nothing can be opened for
    writing at all. `may_thread`: the number of threads is limited by RLIMIT_NPROC.
    """
    machine = architecture()
    plain = {**ALWAYS, **(CHANGES_FILES if may_write else {})}
    numbers = {name: pair[machine] for name, pair in BY_ARGUMENT.items()}
    threads = [
        _load_argument(0),
        _instruction(_JUMP_SET, _CLONE_THREAD, 0, 1),
        _return(_ALLOW if may_thread else _DENY),
        _return(_DENY),
    ]
    stream_pair = [_load_argument(0), _instruction(_JUMP_EQUAL, 1, 1, 0), _return(_DENY), *_one_of(1, _STREAM_PAIRS)]
    parts = [
        _instruction(_LOAD, 4),
        _instruction(_JUMP_EQUAL, _AUDIT_ARCH[machine], 1, 0) + _return(_KILL_PROCESS),
        _instruction(_LOAD, 0),
        *(_when(pair[machine], [_return(_ALLOW)]) for pair in plain.values()),
        _when(numbers["open"], _open(1, may_write)),
        _when(numbers["openat"], _open(2, may_write)),
        _when(numbers["fcntl"], _one_of(1, _FCNTL)),
        _when(numbers["ioctl"], _one_of(1, _IOCTL)),
        _when(numbers["prctl"], _one_of(0, _PRCTL)),
        _when(numbers["prlimit64"], _one_of(0, [0])),
        _when(numbers["kill"], _one_of(0, [PID_PLACEHOLDER])),
        _when(numbers["tgkill"], _one_of(0, [PID_PLACEHOLDER])),
        _when(numbers["clone"], threads),
        _when(numbers["clone3"], [_return(_UNKNOWN)]),  # its flags lie in memory; libc falls back on clone
        _when(numbers["socketpair"], stream_pair),
        _return(_DENY),
    ]
    return b"".join(parts)


def for_process(template: bytes, pid: int) -> bytes:
    """The filter of one process: it may send signals to itself alone."""
    return template.replace(struct.pack("I", PID_PLACEHOLDER), struct.pack("I", pid))
