"""The double as a process of its own, and waiting for what other processes do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

DOUBLE = Path(__file__).parents[2] / "kfp_double"
SECONDS = 60.0
"""Much longer than anything takes on a busy machine."""


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = SECONDS) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(seconds):
        # What is waited for happens in other processes, which set no event here.
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@dataclass
class DoubleProcess:
    process: asyncio.subprocess.Process
    port: int
    control_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def control(self, method: str, **arguments: Any) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{self.control_port}/double/{method}", json=arguments) as response,
        ):
            assert response.status == 200, await response.text()
            return await response.json()

    async def state(self) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.control_port}/double/state") as response,
        ):
            return await response.json()

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def double_process(*arguments: str) -> AsyncIterator[DoubleProcess]:
    """Start one, and kill it at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(DOUBLE), *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(SECONDS):
            told = json.loads(await process.stdout.readline())
        assert told["pid"] == process.pid
        yield DoubleProcess(process, told["port"], told["control_port"])
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
