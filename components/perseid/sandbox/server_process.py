"""One fork server as the pool sees it: started, asked, killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perseid.api.synthesis import SandboxSpec
from perseid.sandbox.errors import SandboxError, SandboxUnavailableError
from perseid.sandbox.results import Execution

_BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv[1]); from inside.server import main; del sys.path[0];"
    "import json; main(json.loads(sys.argv[2]))"
)
_START_SECONDS = 60.0
_GRACE_SECONDS = 20.0


class ServerDiedError(SandboxError):
    """The server ended, or did not answer in time. Whoever asked may ask another one."""


class ServerProcess:
    """A running fork server. Not for two coroutines at once."""

    def __init__(self, process: asyncio.subprocess.Process, base: Path, patience: float) -> None:
        self._process = process
        self._base = base
        self._patience = patience
        self.layers: dict[str, str] = {}

    @property
    def pid(self) -> int:
        """Process id of the server as this process sees it."""
        return self._process.pid

    @classmethod
    async def start(cls, limits: SandboxSpec, python: Path, optional_layers: Sequence[str]) -> ServerProcess:
        """Start a server. Raises SandboxUnavailableError where this machine cannot confine code."""
        base = Path(tempfile.mkdtemp(prefix="perseid-sandbox-"))
        arguments = {
            "base": str(base),
            "optional_layers": list(optional_layers),
            "wall_seconds": limits.wall_seconds,
            "cpu_seconds": limits.cpu_seconds,
            "memory_mib": limits.memory_mib,
        }
        flags = ["-P", "-s", "-S", "-B", "-c", _BOOTSTRAP, str(Path(__file__).parent), json.dumps(arguments)]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            str(python),
            *flags,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env={"PYTHONHASHSEED": "0"},  # the order of a set may decide a verdict, and verdicts must repeat
            start_new_session=True,
        )
        server = cls(process, base, limits.wall_seconds + _GRACE_SECONDS)
        try:
            hello = await asyncio.wait_for(server._receive(), _START_SECONDS)
        except (TimeoutError, EOFError, OSError) as error:
            await server.kill()
            stderr = await server._last_words()
            raise SandboxUnavailableError(
                f"the sandbox's server did not start with {python}: {stderr or error!r}"
            ) from error
        except BaseException:
            await server.kill()
            raise
        if not hello["ready"]:
            await server.kill()
            raise SandboxUnavailableError(hello["error"])
        server.layers = hello["layers"]
        if server.layers["namespaces"] == "yes":
            server._clean()  # it was a mount point, and the mount has become the server's root
        return server

    async def run(self, body: str, checks: Sequence[str]) -> Execution:
        """Run one program. Raises ServerDiedError, and SandboxUnavailableError where a layer failed."""
        message = json.dumps({"body": body, "checks": list(checks)}).encode()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(struct.pack("!I", len(message)) + message)
            await self._process.stdin.drain()
            reply = await asyncio.wait_for(self._receive(), self._patience)
        except (TimeoutError, EOFError, OSError) as error:
            raise ServerDiedError(f"the sandbox's server {self.pid} ended or hung: {error!r}") from error
        if reply["error"]:
            raise SandboxUnavailableError(f"an execution could not be confined, and was not run: {reply['error']}")
        return Execution(
            outcome=reply["outcome"],
            detail=reply["detail"],
            wall_seconds=reply["wall_seconds"],
            cpu_seconds=reply["cpu_seconds"],
            checks_passed=tuple(reply["checks_passed"]),
        )

    async def close(self) -> None:
        """Let the server end by itself, tidily; what it runs is killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _GRACE_SECONDS)
        except TimeoutError:
            await self.kill()
        self._clean()

    async def kill(self) -> None:
        """End the server and whatever it runs, now."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._clean()

    async def _last_words(self) -> str:
        assert self._process.stderr is not None
        return (await self._process.stderr.read()).decode(errors="replace").strip()[-1000:]

    def _clean(self) -> None:
        """Remove the directory of a server that could not do it itself."""
        if self._base.exists():
            shutil.rmtree(self._base)

    async def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        (size,) = struct.unpack("!I", await self._process.stdout.readexactly(4))
        reply: dict[str, Any] = json.loads(await self._process.stdout.readexactly(size))
        return reply
