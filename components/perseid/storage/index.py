"""The index of a directory in a storage: which objects belong to it, and who may write.

Objects cannot be renamed, so a directory of several files cannot appear at once. The index is one object, written after
the files that it names, and replaced only by whoever knows its last ETag. What it does not name is not there. It is the
commit point and the lock in one: a writer who was replaced cannot commit any more.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from perseid.api.layout import StorageError
from perseid.storage.errors import ObjectChangedError
from perseid.storage.objects import Objects

INDEX = ".perseid-index.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name:
        raise ValueError("a name that leads out of the directory")
    return name


Name = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_inside)]
"""Of a file in the directory, with slashes."""
Size = Annotated[int, Field(ge=0)]


class Segment(_Part):
    """An object that holds some of the bytes of a growing file."""

    name: Name
    size: Size


class Entry(_Part):
    """A file, or its beginning where it grows."""

    size: Size
    modified_ns: int
    """Modification time of the local file, in nanoseconds since the epoch: with the size it tells a change."""
    etag: str | None = None
    """Of its object. A growing file has none."""
    segments: tuple[Segment, ...] = ()
    """Of a growing file, in order; empty where the file is one object of its own name."""


class Owner(_Part):
    """Who may write."""

    token: str
    """Drawn by every try."""
    host: str = ""
    """For people."""


class Index(_Part):
    """What is in a directory."""

    schema_version: Literal[1] = 1
    owner: Owner
    epoch: Annotated[int, Field(ge=1)] = 1
    """Counts the owners."""
    serial: Annotated[int, Field(ge=1)] = 1
    """Counts this owner's writes: no two contents are the same, so no two ETags are."""
    files: dict[Name, Entry] = {}


def read_index(objects: Objects, directory: str) -> tuple[Index, str] | None:
    """A directory's index with its ETag; None where there is no such directory."""
    key = f"{directory}/{INDEX}"
    found = objects.read(key)
    if found is None:
        return None
    content, etag = found
    try:
        index = Index.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise ObjectChangedError(
            f"{objects.uri(key)} is no index that this version of Perseid understands ({where}: {first['msg']}); use"
            " the version that wrote it, or delete its directory to have it made anew"
        ) from error
    if etag is None:
        raise StorageError(f"the storage {objects.root} gives no ETags; conditional writes need them")
    return index, etag


def encode(index: Index) -> bytes:
    """The index as an object's content."""
    return index.model_dump_json(exclude_defaults=True).encode() + b"\n"
