"""Reading what stages have written so far: a file that is not there yet is nothing, a broken one is an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from perseid.data.errors import DataError

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


def read_document(path: Path, model: type[M]) -> M | None:
    """One JSON document; None where the file is not there. Raises DataError."""
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise _unreadable(path, error) from error


def read_records(path: Path, model: type[M]) -> Iterator[M]:
    """Records of a JSONL file, one at a time, because files of trees are large; none where it is not there.

    Raises DataError.
    """
    for _, record in read_places(path, model):
        yield record


def read_record(path: Path, place: int, model: type[M]) -> M:
    """The record at a place that `read_places` has given. Raises DataError."""
    try:
        with path.open("rb") as file:
            file.seek(place)
            return model.model_validate_json(file.readline())
    except (OSError, ValidationError) as error:
        raise _unreadable(path, error) from error


def read_places(path: Path, model: type[M]) -> Iterator[tuple[int, M]]:
    """As `read_records`, with the byte at which each record begins: what is shown of a file is chosen when all of it
    has been read, and then it need not be read again.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        place = 0
        for number, line in enumerate(file, start=1):
            begins, place = place, place + len(line)
            if not line.strip():
                continue
            try:
                yield begins, model.model_validate_json(line)
            except ValidationError as error:
                raise _unreadable(f"{path}:{number}", error) from error


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spaced: the first ones alone would not stand for the rest."""
    if len(items) <= most:
        return list(items)
    return [items[place * len(items) // most] for place in range(most)]


def _unreadable(place: object, error: OSError | ValidationError) -> DataError:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        what = f"{'.'.join(map(str, first['loc'])) or 'the document'}: {first['msg']}"
    else:
        what = error.strerror or str(error)
    return DataError(f"{place} cannot be read: {what}; restore the file, or delete it to have a report without it")
