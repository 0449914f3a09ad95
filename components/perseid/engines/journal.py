"""The journal: every finished model call, on disk before anyone sees its answer.

An append-only file of JSON lines, one call each, with a checksum. A line goes to the operating system in one write, so
that `kill -9` loses no finished call; a power cut may lose the last ones (they are synchronised at close). A last line
that was cut off in the middle is removed at open.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from perseid.engines.errors import JournalCorruptError, JournalError, JournalLockedError
from perseid.engines.protocol import Completion, Generation, Request, Usage

_HEADER = {"format": "perseid-journal", "version": 1}
_PREFIX = b'{"crc":"'
_MIDDLE = b'","record":'
_PAYLOAD = len(_PREFIX) + 8 + len(_MIDDLE)


def request_key(model_id: str, request: Request) -> str:
    """Content address of a call: SHA-256 of model, messages and sampling (seed and n included), 64 hex digits.

    The request's kind is no part of it, and neither are 0 beams: journals from before there were any stay valid.
    """
    sampling = asdict(request.sampling)
    if request.sampling.beams == 0:
        del sampling["beams"]
    content = {
        "model": model_id,
        "messages": [[message.role, message.content] for message in request.messages],
        "sampling": sampling,
    }
    return hashlib.sha256(_canonical(content)).hexdigest()


def generation_to_json(generation: Generation) -> dict[str, Any]:
    """An answer as a JSON object, with the fields `completions` and `usage`."""
    return {"completions": [asdict(one) for one in generation.completions], "usage": asdict(generation.usage)}


def generation_from_json(record: dict[str, Any]) -> Generation:
    """The opposite. Raises KeyError or TypeError where a field lacks or is one too many."""
    return Generation(tuple(Completion(**one) for one in record["completions"]), Usage(**record["usage"]))


class Journal:
    """Finished calls by key. One process at a time may have a journal open; not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises JournalLockedError, JournalCorruptError, or JournalError for other trouble."""
        self.path = path
        self._calls: dict[str, Generation] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(f"the journal {path} cannot be opened: {error.strerror}") from error
        self._open = True
        try:
            self._lock()
            self._load()
        except BaseException:
            self._open = False
            os.close(self._file)
            raise

    def __len__(self) -> int:
        return len(self._calls)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: str) -> Generation | None:
        """The recorded answer to a call."""
        return self._calls.get(key)

    def calls(self) -> dict[str, Generation]:
        """All recorded answers, by key, in the order of writing."""
        return dict(self._calls)

    @property
    def usage(self) -> Usage:
        """Sum over all recorded calls: what was once computed or paid for, by earlier processes too."""
        return sum((one.usage for one in self._calls.values()), Usage())

    def append(self, key: str, generation: Generation) -> None:
        """Record a finished call. When it returns, `kill -9` cannot lose it. Raises JournalError (disk full, ...)."""
        if not self._open:
            raise JournalError(f"the journal {self.path} is closed")
        self._write(_line({"key": key, **generation_to_json(generation)}))
        self._calls[key] = generation

    def close(self) -> None:
        """Synchronise with the disk and release the lock."""
        if self._open:
            self._open = False
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalLockedError(
                f"another process is writing the journal {self.path}; wait for it or stop it: "
                "two runs must not share one"
            ) from error
        except OSError as error:
            raise JournalError(
                f"the journal {self.path} cannot be locked ({error.strerror}); put it on a file system with flock"
            ) from error

    def _load(self) -> None:
        size = os.fstat(self._file).st_size
        whole = 0
        with os.fdopen(os.dup(self._file), "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break  # cut off in the middle of a write: that call was never handed out
                record = self._parse(number, line)
                if number == 1:
                    self._check_header(record)
                else:
                    self._add(number, record)
                whole += len(line)
        if whole < size:
            os.ftruncate(self._file, whole)
        if whole == 0:
            self._write(_line(_HEADER))

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        payload = line[_PAYLOAD:-2]
        if line != _frame(payload):
            raise self._corrupt(number, "its checksum does not fit")
        record = json.loads(payload)
        if not isinstance(record, dict):
            raise self._corrupt(number, "it is not a record")
        return record

    def _check_header(self, record: dict[str, Any]) -> None:
        if record != _HEADER:
            raise JournalError(
                f"{self.path} is not a journal that this version can read (header {record}); use another file, or the "
                "version that wrote it"
            )

    def _add(self, number: int, record: dict[str, Any]) -> None:
        try:
            self._calls[record["key"]] = generation_from_json(record)
        except (KeyError, TypeError) as error:
            raise self._corrupt(number, f"it lacks a field or has one too many ({error})") from error

    def _corrupt(self, number: int, why: str) -> JournalCorruptError:
        return JournalCorruptError(
            f"line {number} of the journal {self.path} is damaged: {why}. Something other than an interrupted run "
            f"changed the file. Restore it from a copy, or keep the good part with `head -n {number - 1}` into a "
            "new file of that name: the calls after it are then made again"
        )

    def _write(self, line: bytes) -> None:
        before = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes fitted")
        except OSError as error:
            os.ftruncate(self._file, before)
            raise JournalError(
                f"the journal {self.path} cannot be written: {error}; make room and run again"
            ) from error


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _line(record: dict[str, Any]) -> bytes:
    return _frame(_canonical(record))


def _frame(payload: bytes) -> bytes:
    return b"".join((_PREFIX, f"{zlib.crc32(payload):08x}".encode(), _MIDDLE, payload, b"}\n"))


def read_journal(path: Path) -> dict[str, Generation]:
    """The calls of a journal that nobody writes any more, by key; empty where there is no file. Raises as `Journal`."""
    if not path.exists():
        return {}
    with Journal(path) as journal:
        return journal.calls()
