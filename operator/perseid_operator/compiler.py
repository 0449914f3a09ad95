"""Compiles pipelines in a process of its own: KFP's SDK must not be in the operator's."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from perseid.api.pipeline import PipelineSpec
from perseid.processes import DIE_WITH

TIMEOUT_SECONDS = 120.0
"""Importing KFP takes seconds on a busy machine; compiling takes a tenth of one."""
MAX_KEPT = 64
_LINE_LIMIT = 4 << 20


class CompileError(Exception):
    """KFP refuses the settings. They will not compile another time either."""


class CompilerUnavailableError(Exception):
    """The compiling process could not be started, hangs or died. Another try may work."""


@dataclass(frozen=True, slots=True)
class CompiledPipeline:
    """A pipeline as KFP takes it."""

    text: str
    """Canonical JSON of `{"pipeline": ..., "platform": ...}`."""

    @property
    def digest(self) -> str:
        """sha256 of the text."""
        return f"sha256:{hashlib.sha256(self.text.encode()).hexdigest()}"

    @property
    def pipeline(self) -> dict[str, Any]:
        """KFP's intermediate representation."""
        found: dict[str, Any] = json.loads(self.text)["pipeline"]
        return found

    @property
    def platform(self) -> dict[str, Any] | None:
        """Its part for Kubernetes."""
        found: dict[str, Any] | None = json.loads(self.text)["platform"]
        return found


class Compiler:
    """One compiling process, started when it is first needed and again when it died. Answers are kept."""

    def __init__(self, command: tuple[str, ...] = (sys.executable, "-m", "perseid.pipelines")) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._kept: OrderedDict[str, CompiledPipeline] = OrderedDict()

    async def compile(self, spec: PipelineSpec) -> CompiledPipeline:
        """The template for all runs with these settings. Raises CompileError or CompilerUnavailableError."""
        line = spec.model_dump_json(by_alias=True)
        async with self._turn:
            kept = self._kept.get(line)
            if kept is None:
                kept = self._kept[line] = await self._ask(line)
                if len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)
            return kept

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _ask(self, line: str) -> CompiledPipeline:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                process = await self._started()
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(f"{line}\n".encode())
                await process.stdin.drain()
                answer = await process.stdout.readline()
        except BaseException as error:
            # An answer that was not read would be taken for the next question's.
            await asyncio.shield(self.close())
            if isinstance(error, TimeoutError | OSError | ValueError):
                raise CompilerUnavailableError(f"the pipeline's compiler does not answer: {error!r}") from error
            raise
        if not answer.endswith(b"\n"):
            await self.close()
            raise CompilerUnavailableError("the pipeline's compiler died; the operator's log has its last words")
        found = json.loads(answer)
        if "error" in found:
            raise CompileError(found["error"])
        return CompiledPipeline(answer.decode().rstrip("\n"))

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            with contextlib.suppress(ProcessLookupError):
                await self.close()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE_LIMIT,
                env={**os.environ, DIE_WITH: str(os.getpid())},
            )
        return self._process
