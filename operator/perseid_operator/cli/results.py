"""A run's result files, where the user can reach them: a directory that is mounted here, or a bucket."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from perseid.api.layout import RESULT, attempt_key
from perseid.api.result import StageResult
from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus

if TYPE_CHECKING:
    from obstore.store import ObjectStore

STORE_SECONDS = 15
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
        path = root.removeprefix("file://")
        self._directory = None if "://" in path else Path(path)
        if self._directory is not None and not self._directory.is_dir():
            raise ResultsUnreachableError(
                f"the run's files are in the directory {self._directory}, which is not there on this machine; mount it,"
                " or name another place with --storage"
            )
        self._store = None if self._directory is not None else _open(root)

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

        with self._explained():
            try:
                return bytes(obstore.get(self._opened, key).bytes())
            except FileNotFoundError:
                return None

    def stage_result(self, generation: int, attempt: int, stage: str) -> StageResult | None:
        """What a stage of an attempt says about itself; None where it has not ended."""
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
        if self._directory is not None:
            yield self._directory
            return
        with tempfile.TemporaryDirectory(prefix="perseid-report-") as scratch:
            for key in self._report_keys(status):
                content = self.read(key)
                if content is not None:
                    path = Path(scratch) / key
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
            yield Path(scratch)

    def _report_keys(self, status: EvolutionRunStatus) -> Iterator[str]:
        for generation in status.generations:
            for attempt in generation.attempts:
                if generation.result is not None and attempt.run_id == generation.result.run_id:
                    yield f"{attempt_key(generation.index, attempt.number)}/{RESULT}"
        import obstore

        with self._explained():
            for page in obstore.list(self._opened, prefix=EVALUATIONS):
                for entry in page:
                    parts = entry["path"].split("/")
                    if len(parts) == 3 and parts[-1] == "scores.json":
                        yield entry["path"]

    @property
    def _opened(self) -> ObjectStore:
        assert self._store is not None
        return self._store

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            said = " ".join(str(error).split("\n")[0].split())
            raise ResultsUnreachableError(
                f"the run's files at {self.root} cannot be read from here: {said[:300]}. Credentials are taken from the"
                " environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT); --storage names"
                " another place"
            ) from error


def _open(root: str) -> ObjectStore:
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    seconds = timedelta(seconds=STORE_SECONDS)
    try:
        return from_url(
            root,
            client_options={"timeout": seconds, "connect_timeout": seconds, "allow_http": _plain_http_is_wanted()},
            retry_config={"max_retries": 1, "retry_timeout": seconds},
        )
    except (BaseError, ValueError) as error:
        raise ResultsUnreachableError(
            f"{root} is no place that files can be read from (a directory or s3://bucket/prefix): {error}"
        ) from error


def _plain_http_is_wanted() -> bool:
    """Whoever names an endpoint without TLS means it."""
    return any(os.environ.get(name, "").startswith("http://") for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL"))
