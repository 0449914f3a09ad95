"""The pool of fork servers: one execution at a time in each, as many as there are workers."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from perseid.api.synthesis import SandboxSpec
from perseid.sandbox.errors import SandboxError, SandboxUnavailableError
from perseid.sandbox.results import Execution
from perseid.sandbox.server_process import ServerDiedError, ServerProcess

OptionalLayer = Literal["namespaces", "landlock"]

_TRIES = 2
_TRIAL = """
import os, socket
for forbidden in (socket.socket, os.fork, lambda: open("/etc/perseid-was-here", "w")):
    try:
        forbidden()
    except OSError:
        continue
    raise SystemExit("not confined")
"""


class Sandbox:
    """Runs generated Python, confined. Any number of coroutines of one event loop may use it at once.

    Servers start when they are first needed, in `workers` many processes. They die with the thread whose event loop
    uses the sandbox. `python` is the interpreter that runs the code: by default this one without its site-packages.
    `optional_layers` says which layers may be used beside the system call filter, which always is.
    """

    def __init__(
        self,
        limits: SandboxSpec,
        *,
        python: Path | None = None,
        optional_layers: Sequence[OptionalLayer] = ("namespaces", "landlock"),
    ) -> None:
        self._limits = limits
        self._python = python or Path(getattr(sys, "_base_executable", sys.executable))
        self._optional_layers = optional_layers
        self.workers = limits.workers or len(os.sched_getaffinity(0))
        self._free: asyncio.LifoQueue[ServerProcess | None] = asyncio.LifoQueue()
        for _ in range(self.workers):
            self._free.put_nowait(None)
        self._servers: set[ServerProcess] = set()
        self._trial = asyncio.Lock()
        self._tried = False
        self._closed = False

    @property
    def server_pids(self) -> tuple[int, ...]:
        """Process ids of the servers that run now."""
        return tuple(server.pid for server in self._servers)

    async def layers(self) -> dict[str, str]:
        """Which layers confine the code on this machine, for a report. Raises SandboxUnavailableError."""
        server = await self._take()
        self._free.put_nowait(server)
        return server.layers

    async def run(self, program: str, checks: Sequence[str] = ()) -> Execution:
        """Run a program, and after it each check by itself in the same process. It passes when nothing raises.

        Raises SandboxUnavailableError where this machine cannot confine code. A failing, crashing or endless program
        raises nothing: that is what the Execution says.
        """
        for _ in range(_TRIES):
            server = await self._take()
            try:
                execution = await server.run(program, checks)
            except ServerDiedError:
                await self._discard(server)
            except BaseException:  # cancelled: an answer is on its way that nobody waits for
                await self._discard(server)
                raise
            else:
                self._free.put_nowait(server)
                return execution
        return Execution("lost", f"the sandbox's server died {_TRIES} times", 0.0, 0.0, (False,) * len(checks))

    async def close(self) -> None:
        """End all servers; running executions are killed. More than once is fine."""
        self._closed = True
        servers, self._servers = self._servers, set()
        await asyncio.gather(*(server.close() for server in servers))

    async def __aenter__(self) -> Self:
        try:
            await self.layers()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _take(self) -> ServerProcess:
        if self._closed:
            raise SandboxError("the sandbox is closed")
        server = await self._free.get()
        if server is not None:
            return server
        try:
            server = await ServerProcess.start(self._limits, self._python, self._optional_layers)
            self._servers.add(server)
            await self._try(server)
        except BaseException:
            if server is not None:
                await self._discard(server)
            else:
                self._free.put_nowait(None)
            raise
        return server

    async def _try(self, server: ServerProcess) -> None:
        """Believe the layers only when they have stopped something: once for each sandbox."""
        async with self._trial:
            if self._tried:
                return
            try:
                execution = await server.run(_TRIAL, ())
            except ServerDiedError as error:
                raise SandboxUnavailableError(f"a first execution ended the sandbox's server: {error}") from error
            if execution.outcome != "passed":
                raise SandboxUnavailableError(
                    f"a first execution, which tries forbidden things, ended with {execution.outcome}: "
                    f"{execution.detail}. Layers: {server.layers}. Check the limits (memoryMib, cpuSeconds) and the "
                    "container's security profile"
                )
            self._tried = True

    async def _discard(self, server: ServerProcess) -> None:
        self._servers.discard(server)
        self._free.put_nowait(None)
        await server.kill()
