"""What generated code cannot do, with every set of layers that this machine has."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from perseid.api.synthesis import SandboxSpec
from perseid.sandbox import Sandbox, SandboxUnavailableError

pytestmark = pytest.mark.asyncio(loop_scope="module")

LAYERS = {"all": ("namespaces", "landlock"), "namespaces": ("namespaces",), "landlock": ("landlock",), "seccomp": ()}


INTERPRETERS = (None, Path("/usr/bin/python3"))  # the second one, where root's own cannot be read by other users


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(LAYERS))
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    wanted = LAYERS[request.param]
    limits = SandboxSpec(workers=1, wall_seconds=20.0, cpu_seconds=1, memory_mib=256)
    reason = ""
    for python in INTERPRETERS:
        async with contextlib.AsyncExitStack() as stack:
            try:
                pool = await stack.enter_async_context(Sandbox(limits, python=python, optional_layers=wanted))
            except SandboxUnavailableError as error:
                reason = str(error)
                continue
            layers = await pool.layers()
            missing = [layer for layer in wanted if not layers[layer].startswith(("yes", "version"))]
            if missing:
                pytest.skip(f"{missing[0]}: {layers[missing[0]]}")
            yield pool
            return
    pytest.skip(reason)


async def outcome(sandbox: Sandbox, program: str) -> str:
    return (await sandbox.run(program)).outcome


async def test_a_cpu_hog_is_killed(sandbox: Sandbox) -> None:
    execution = await sandbox.run("while True: pass")  # one second of CPU
    assert execution.outcome == "timeout"
    assert execution.cpu_seconds < 3


async def test_a_cpu_hog_that_ignores_its_limit_is_killed_all_the_same(sandbox: Sandbox) -> None:
    program = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    execution = await sandbox.run(program)  # two seconds of CPU
    assert execution.outcome == "timeout"
    assert execution.cpu_seconds < 4


async def test_a_memory_bomb_ends_with_its_process(sandbox: Sandbox) -> None:
    assert await outcome(sandbox, "x = bytearray(2**33)") == "memory"
    assert await outcome(sandbox, "x = []\nwhile True: x.append(bytes(2**24))") == "memory"


async def test_a_flood_of_output_is_stopped(sandbox: Sandbox) -> None:
    assert await outcome(sandbox, "import os\nwhile True: os.write(1, b'x' * 65536)") == "output"
    assert await outcome(sandbox, "import os\nwhile True: os.write(3, b'x' * 65536)") == "output"


@pytest.mark.parametrize(
    "program",
    [
        "import os\nwhile True: os.fork()",
        "import os\nos.setsid()",
        "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass",
        "import subprocess\nsubprocess.run(['/bin/true'])",
        "import os\nos.execv('/bin/true', ['true'])",
        "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "import socket\nsocket.create_connection(('127.0.0.1', 1))",
        "import socket\nsocket.socket(socket.AF_UNIX)",
        "import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "import os, signal\nos.kill(-1, signal.SIGKILL)",
        "import os\nos.kill(2**20, 0)",
        "import os\nos.chmod('.', 0o777)",
        "import os\nos.setuid(0)",
        "import os\nos.nice(-1)",
        "import resource\nresource.prlimit(2**20, resource.RLIMIT_CPU, (1, 1))",
    ],
)
async def test_what_leads_out_is_denied(sandbox: Sandbox, program: str) -> None:
    execution = await sandbox.run(program)
    assert execution.outcome == "denied", execution


async def test_raw_system_calls_are_denied_as_well(sandbox: Sandbox) -> None:
    program = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def denied(result): assert result == -1 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS), result
denied(libc.ptrace(0, 0, 0, 0))
denied(libc.unshare(0x10000000))
denied(libc.mount(b'none', b'/', b'tmpfs', 0, None))
denied(libc.socket(2, 1, 0))
denied(libc.syscall(435, 0, 0))
denied(libc.syscall(425, 1, 0))
denied(libc.prctl(1, 0))
"""
    execution = await sandbox.run(program)
    assert execution.outcome == "passed", execution.detail


async def test_a_crash_is_a_crash(sandbox: Sandbox) -> None:
    execution = await sandbox.run("import ctypes\nctypes.string_at(0)")
    assert (execution.outcome, execution.detail) == ("crashed", "SIGSEGV")


def open_to_all(directory: Path) -> Path:
    directory.chmod(0o777)
    path = directory / "open-to-all"
    path.write_text("mine")
    path.chmod(0o666)
    return path


async def test_nothing_outside_its_directory_can_be_written(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = open_to_all(tmp_path)
    for program in (
        f"open({str(secret)!r}, 'w')",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"import os\nos.unlink({str(secret)!r})",
        f"import os\nos.mkdir({str(tmp_path / 'new')!r})",
        f"import os\nos.open({str(secret)!r}, os.O_RDONLY | os.O_TRUNC)",
        "import os\nopen(os.__file__, 'a')",
        "import os\nopen(os.path.dirname(os.__file__) + '/new', 'w')",
    ):
        assert await outcome(sandbox, program) in {"denied", "failed"}, program
    assert os.listdir(tmp_path) == ["open-to-all"]  # noqa: PTH208
    assert secret.read_text() == "mine"


async def test_files_of_the_parent_cannot_be_read_where_namespaces_or_landlock_are(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-1")
    paths = [str(secret), "/etc/passwd", f"/proc/{os.getpid()}/environ", "/proc/self/environ"]
    if (await sandbox.layers())["files"] != "own directory only":
        paths = ["/etc/shadow"]  # the seccomp filter alone stops writing; permissions do the rest
    for path in paths:
        assert await outcome(sandbox, f"open({path!r}).read()") in {"denied", "failed"}, path


async def test_its_own_directory_can_be_written_and_has_a_limit(sandbox: Sandbox) -> None:
    small = await outcome(sandbox, "open('x', 'w').write('1')\nassert open('x').read() == '1'")
    big = await outcome(sandbox, "f = open('x', 'wb')\nfor _ in range(32): f.write(bytes(2**20)); f.flush()")
    confined = (await sandbox.layers())["files"] == "own directory only"
    assert small == ("passed" if confined else "denied")
    assert big in {"failed", "denied"}


async def test_the_environment_is_empty(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSEID_TEST_KEY", "sk-1")
    execution = await sandbox.run(
        "import os, sys\nassert not os.environ and sys.argv == [''] and not sys.flags.optimize"
    )
    assert execution.outcome == "passed", execution.detail
    assert await outcome(sandbox, "import pydantic") == "failed"  # no site-packages


async def test_the_loopback_device_of_the_machine_is_out_of_reach(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        assert await outcome(sandbox, f"import socket\nsocket.create_connection(('127.0.0.1', {port}))") == "denied"
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_many_threads_are_refused_before_they_hurt(sandbox: Sandbox) -> None:
    bomb = "import threading\nthreading.stack_size(32768)\nfor _ in range(5000):\n"
    bomb += "    threading.Thread(target=threading.Event().wait, daemon=True).start()"
    assert await outcome(sandbox, bomb) in {"failed", "memory", "exited", "timeout"}
    assert await outcome(sandbox, "x = 1") == "passed"


async def test_sleeping_code_is_killed_by_the_wall_clock() -> None:
    async with Sandbox(SandboxSpec(workers=1, wall_seconds=0.5)) as pool:
        execution = await pool.run("import time\ntime.sleep(60)")
    assert (execution.outcome, execution.detail) == ("timeout", "wall-clock limit of 0.5 s")
    assert execution.wall_seconds < 10


async def test_another_interpreter_without_privileges_is_named_when_it_does_not_start() -> None:
    pool = Sandbox(SandboxSpec(workers=1), python=Path("/bin/false"))
    with pytest.raises(SandboxUnavailableError, match="did not start with /bin/false"):
        await pool.run("x = 1")
    await pool.close()


async def test_too_little_memory_for_python_itself_is_said_and_nothing_hangs() -> None:
    assert sys.platform == "linux"
    pool = Sandbox(SandboxSpec(workers=1, memory_mib=64))
    try:
        execution = await asyncio.wait_for(pool.run("x = bytearray(2**27)"), 60)
    finally:
        await pool.close()
    assert execution.outcome == "memory"
