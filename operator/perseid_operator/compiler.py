"""Compiles pipelines in a process of its own: KFP's SDK must not be in the operator's."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from perseid.api.pipeline import GenerationTemplate, StageDefaults
from perseid.processes import DIE_WITH

TIMEOUT_SECONDS = 120.0
"""Importing KFP takes seconds on a busy machine; compiling takes a tenth of one."""
IDLE_SECONDS = 300.0
MAX_KEPT = 64
_LINE_LIMIT = 4 << 20


class CompileError(Exception):
    """KFP refuses the settings. They will not compile another time either."""


class CompilerUnavailableError(Exception):
    """The compiling process could not be started, hangs or died. Another try may work."""


@dataclass(frozen=True)
class CompiledPipeline:
    """A pipeline as KFP takes it. Many runs share one, so what is made of its text is made once."""

    text: str
    """Canonical JSON of `{"pipeline": ..., "platform": ...}`, and `"defaults"` where the operator had any."""

    @cached_property
    def digest(self) -> str:
        """sha256 of the text."""
        return f"sha256:{hashlib.sha256(self.text.encode()).hexdigest()}"

    @cached_property
    def pipeline(self) -> Mapping[str, Any]:
        """KFP's intermediate representation."""
        found: dict[str, Any] = json.loads(self.text)["pipeline"]
        return found

    @cached_property
    def platform(self) -> Mapping[str, Any] | None:
        """Its part for Kubernetes."""
        found: dict[str, Any] | None = json.loads(self.text)["platform"]
        return found

    @cached_property
    def defaults(self) -> StageDefaults:
        """The operator's defaults of stages that it was compiled with."""
        return StageDefaults.model_validate(json.loads(self.text).get("defaults") or {})

    def with_defaults(self, defaults: StageDefaults) -> CompiledPipeline:
        """With the defaults in its text, and so in its digest: not all of them show in the pipeline."""
        said = defaults.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if not said:
            return self
        text = json.dumps({**json.loads(self.text), "defaults": said}, sort_keys=True, separators=(",", ":"))
        return CompiledPipeline(text)


class Compiler:
    """One compiling process, started when it is first needed and again when it died. Answers are kept."""

    def __init__(self, command: tuple[str, ...] = (sys.executable, "-m", "perseid.pipelines")) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._kept: OrderedDict[str, CompiledPipeline] = OrderedDict()

    async def warm_up(self) -> None:
        """Start the process, which takes it seconds, before anybody waits for it. That it cannot be is told later."""
        async with self._turn:
            with contextlib.suppress(OSError):
                await self._started()
                self._end_when_idle()

    async def compile(self, template: GenerationTemplate) -> CompiledPipeline:
        """The pipeline of all runs that agree in this. Raises CompileError or CompilerUnavailableError."""
        line = template.model_dump_json(by_alias=True)
        if line in self._kept:
            return self._kept[line]
        async with self._turn:
            kept = self._kept.get(line)  # whoever was before may have asked the same
            if kept is None:
                kept = self._kept[line] = await self._ask(line)
                if len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)
                self._end_when_idle()
            return kept

    def _end_when_idle(self) -> None:
        """It weighs more than the operator, and has little to do: runs of a team share their pipelines."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._begin_to_end)

    def _begin_to_end(self) -> None:
        self._ending = asyncio.get_running_loop().create_task(self._end_idle())

    async def _end_idle(self) -> None:
        async with self._turn:
            await self._end()

    async def close(self) -> None:
        """End the process."""
        if self._idle is not None:
            self._idle.cancel()
        await self._end()

    async def _end(self) -> None:
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
            await asyncio.shield(self._end())
            if isinstance(error, TimeoutError | OSError | ValueError):
                raise CompilerUnavailableError(f"the pipeline's compiler does not answer: {error!r}") from error
            raise
        if not answer.endswith(b"\n"):
            await self._end()
            raise CompilerUnavailableError("the pipeline's compiler died; the operator's log has its last words")
        found = json.loads(answer)
        if "error" in found:
            raise CompileError(found["error"])
        return CompiledPipeline(answer.decode().rstrip("\n"))

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            with contextlib.suppress(ProcessLookupError):
                await self._end()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE_LIMIT,
                env={**os.environ, DIE_WITH: str(os.getpid())},
            )
        return self._process
