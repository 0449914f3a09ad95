"""Single objects below one storage URI: whole or not at all, and streamed where they are big."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError

from perseid.api.layout import SCRATCH_DIRECTORY, StorageError
from perseid.storage.errors import ObjectChangedError, StorageRefusedError
from perseid.storage.stores import Patience, explained, open_store

if TYPE_CHECKING:
    from obstore import GetOptions

PART_BYTES = 16 << 20
"""Of a multipart upload and of a download in ranges."""
MAX_PARTS = 9000
"""S3 takes 10,000."""
IN_FLIGHT = 4
"""Parts at a time: with their size, what a transfer takes of memory."""
MAX_COPY_BYTES = 5 << 30
"""S3 copies no bigger object in one request."""


class ConflictError(Exception):
    """A conditional write came too late: the object is not what the writer thought."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object as the storage lists it."""

    key: str
    size: int
    etag: str | None


class Objects:
    """Objects below a root. All calls block, and raise StorageError."""

    def __init__(self, root: str, patience: Patience = Patience.WORK) -> None:
        self.root = root.rstrip("/")
        self._store = open_store(self.root, patience)

    def uri(self, key: str) -> str:
        """The object's own URI."""
        return f"{self.root}/{key}"

    def check(self) -> None:
        """Find out within seconds whether the storage is there and lets us in. Raises StorageError."""
        store = open_store(self.root, Patience.LOOK)
        with explained(self.root), _missing_is_the_bucket(self.root):
            next(iter(obstore.list(store, prefix=".perseid-access", chunk_size=1)), None)

    def read(self, key: str) -> tuple[bytes, str | None] | None:
        """A small object's content and ETag; None where there is no such object."""
        with explained(self.uri(key)):
            try:
                found = obstore.get(self._store, key)
                return bytes(found.bytes()), found.meta["e_tag"]
            except FileNotFoundError as error:
                _unless_it_is_the_bucket(error)
                return None

    def look(self, key: str) -> Found | None:
        """An object's size and ETag; None where there is no such object."""
        with explained(self.uri(key)):
            try:
                meta = obstore.head(self._store, key)
                return Found(key, meta["size"], meta["e_tag"])
            except FileNotFoundError as error:
                _unless_it_is_the_bucket(error)
                return None

    def write(self, key: str, content: bytes) -> str | None:
        """Replace a small object; returns its ETag."""
        with explained(self.uri(key)), _missing_is_the_bucket(self.root):
            return obstore.put(self._store, key, content)["e_tag"]

    def write_if(self, key: str, content: bytes, etag: str | None) -> str:
        """Write a small object where it still has that ETag (None: where there is none); returns the new ETag.

        Raises ConflictError where it has another. The content must differ from what was there: an ETag may be a digest
        of it. When an answer is lost, the retry of a write that was carried out looks like a conflict.
        """
        with explained(self.uri(key)), _missing_is_the_bucket(self.root):
            try:
                new = obstore.put(self._store, key, content, mode="create" if etag is None else {"e_tag": etag})
            except (AlreadyExistsError, PreconditionError) as error:
                raise ConflictError(self.uri(key)) from error
        if new["e_tag"] is None:
            raise StorageRefusedError(f"the storage {self.root} gives no ETags; conditional writes need them")
        return new["e_tag"]

    def upload(self, key: str, path: Path, size: int) -> str | None:
        """Put a file of about that size, streamed; returns the object's ETag. FileNotFoundError where it is gone."""
        with explained(self.uri(key)):
            try:
                return obstore.put(self._store, key, path, chunk_size=_part_bytes(size), max_concurrency=IN_FLIGHT)[
                    "e_tag"
                ]
            except FileNotFoundError:
                if path.exists():
                    raise _no_bucket_behind(self.root) from None
                raise

    def upload_slice(self, key: str, path: Path, start: int, stop: int) -> str | None:
        """Put the bytes from `start` to `stop` of a file."""
        with explained(self.uri(key)), _missing_is_the_bucket(self.root):
            size = stop - start
            if size <= PART_BYTES:
                return obstore.put(self._store, key, b"".join(_slice(path, start, stop)))["e_tag"]
            part = _part_bytes(size)
            chunks = _slice(path, start, stop)
            return obstore.put(self._store, key, chunks, chunk_size=part, max_concurrency=IN_FLIGHT)["e_tag"]

    def download(self, key: str, target: Path, size: int, etag: str | None) -> None:
        """Fetch the first `size` bytes of an object, in ranges, into a file that has its name only when it is whole.

        Raises ObjectChangedError where the object has another ETag than that, unless it is None.
        """
        unfinished = target.with_name(f".{target.name}.fetched.tmp")
        ranges = [(start, min(start + PART_BYTES, size)) for start in range(0, size, PART_BYTES)]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                with ThreadPoolExecutor(IN_FLIGHT, "fetch") as pool:
                    for _ in pool.map(lambda span: self._fetch_range(key, handle, span, etag), ranges):
                        pass
            finally:
                os.close(handle)
            unfinished.replace(target)
        except OSError as error:
            raise StorageError(
                f"{self.uri(key)} cannot be fetched to {target}: {error.strerror}; make room there, or set"
                f" {SCRATCH_DIRECTORY} to a directory on a bigger disk"
            ) from error

    def _fetch_range(self, key: str, handle: int, span: tuple[int, int], etag: str | None) -> None:
        options: GetOptions = {"range": span} if etag is None else {"range": span, "if_match": etag}
        with explained(self.uri(key)):
            try:
                found = obstore.get(self._store, key, options=options)
                content = found.bytes()
            except PreconditionError as error:
                raise self._changed(key, "it was replaced after it was committed") from error
            except FileNotFoundError as error:
                _unless_it_is_the_bucket(error)
                raise self._changed(key, "it is gone") from error
        if len(content) != span[1] - span[0]:
            raise self._changed(key, "it is shorter than it was when it was committed")
        os.pwrite(handle, content, span[0])

    def _changed(self, key: str, how: str) -> ObjectChangedError:
        return ObjectChangedError(
            f"{self.uri(key)} is not what a stage has committed: {how}; restore it, or delete the directory that it is"
            " in to have it made anew"
        )

    def copy(self, source: str, target: str, size: int) -> str | None:
        """Copy an object within the storage, without moving it through this machine where it can; returns the ETag."""
        with explained(self.uri(target)):
            try:
                if size < MAX_COPY_BYTES:
                    obstore.copy(self._store, source, target)
                else:
                    self._carry(source, target, size)
                return obstore.head(self._store, target)["e_tag"]
            except FileNotFoundError as error:
                _unless_it_is_the_bucket(error)
                raise self._changed(source, "it is gone") from error

    def _carry(self, source: str, target: str, size: int) -> None:
        writer = obstore.open_writer(self._store, target, buffer_size=_part_bytes(size), max_concurrency=IN_FLIGHT)
        for start in range(0, size, PART_BYTES):
            found = obstore.get(self._store, source, options={"range": (start, min(start + PART_BYTES, size))})
            writer.write(found.bytes())
        writer.close()  # and not where a part was not to be had: an object without its end must not appear

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are no error."""
        if keys:
            with explained(self.root), contextlib.suppress(FileNotFoundError):
                obstore.delete(self._store, list(keys))

    def list(self, prefix: str) -> Iterator[Found]:
        """The objects below a prefix, which is a directory's key ("" for the root)."""
        with explained(self.uri(prefix)), _missing_is_the_bucket(self.root):
            for page in obstore.list(self._store, prefix=prefix or None):
                for entry in page:
                    yield Found(entry["path"], entry["size"], entry["e_tag"])


def _part_bytes(size: int) -> int:
    return max(PART_BYTES, -(-size // MAX_PARTS))


def _slice(path: Path, start: int, stop: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < stop:
            chunk = file.read(min(1 << 20, stop - start))
            if not chunk:
                raise OSError(f"{path} has become shorter while it was read")
            start += len(chunk)
            yield chunk


@contextlib.contextmanager
def _missing_is_the_bucket(root: str) -> Iterator[None]:
    """For calls that cannot miss an object."""
    try:
        yield
    except FileNotFoundError as error:
        raise _no_bucket_behind(root) from error


def _no_bucket_behind(root: str) -> StorageRefusedError:
    return StorageRefusedError(
        f"the storage {root} is not there: its bucket does not exist; create it, or correct the URI"
    )


def _unless_it_is_the_bucket(error: FileNotFoundError) -> None:
    """An object that is not there is an answer; a bucket that is not there is an error."""
    if "NoSuchBucket" in str(error):
        raise error
