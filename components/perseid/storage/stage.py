"""All that a stage has to do with its storage: inputs, its own directory, the store of evaluations, results."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from perseid.api.files import SCORES
from perseid.api.layout import RESULT, Layout, StorageError, may_be_taken_over
from perseid.api.result import StageResult
from perseid.api.stages import LAST_STAGE
from perseid.storage.directories import fetch_file, inherit
from perseid.storage.errors import ObjectChangedError, OwnershipLostError, StorageRefusedError
from perseid.storage.index import read_index
from perseid.storage.mirror import DirectoryMirror
from perseid.storage.objects import Objects
from perseid.storage.scratch import prepare_scratch

log = logging.getLogger(__name__)

FINISH_SECONDS = 300.0
"""How long the last push is tried, over and above what each request is."""
PAUSE_SECONDS = 3.0
"""Between two of its tries."""


class StageStorage:
    """A stage's files in object storage. All calls block, and raise StorageError."""

    def __init__(self, layout: Layout, stage: str) -> None:
        """Find out within seconds whether the storage can be used."""
        if layout.uri is None:
            raise ValueError("the layout is not that of a working copy")
        prepare_scratch()
        self._layout = layout
        self._stage = stage
        self._objects = Objects(layout.uri)
        self._objects.check()
        self._shared: dict[Path, tuple[int, int]] = {}
        """Sizes and times of the files of the store of evaluations that are in the storage."""
        self.mirror = DirectoryMirror(self._objects, self._key(layout.stage(stage)), layout.stage(stage))

    def result(self) -> StageResult | None:
        """The stage's own result; None where it has not ended. What an earlier attempt has done is taken over first."""
        content = self.mirror.result()
        if content is None and read_index(self._objects, self.mirror.key) is None and self._inherit():
            content = self.mirror.result()
        if content is None:
            return None
        try:
            return StageResult.model_validate_json(content)
        except ValueError as error:
            raise ObjectChangedError(
                f"{self.mirror.uri}/{RESULT} is no result of a stage; delete it to have the stage go on"
            ) from error

    def _inherit(self) -> bool:
        for earlier in self._layout.earlier(self._stage):
            key = self._key(earlier)
            ended = self._objects.read(f"{key}/{RESULT}")
            done = ended is not None and _may_be_taken_over(self._stage, ended[0])
            if inherit(self._objects, key, self.mirror.key, with_result=done):
                log.info("took over what %s had done", self._objects.uri(key))
                return True
        return False

    def fetch_output(self, stage: str, name: str) -> None:
        """Make the working copy of a file of this attempt's stage what was committed; remove it where it was not."""
        directory = self._layout.stage(stage)
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == RESULT:
            found = self._objects.read(f"{self._key(directory)}/{RESULT}")
            if found is not None:
                target.write_bytes(found[0])
                return
        else:
            index = read_index(self._objects, self._key(directory))
            if index is not None and name in index[0].files:
                fetch_file(self._objects, self._key(directory), name, index[0].files[name], target, done=True)
                return
        target.unlink(missing_ok=True)

    def committed(self, stage: str, prefix: str) -> list[str]:
        """The files that a stage of this attempt has committed whose names begin with that."""
        index = read_index(self._objects, self._key(self._layout.stage(stage)))
        return [] if index is None else sorted(name for name in index[0].files if name.startswith(prefix))

    def writer(self, stage: str) -> str | None:
        """The token of the try that writes a stage's files; None where there is none yet."""
        index = read_index(self._objects, self._key(self._layout.stage(stage)))
        return None if index is None else index[0].owner.token

    def fetch_attempt_result(self) -> None:
        """Make the working copy of the attempt's own result what was written; leave it where nothing was."""
        path = self._layout.result
        found = self._objects.read(self._key(path))
        if found is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(found[0])

    def fetch_evaluations(self) -> None:
        """Fetch the scores that the run has; the answers behind them stay where they are."""
        for listed in list(self._objects.list(self._key(self._layout.evaluations))):
            path = self._layout.root / listed.key
            if path.name != SCORES:
                continue
            found = self._objects.read(listed.key)
            if found is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished = path.with_name(f".{path.name}.tmp")
                unfinished.write_bytes(found[0])
                unfinished.replace(path)
                self._shared[path] = _state(path)

    def fetch_evaluation_file(self, path: Path) -> None:
        """Fetch one more file of the store of evaluations, where it is there and not here."""
        found = None if path.exists() else self._objects.read(self._key(path))
        if found is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(found[0])
            self._shared[path] = _state(path)

    def fetch_stage_results(self) -> None:
        """Fetch what the stages of all generations and attempts have said when they ended, but for this stage's own."""
        for listed in list(self._objects.list("generations")):
            path = self._layout.root / listed.key
            if path.name != RESULT or path.parent == self._layout.stage(self._stage):
                continue
            found = self._objects.read(listed.key)
            if found is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(found[0])

    def keys(self, prefix: str) -> list[str]:
        """The files of the run below a directory's key, of all generations."""
        return [found.key for found in self._objects.list(prefix)]

    def delete(self, keys: Sequence[str]) -> None:
        """Delete files of the run; those that are gone are no error."""
        self._objects.delete(keys)

    def finish(self, result: bytes, *, done: bool) -> None:
        """Push everything, the result last. An outage is waited for, for some minutes."""
        deadline = time.monotonic() + FINISH_SECONDS

        def before_result() -> None:
            self._push_evaluations()
            if done and self._stage == LAST_STAGE:
                self._objects.write(self._key(self._layout.result), self._layout.result.read_bytes())

        while True:
            try:
                self.mirror.finish(result, before_result)
                return
            except (OwnershipLostError, StorageRefusedError, ObjectChangedError):
                raise
            except StorageError as error:
                if time.monotonic() >= deadline:
                    raise StorageError(
                        f"what {self._stage} has made could not be stored: {error}; a new try goes on from the last"
                        " push"
                    ) from error
                log.warning("not stored yet, trying again: %s", error)
                time.sleep(PAUSE_SECONDS)

    def _push_evaluations(self) -> None:
        """In the order in which they were written: an evaluation's scores come last."""
        written = [path for path in self._layout.evaluations.rglob("*") if _is_shared(path)]
        for path in sorted(written, key=lambda path: path.stat().st_mtime_ns):
            state = _state(path)
            if self._shared.get(path) != state:
                self._objects.upload(self._key(path), path, state[0])
                self._shared[path] = state

    def _key(self, path: Path) -> str:
        return self._layout.key(path)


def _is_shared(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and not path.name.endswith(".tmp")


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _may_be_taken_over(stage: str, content: bytes) -> bool:
    try:
        return may_be_taken_over(stage, StageResult.model_validate_json(content))
    except ValueError:
        return False
