"""Thin wrappers of the Linux calls that the layers need and that Python's os module lacks."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22

_CAPABILITY_VERSION_3 = 0x2008_0522
_NUMBERS = {  # name: (x86_64, aarch64)
    "pivot_root": (155, 41),
    "capset": (126, 91),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}

_libc = ctypes.CDLL(None, use_errno=True)


def architecture() -> int:
    """Column of the machine in tables of system call numbers: 0 is x86_64, 1 is aarch64. OSError for any other."""
    machine = platform.machine()
    columns = {"x86_64": 0, "aarch64": 1}
    if machine not in columns or struct.calcsize("P") != 8:
        raise OSError(f"the sandbox knows 64-bit x86_64 and aarch64, not {machine}")
    return columns[machine]


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def syscall(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call that libc has no function for. Raises OSError."""
    plain = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return _checked(_libc.syscall(ctypes.c_long(_NUMBERS[name][architecture()]), *plain), name)


def prctl(option: int, *arguments: int) -> int:
    """prctl(2). Raises OSError."""
    padded = [*arguments, 0, 0, 0, 0][:4]
    return _checked(_libc.prctl(option, *(ctypes.c_ulong(argument) for argument in padded)), f"prctl {option}")


def unshare(flags: int) -> None:
    """unshare(2): new namespaces for the caller. Raises OSError."""
    _checked(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """setns(2): enter the namespace that the descriptor stands for. Raises OSError."""
    _checked(_libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2). Raises OSError."""
    encoded = [None if text is None else text.encode() for text in (source, target, kind, options)]
    result = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _checked(result, f"mount {target}")


def unmount(target: str) -> None:
    """Detach a mount, busy or not. Raises OSError."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def pivot_into(new_root: str) -> None:
    """Make a mounted directory the root of this mount namespace and let go of the old root. Raises OSError."""
    os.chdir(new_root)
    syscall("pivot_root", b".", b".")
    unmount(".")
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability of this process. Raises OSError."""
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION_3, 0))
    nothing = ctypes.create_string_buffer(struct.pack("6I", 0, 0, 0, 0, 0, 0))
    syscall("capset", header, nothing)


def install_seccomp(program: bytes) -> None:
    """Load a BPF program (see `seccomp.program`) as this process's filter. It needs PR_SET_NO_NEW_PRIVS."""
    instructions = ctypes.create_string_buffer(program, len(program))
    address = ctypes.addressof(instructions)
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program) // 8, address))
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(fprog))
