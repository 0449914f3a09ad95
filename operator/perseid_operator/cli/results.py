"""A run's result files, where the user can reach them: a directory that is mounted here, or a bucket."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perseid.api.layout import RESULT, StorageError, attempt_key, is_remote, local_path
from perseid.api.result import StageResult
from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus

EVALUATIONS = "evaluations"


class ResultsUnreachableError(Exception):
    """The files cannot be read from here; the message says why and what to do."""


def storage_of(run: EvolutionRun, status: EvolutionRunStatus) -> str | None:
    """Root of a run's files: what its spec says, else what its models' places tell; None where nothing does."""
    if run.spec.storage.uri is not None:
        return run.spec.storage.uri.rstrip("/")
    for generation in status.generations:
        for attempt in generation.attempts:
            uri = "" if generation.candidate is None else generation.candidate.uri
            root, found, _ = uri.partition(f"/{attempt_key(generation.index, attempt.number)}/")
            if found and root:
                return root
    return None


class ResultFiles:
    """Files below one root. All calls raise ResultsUnreachableError."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._directory = None if is_remote(root) else local_path(root)
        if self._directory is not None and not self._directory.is_dir():
            raise ResultsUnreachableError(
                f"the run's files are in the directory {self._directory}, which is not there on this machine; mount it,"
                " or name another place with --storage"
            )
        self._store: Any = None if self._directory is not None else _open(root)

    def read(self, key: str) -> bytes | None:
        """A file's content; None where there is no such file."""
        if self._directory is not None:
            try:
                return (self._directory / key).read_bytes()
            except FileNotFoundError:
                return None
            except OSError as error:
                raise ResultsUnreachableError(f"{self._directory / key} cannot be read: {error.strerror}") from error
        import obstore

        try:
            with self._explained():
                return bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError:
            return None

    def stage_result(self, generation: int, attempt: int, stage: str) -> StageResult | None:
        """What a stage of an attempt, or a shard by its name, says about itself; None where it has not ended."""
        key = f"{attempt_key(generation, attempt)}/{stage}/{RESULT}"
        content = self.read(key)
        if content is None:
            return None
        try:
            return StageResult.model_validate_json(content)
        except ValidationError as error:
            raise ResultsUnreachableError(f"{self.root}/{key} is no result: {error.error_count()} mistakes") from error

    @contextlib.contextmanager
    def for_report(self, status: EvolutionRunStatus) -> Iterator[Path]:
        """A directory with what a report needs of the generations in the status, for as long as the context lasts."""
        with self._copied(lambda: self._report_keys(status)) as directory:
            yield directory

    @contextlib.contextmanager
    def for_page(self, status: EvolutionRunStatus) -> Iterator[Path]:
        """The same with everything that the HTML report shows: trees, answers and verdicts, but no weights."""
        with self._copied(lambda: self._page_keys(status)) as directory:
            yield directory

    @contextlib.contextmanager
    def _copied(self, keys: Callable[[], Iterator[str]]) -> Iterator[Path]:
        if self._directory is not None:
            yield self._directory
            return
        with tempfile.TemporaryDirectory(prefix="perseid-report-") as scratch:
            for key in keys():
                content = self.read(key)
                if content is not None:
                    path = Path(scratch) / key
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
            yield Path(scratch)

    def _page_keys(self, status: EvolutionRunStatus) -> Iterator[str]:
        from perseid.report.document import is_shown  # `logs` reads files, too, and waits for no report

        for generation in status.generations:
            for attempt in generation.attempts:
                yield from self._listed(f"{attempt_key(generation.index, attempt.number)}/", is_shown)
        yield from self._listed(f"{EVALUATIONS}/", is_shown)

    def _listed(self, prefix: str, wanted: Callable[[str], bool]) -> Iterator[str]:
        import obstore

        with self._explained():
            for page in obstore.list(self._store, prefix=prefix):
                yield from (entry["path"] for entry in page if wanted(entry["path"]))

    def _report_keys(self, status: EvolutionRunStatus) -> Iterator[str]:
        for generation in status.generations:
            for attempt in generation.attempts:
                if generation.result is not None and attempt.run_id == generation.result.run_id:
                    yield f"{attempt_key(generation.index, attempt.number)}/{RESULT}"
        yield from self._listed(f"{EVALUATIONS}/", lambda key: key.count("/") == 2 and key.endswith("/scores.json"))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        from perseid.storage.stores import explained

        try:
            with explained(self.root):
                yield
        except StorageError as error:
            raise ResultsUnreachableError(
                f"the run's files cannot be read from here: {error}; --storage names another place"
            ) from error


def _open(root: str) -> Any:
    from perseid.storage.stores import Patience, open_store  # a command that reads no bucket need not load its client

    try:
        return open_store(root, Patience.LOOK)
    except StorageError as error:
        raise ResultsUnreachableError(f"{root} is no place that files can be read from: {error}") from error
