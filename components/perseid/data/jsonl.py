"""Reading and writing of records, one JSON object on each line, and of single JSON documents."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from perseid.data.errors import DataError

R = TypeVar("R", bound=BaseModel)


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Write records atomically: the file is the old one or the whole new one, after a power cut too. Returns the count.

    The records may come from a generator; when it raises, the old file stays.
    """
    count = 0
    with _replacing(path) as file:
        for record in records:
            file.write(record.model_dump_json().encode() + b"\n")
            count += 1
    return count


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Write lines, each with its line feed, as atomically: records that need not be read to be copied."""
    with _replacing(path) as file:
        file.writelines(lines)


def write_json(path: Path, document: BaseModel | dict[str, Any] | list[Any]) -> None:
    """Write one JSON document atomically, indented, with a final newline. Raises ValueError on NaN and infinity."""
    plain = document.model_dump(mode="json") if isinstance(document, BaseModel) else document
    encoded = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False).encode()
    with _replacing(path) as file:
        file.write(encoded + b"\n")


def read_jsonl(path: Path, record_type: type[R], *, may_be_empty: bool = False) -> list[R]:
    """Read records. Raises DataError with file, line and field; ids, where the type has them, must be unique."""
    records: list[R] = []
    lines_by_id: dict[str, int] = {}
    for number, line in _lines(path):
        record = _record(path, number, line, record_type)
        identity = getattr(record, "id", None)
        if isinstance(identity, str):
            first = lines_by_id.setdefault(identity, number)
            if first != number:
                raise DataError(f"{path}:{number}: the id {identity!r} is already on line {first}; ids must be unique")
        records.append(record)
    if not records and not may_be_empty:
        raise DataError(
            f"{path} has no records; write at least one {record_type.__name__}, one JSON object on each line"
        )
    return records


def read_json_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Read objects of no particular schema, with their line numbers from 1. Raises DataError."""
    found: list[tuple[int, dict[str, Any]]] = []
    for number, line in _lines(path):
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON: {error.msg} at column {error.colno}") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}:{number}: a JSON object is needed, not {type(value).__name__}")
        found.append((number, value))
    if not found:
        raise DataError(f"{path} has no records; it needs one JSON object on each line")
    return found


def _record(path: Path, number: int, line: str, record_type: type[R]) -> R:
    try:
        return record_type.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise DataError(f"{path}:{number}: not JSON: {first['ctx']['error']}") from error
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        others = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        said = first["msg"]
        if first["type"] == "extra_forbidden":
            said = "there is no such field"
            if len(first["loc"]) == 1:
                said += f"; its fields are {', '.join(record_type.model_fields)}"
        raise DataError(f"{path}:{number}: {field} of {record_type.__name__}: {said}{others}") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with numbers from 1. Only line feeds end a line: JSON strings may hold other breaks."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{number}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
