"""The fork server: one small Python process that is asked for executions over a pipe, one after the other.

Frames are four bytes of length and JSON. The first frame that it sends says which layers it has, or why it cannot run.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import secrets
import shutil
import signal
import struct
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import kernel, landlock, namespaces, seccomp
from .confine import Confinement
from .execution import Executor

_PRELOADED = (
    "abc array ast base64 bisect calendar cmath collections contextlib copy csv dataclasses datetime decimal enum "
    "fractions functools hashlib heapq inspect io itertools json math numbers operator os pprint queue random re "
    "secrets statistics string struct sys textwrap threading time traceback types typing unicodedata uuid"
)
_REQUESTS, _REPLIES = 0, 1


class UnavailableError(Exception):
    """This machine cannot confine generated code; the message says what to do."""


def main(arguments: Mapping[str, Any]) -> None:
    """Serve until the pool closes the pipe."""
    os.environ.clear()
    sys.argv[:] = [""]
    replies = os.dup(_REPLIES)
    os.dup2(2, _REPLIES)  # nothing but frames may reach the pool
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pool's business
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        confinement, description = _prepare(arguments)
    except (OSError, UnavailableError) as error:
        _send(replies, {"ready": False, "error": str(error)})
        return
    for module in _PRELOADED.split():
        importlib.import_module(module)
    gc.freeze()
    executor = Executor(confinement, arguments["wall_seconds"], _REQUESTS)
    _send(replies, {"ready": True, "layers": description})
    try:
        with contextlib.suppress(EOFError):
            while (request := _receive()) is not None:
                _send(replies, executor.run(request["body"], request["checks"]))
    finally:
        # The pool's death ends the pipe first and signals a moment later, perhaps in the middle of removing the box.
        # It signals once: where that interrupts even this line, what is behind is no longer interrupted.
        try:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        finally:
            if not confinement.namespaces:
                shutil.rmtree(arguments["base"])


def _prepare(arguments: Mapping[str, Any]) -> tuple[Confinement, dict[str, str]]:
    base, optional = arguments["base"], arguments["optional_layers"]
    kernel.architecture()
    own = os.getuid()
    spare = _spare_user()
    readable = ["/dev/zero", "/dev/random", "/dev/urandom", *namespaces.python_paths()]
    reason = _why_no_namespaces(base) if "namespaces" in optional else "switched off"
    isolated = not reason
    version = landlock.version() if "landlock" in optional else 0
    user_namespace = False
    if isolated:
        user_namespace = namespaces.enter(base)
        _become_first_process()
    else:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
    uid, change_user = _user(own, spare, isolated, user_namespace, version)
    if change_user and not isolated:
        Path(base).chmod(0o711)
    confined_files = isolated or version > 0
    confinement = Confinement(
        box=namespaces.BOX if isolated else f"{base}/box",
        uid=uid,
        change_user=change_user,
        namespaces=isolated,
        landlock_version=version,
        filter=seccomp.program(may_write=confined_files, may_thread=uid != 0),
        readable=("/",) if isolated else tuple(readable),
        cpu_seconds=arguments["cpu_seconds"],
        memory_bytes=arguments["memory_mib"] * 2**20,
    )
    return confinement, {
        "seccomp": "yes",
        "namespaces": reason or "yes",
        "landlock": f"version {version}" if version else "no",
        "user": "one of its own" if change_user else "the caller's, without capabilities",
        "files": "own directory only" if confined_files else "none can be written",
    }


def _spare_user() -> int:
    """A user id that nobody has, so that a limit on processes counts this server's executions alone.

    In a container with few ids it is the highest one, and 0 where there is no other.
    """
    ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    highest = max(first + count - 1 for first, _, count in ranges)
    if highest >= 2_000_000_000:
        return 1_000_000_000 + secrets.randbelow(1_000_000_000)
    return highest


def _user(own: int, spare: int, isolated: bool, user_namespace: bool, landlock_version: int) -> tuple[int, bool]:
    """User of the executions, and whether to change to it."""
    if own != 0 or user_namespace:
        return namespaces.INNER_UID if user_namespace else own, False
    if spare and (isolated or _readable_by_others(Path(sysconfig.get_path("stdlib")))):
        return spare, True
    if isolated or landlock_version:
        return 0, False
    raise UnavailableError(
        f"the sandbox runs as root, may not use mount namespaces or Landlock, and other users cannot read Python in "
        f"{sysconfig.get_path('stdlib')}. Install Python where everybody may read it, run as another user, or allow "
        "Landlock or namespaces to this container"
    )


def _readable_by_others(path: Path) -> bool:
    return all(part.stat().st_mode & 0o005 == 0o005 for part in (path, *path.parents))


def _why_no_namespaces(base: str) -> str:
    """Try everything in a child, because a half-made set of namespaces cannot be undone. Empty when it worked."""
    said, says = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.enter(base)
            _first_process_mounts()
        except BaseException as error:  # noqa: BLE001 - nothing may return into the server
            os.write(says, str(error).encode()[:1000] or b"unknown")
        os._exit(0)
    os.close(says)
    with os.fdopen(said, "rb") as answer:
        reason = answer.read().decode()
    _, status = os.waitpid(pid, 0)
    return reason or ("" if status == 0 else "the trial ended early")


def _first_process_mounts() -> None:
    pid = os.fork()
    if pid == 0:
        namespaces.fresh_box(os.getuid())
        namespaces.fresh_process_ids(os.pidfd_open(os.getpid()))
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError("the namespaces of an execution cannot be made")


def _become_first_process() -> None:
    """Go on as process 1 of the new process-id namespace: when it dies, the kernel kills all below it.

    The process that was started stays behind to wait; each dies with the other.
    """
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    pid = os.fork()
    if pid == 0:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    for descriptor in (_REQUESTS, _REPLIES):
        os.close(descriptor)
    os.closerange(3, 1 << 16)
    os.waitpid(pid, 0)
    os._exit(0)


def _receive() -> dict[str, Any] | None:
    header = _read(4)
    if header is None:
        return None
    body = _read(struct.unpack("!I", header)[0])
    return None if body is None else json.loads(body)


def _read(size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        piece = os.read(_REQUESTS, size - len(data))
        if not piece:
            return None
        data += piece
    return data


def _send(descriptor: int, message: Mapping[str, Any]) -> None:
    encoded = json.dumps(message).encode()
    data = memoryview(struct.pack("!I", len(encoded)) + encoded)
    while data:
        data = data[os.write(descriptor, data) :]
