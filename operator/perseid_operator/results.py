"""Reads what stages have written: results and reasons of failure, from the root of a run's files."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import obstore
from obstore.store import LocalStore

from perseid.api.layout import RESULT, StorageError, attempt_key, is_remote, local_path, part_names
from perseid.api.result import (
    GenerationResult,
    MentorBudget,
    PaidUsage,
    ResultError,
    StageResult,
    StageUsage,
    parse_result,
)
from perseid.api.stages import STAGES, StageName
from perseid.storage.stores import Patience, explained, open_store

__all__ = ["ResultReader", "StageFailure", "StorageError"]

MAX_BYTES = 1 << 20
"""A result is a few kilobytes. More is no result, and must not fill the operator's memory."""
TIMEOUT_SECONDS = 20.0
MAX_STORES = 256
"""Connections that are kept."""


@dataclass(frozen=True, slots=True)
class StageFailure:
    """What a failed stage said of itself."""

    stage: StageName
    message: str
    spent_budget: MentorBudget | None = None
    """The budget that kept it from getting on, where one did."""


class ResultReader:
    """Reads from `s3://` and directories, with the environment's credentials. Raises StorageError."""

    def __init__(self) -> None:
        self._remote: dict[str, Any] = {}

    async def generation(self, root: str, generation: int, attempt: int) -> GenerationResult | str | None:
        """What an attempt was worth; why its result cannot be trusted; None where there is none."""
        content = await self._read(root, f"{attempt_key(generation, attempt)}/{RESULT}")
        if content is None:
            return None
        try:
            return parse_result(content)
        except ResultError as error:
            return str(error)

    async def failure(self, root: str, generation: int, attempt: int, shards: int = 1) -> StageFailure | None:
        """The last stage of an attempt that has said why it failed. `shards`: of the run's search."""
        for stage in reversed(STAGES):
            *of_shards, own = part_names(stage, shards)
            found = await self._stage_result(root, generation, attempt, own)
            if found is not None:
                return _failure(stage, found)
            for name in of_shards:
                failure = _failure(stage, await self._stage_result(root, generation, attempt, name))
                if failure is not None:
                    return dataclasses.replace(failure, message=f"{name}: {failure.message}")
        return None

    async def paid(self, root: str, generation: int, attempt: int, stages: Sequence[StageName]) -> PaidUsage:
        """What mentors and judges have cost a generation up to an attempt, by each stage's newest word."""
        found = [await self._newest_usage(root, generation, attempt, stage) for stage in stages]
        return PaidUsage.of(usage for usage in found if usage is not None)

    async def _newest_usage(self, root: str, generation: int, attempt: int, stage: StageName) -> StageUsage | None:
        for number in reversed(range(attempt + 1)):
            found = await self._stage_result(root, generation, number, stage)
            if isinstance(found, StageResult):
                return found.usage
        return None

    async def _stage_result(self, root: str, generation: int, attempt: int, name: str) -> StageResult | str | None:
        """What a stage or a shard said at its end; what is wrong with it; None where it has said nothing."""
        content = await self._read(root, f"{attempt_key(generation, attempt)}/{name}/{RESULT}")
        if content is None:
            return None
        try:
            return StageResult.model_validate_json(content)
        except ValueError:
            return "it left a result.json that cannot be read"

    async def _read(self, root: str, key: str) -> bytes | None:
        try:
            with explained(root):
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    found = await obstore.get_async(self._store(root), key)
                    if found.meta["size"] > MAX_BYTES:
                        return b"{}"  # not a result: reading it is what makes it one
                    return bytes(await found.bytes_async())
        except FileNotFoundError:
            return None

    def _store(self, root: str) -> Any:
        if not is_remote(root):
            path = local_path(root)
            if not path.is_dir():
                raise FileNotFoundError(root)  # nothing has been written yet
            return LocalStore(prefix=path)
        store = self._remote.get(root)
        if store is None:
            if len(self._remote) >= MAX_STORES:
                self._remote.pop(next(iter(self._remote)))
            store = self._remote[root] = open_store(root, Patience.LOOK)
        return store


def _failure(stage: StageName, found: StageResult | str | None) -> StageFailure | None:
    if isinstance(found, str):
        return StageFailure(stage, found)
    return None if found is None or found.error is None else StageFailure(stage, found.error, found.spent_budget)
