"""Reads what stages have written: results and reasons of failure, from the root of a run's files."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from perseid.api.layout import RESULT, STAGES, attempt_key
from perseid.api.result import GenerationResult, ResultError, StageResult, parse_result

MAX_BYTES = 1 << 20
"""A result is a few kilobytes. More is no result, and must not fill the operator's memory."""
TIMEOUT_SECONDS = 20.0
MAX_STORES = 256
"""Connections that are kept."""


class StorageError(Exception):
    """The storage cannot be asked. The message says which, why, and what to look at."""


@dataclass(frozen=True, slots=True)
class StageFailure:
    """What a failed stage said of itself."""

    stage: str
    message: str


class ResultReader:
    """Reads from `s3://`, `gs://`, `az://` and directories, with the environment's credentials, as obstore does."""

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

    async def failure(self, root: str, generation: int, attempt: int) -> StageFailure | None:
        """The last stage of an attempt that has said why it failed."""
        for stage in reversed(STAGES):
            content = await self._read(root, f"{attempt_key(generation, attempt)}/{stage}/{RESULT}")
            if content is None:
                continue
            try:
                result = StageResult.model_validate_json(content)
            except ValueError:
                return StageFailure(stage, "it left a result.json that cannot be read")
            if result.error is not None:
                return StageFailure(stage, result.error)
            return None
        return None

    async def _read(self, root: str, key: str) -> bytes | None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                found = await obstore.get_async(self._store(root), key)
                if found.meta["size"] > MAX_BYTES:
                    return b"{}"  # not a result: reading it is what makes it one
                return bytes(await found.bytes_async())
        except (FileNotFoundError, NotFoundError):
            return None
        except TimeoutError as error:
            raise StorageError(
                f"the storage {root} gave no answer within {TIMEOUT_SECONDS:g} s; is it up, and may the operator reach"
                " it?"
            ) from error
        except (BaseError, OSError, ValueError) as error:
            raise StorageError(
                f"the storage {root} cannot be read: {error}; check the address and the operator's credentials for it"
            ) from error

    def _store(self, root: str) -> Any:
        if "://" not in root or root.startswith("file://"):
            path = Path(root.removeprefix("file://"))
            if not path.is_dir():
                raise FileNotFoundError(root)  # nothing has been written yet
            return LocalStore(prefix=path)
        store = self._remote.get(root)
        if store is None:
            if len(self._remote) >= MAX_STORES:
                self._remote.pop(next(iter(self._remote)))
            store = self._remote[root] = from_url(root)
        return store
