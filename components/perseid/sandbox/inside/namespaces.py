"""Namespaces: a root directory that holds only Python, no network device, and process ids that see no other process."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from . import kernel

BOX = "/box"
"""The execution's own directory in the private root: a fresh tmpfs each time."""
BOX_MIB = 16
INNER_UID = 65534

_PRIVATE = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_KEPT_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | 0x400 | 0x800  # the last two: noatime, nodiratime
_ST_RELATIME, _MS_RELATIME = 0x1000, 0x20_0000


def python_paths() -> list[str]:
    """What a Python program has to read: the standard library, shared libraries and the time zones."""
    mapped = {
        str(Path(line.split(None, 5)[5].strip()).parent)
        for line in Path("/proc/self/maps").read_text().splitlines()
        if ".so" in line
    }
    library = sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")
    system = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
    wanted = sorted({*library, *mapped, *system, *(path for path in sys.path if path.endswith("lib-dynload"))})
    return [path for path in wanted if os.path.lexists(path)]


def enter(base: str) -> bool:
    """Move this process into namespaces of its own, with `base` as mount point of the new root. Raises OSError.

    Returns whether a user namespace was needed. Afterwards process ids are new for children only: the caller forks.
    """
    uid, gid = os.getuid(), os.getgid()
    user_namespace = False
    try:
        kernel.unshare(_PRIVATE)
    except PermissionError:
        kernel.unshare(_PRIVATE | kernel.CLONE_NEWUSER)
        user_namespace = True
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{INNER_UID} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{INNER_UID} {gid} 1")
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    _build_root(base)
    return user_namespace


def _build_root(base: str) -> None:
    kernel.mount("tmpfs", base, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=0755")
    root = Path(base)
    shown: list[str] = []
    for path in [*python_paths(), *_DEVICES]:
        if not any(path == other or path.startswith(other + "/") for other in shown):
            _show(Path(path), root)
            shown.append(path)
    (root / BOX.lstrip("/")).mkdir()
    kernel.pivot_into(base)
    kernel.mount("none", "/", None, kernel.MS_REMOUNT | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV)


def _show(path: Path, root: Path) -> None:
    """Make a path of the machine visible below the new root, for reading. A link stays a link, and its end is shown."""
    target = root / str(path).lstrip("/")
    if os.path.lexists(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        target.symlink_to(path.readlink())
        _show(path.resolve(), root)
        return
    if path.is_dir():
        target.mkdir()
    else:
        target.touch()
    kernel.mount(str(path), str(target), None, kernel.MS_BIND | kernel.MS_REC)
    kernel.mount("none", str(target), None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | _flags_of(target))


def _flags_of(path: Path) -> int:
    """A mount's flags as mount(2) wants them: in a user namespace a remount has to repeat those it found."""
    found = os.statvfs(path).f_flag
    return kernel.MS_NOSUID | found & _KEPT_FLAGS | (_MS_RELATIME if found & _ST_RELATIME else 0)


def fresh_box(owner: int) -> None:
    """Mount an empty directory for one execution. Raises OSError."""
    options = f"size={BOX_MIB}m,nr_inodes=1024,mode=0700,uid={owner},gid={owner}"
    kernel.mount("tmpfs", BOX, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)


def drop_box() -> None:
    """Throw the execution's directory away with all that is in it. Raises OSError."""
    kernel.unmount(BOX)


def fresh_process_ids(own: int) -> None:
    """Make the next child process 1 of a namespace of its own. `own` is a pidfd of this process. Raises OSError."""
    kernel.setns(own, kernel.CLONE_NEWPID)  # back from the last child's namespace
    kernel.unshare(kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC)
