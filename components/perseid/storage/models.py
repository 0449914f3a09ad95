"""A model's directory in object storage, fetched to this machine: settings first, weights when they are read."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from perseid.api.layout import StorageError, scratch_directory, working_copy
from perseid.storage.objects import Found, Objects
from perseid.storage.scratch import prepare_scratch

MODELS = "models"
SETTINGS = ("*.json", "*.model", "*.txt", "*.jinja", "*.py")
WEIGHTS = ("*.safetensors", "*.bin")


class RemoteModel:
    """A directory of objects with a model in transformers' format."""

    def __init__(self, uri: str) -> None:
        """List it. Raises StorageError."""
        prepare_scratch()
        self.uri = uri.rstrip("/")
        self._objects = Objects(self.uri)
        self._objects.check()
        self._listed = {one.key: one for one in self._objects.list("") if "/" not in one.key}
        self.path = scratch_directory() / MODELS / working_copy(self.uri).name
        """Where its files are put."""

    @property
    def names(self) -> frozenset[str]:
        """The files that it has."""
        return frozenset(self._listed)

    @property
    def weights(self) -> list[str]:
        """Its weights: safetensors where there are any, else PyTorch's own format."""
        for pattern in WEIGHTS:
            if found := sorted(name for name in self._listed if fnmatchcase(name, pattern)):
                return found
        return []

    def fetch_settings(self) -> None:
        """Fetch everything but weights."""
        self._fetch(lambda name: any(fnmatchcase(name, pattern) for pattern in SETTINGS))

    def fetch_weights(self) -> None:
        """Fetch the weights."""
        weights = self.weights
        self._fetch(lambda name: name in weights)

    def _fetch(self, wanted: Callable[[str], bool]) -> None:
        """Fetch what is wanted and not there yet; processes of this machine wait for each other."""
        self.path.mkdir(parents=True, exist_ok=True)
        record = self.path.with_suffix(".json")
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = _read(record)
            for name, found in self._listed.items():
                target = self.path / name
                if not wanted(name) or _is_here(target, found, known.get(name)):
                    continue
                if found.etag is None:
                    raise StorageError(f"the storage {self.uri} gives no ETags, by which a fetched file could be known")
                self._objects.download(name, target, found.size, found.etag)
                known[name] = found.etag
                scratch = record.with_suffix(".json.tmp")
                scratch.write_text(json.dumps(known))
                scratch.replace(record)


def _is_here(target: Path, found: Found, etag: str | None) -> bool:
    return etag is not None and etag == found.etag and target.is_file() and target.stat().st_size == found.size


def _read(record: Path) -> dict[str, str]:
    try:
        known = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return {}  # only a cache: what is missing or damaged is fetched again
    return known if isinstance(known, dict) else {}
