"""The pool's life: servers that die, callers that leave, owners that are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from perseid.api.synthesis import SandboxSpec
from perseid.sandbox import OptionalLayer, Sandbox, SandboxError

SLEEP = "import time\ntime.sleep(60)"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def descendants(pid: int) -> list[int]:
    found = []
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    for child in children:
        found += [int(child), *descendants(int(child))]
    return found


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Poll for a state of other processes, which nothing announces."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


async def test_a_server_that_dies_is_replaced_and_its_execution_run_again() -> None:
    async with Sandbox(SandboxSpec(workers=1, wall_seconds=30)) as sandbox:
        (first,) = sandbox.server_pids
        task = asyncio.create_task(sandbox.run("import time\ntime.sleep(0.5)"))  # long enough to be caught in the act
        await asyncio.sleep(0.1)
        os.kill(first, signal.SIGKILL)
        assert (await task).outcome == "passed"
        (second,) = sandbox.server_pids
        assert second != first


async def test_an_execution_that_loses_two_servers_is_reported_lost() -> None:
    async with Sandbox(SandboxSpec(workers=1, wall_seconds=30)) as sandbox:
        task = asyncio.create_task(sandbox.run(SLEEP, ["assert True"]))
        killed: set[int] = set()
        while not task.done():
            for pid in set(sandbox.server_pids) - killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.01)
        execution = await task
        assert (execution.outcome, execution.checks_passed) == ("lost", (False,))
        assert len(killed) == 2
        assert (await sandbox.run("x = 1")).outcome == "passed"


async def test_killing_a_server_kills_what_it_runs() -> None:
    async with Sandbox(SandboxSpec(workers=1, wall_seconds=60)) as sandbox:
        (server,) = sandbox.server_pids
        resting = len(descendants(server))
        task = asyncio.create_task(sandbox.run(SLEEP))
        while len(descendants(server)) == resting:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # other processes announce nothing
        family = descendants(server)
        os.kill(server, signal.SIGKILL)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert eventually(lambda: not any(alive(pid) for pid in family))


async def test_a_caller_that_leaves_does_not_get_the_next_one_a_wrong_answer() -> None:
    async with Sandbox(SandboxSpec(workers=1, wall_seconds=60)) as sandbox:
        task = asyncio.create_task(sandbox.run(SLEEP))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await sandbox.run("1 / 0")).detail == "ZeroDivisionError: division by zero"


MANY_FILES = "for number in range(5000):\n    open(str(number), 'w').close()\n" + SLEEP
"""Removing them takes so long that the signal which follows the end of the pipe comes in the middle of it."""


@pytest.mark.parametrize(
    ("layers", "code"),
    [(("namespaces", "landlock"), SLEEP), (("landlock",), SLEEP), (("landlock",), MANY_FILES)],
    ids=["with namespaces", "without", "without, and with files"],
)
def test_when_the_owner_is_killed_nothing_stays(layers: tuple[str, ...], code: str, tmp_path: Path) -> None:
    # A second or two: it starts an interpreter with Perseid in it.
    program = f"""
import asyncio
from perseid.api.synthesis import SandboxSpec
from perseid.sandbox import Sandbox
async def main():
    async with Sandbox(SandboxSpec(workers=2, wall_seconds=60), optional_layers={layers!r}) as sandbox:
        tasks = [asyncio.create_task(sandbox.run({code!r})) for _ in range(2)]
        while len(sandbox.server_pids) < 2: await asyncio.sleep(0.01)
        print("running", flush=True)
        await asyncio.gather(*tasks)
asyncio.run(main())
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "running\n"
    assert eventually(lambda: len(descendants(owner.pid)) >= 4)
    if code == MANY_FILES:
        assert eventually(lambda: len(list(tmp_path.glob("*/box/4999"))) == 2)
    family = descendants(owner.pid)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert eventually(lambda: not any(alive(pid) for pid in family))
    assert eventually(lambda: not list(tmp_path.iterdir()))


async def test_a_closed_sandbox_leaves_no_process_and_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with Sandbox(SandboxSpec(workers=1), optional_layers=("landlock",)) as sandbox:
        (server,) = sandbox.server_pids
        await sandbox.run("x = 1")
    assert not alive(server)
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    with pytest.raises(SandboxError, match="closed"):
        await sandbox.run("x = 1")


@pytest.mark.parametrize("layers", [("namespaces", "landlock"), ("landlock",)])
async def test_closing_ends_what_runs(layers: tuple[OptionalLayer, ...]) -> None:
    sandbox = Sandbox(SandboxSpec(workers=1, wall_seconds=60), optional_layers=layers)
    await sandbox.layers()
    (server,) = sandbox.server_pids
    resting = len(descendants(server))
    task = asyncio.create_task(sandbox.run(SLEEP))
    while len(descendants(server)) == resting:  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # other processes announce nothing
    family = descendants(server)
    await sandbox.close()
    with pytest.raises(SandboxError, match="closed"):
        await task
    assert not any(alive(pid) for pid in [server, *family])
    await sandbox.close()
