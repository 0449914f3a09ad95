"""Growing files as objects. S3 cannot append, and to write a journal of a gigabyte anew for every line would not do.

A journal is stored as segments, each written once under a name of its own. A push writes what is new as one more, and
takes up the segments before it that are not more than twice as big: so there are only some dozens, each byte is written
a logarithmic number of times, and what another writer may still be sending overwrites nothing. When the stage ends, the
segments become one object with the file's own name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perseid.storage.index import Entry, Segment
from perseid.storage.objects import Objects

SUFFIX = ".parts"
_TAIL = 1 << 16


def segments_of(name: str, entry: Entry) -> tuple[Segment, ...]:
    """The objects of a growing file."""
    return entry.segments or (Segment(name=name, size=entry.size),)


def whole_lines(path: Path) -> int:
    """Length of a file up to its last line feed, in bytes: a line may be half written at this moment."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - _TAIL)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


@dataclass(frozen=True, slots=True)
class NextSegment:
    """What a push of a grown file does: bytes `start` to `stop` as a new segment after those that are kept."""

    kept: tuple[Segment, ...]
    start: int
    stop: int


def plan(segments: Sequence[Segment], length: int) -> NextSegment | None:
    """The push of a file that has grown to `length`; None where there is nothing new."""
    stored = sum(segment.size for segment in segments)
    if length <= stored:
        return None
    kept, start = list(segments), stored
    while kept and kept[-1].size <= 2 * (length - start):
        start -= kept.pop().size
    return NextSegment(tuple(kept), start, length)


def fetch(objects: Objects, directory: str, name: str, entry: Entry, target: Path) -> None:
    """Put a journal together again. Where `target` holds it already and has grown since, that is kept."""
    unfinished = target.with_name(f".{target.name}.joined.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    with unfinished.open("wb") as joined:
        for segment in segments_of(name, entry):
            piece = target.with_name(f".{target.name}.segment")
            objects.download(f"{directory}/{segment.name}", piece, segment.size, None)
            with piece.open("rb") as content:
                while chunk := content.read(1 << 20):
                    joined.write(chunk)
            piece.unlink()
    if _begins_with(target, unfinished):
        unfinished.unlink()
    else:
        unfinished.replace(target)


def _begins_with(path: Path, beginning: Path) -> bool:
    try:
        with path.open("rb") as whole, beginning.open("rb") as start:
            while wanted := start.read(1 << 20):
                if whole.read(len(wanted)) != wanted:
                    return False
            return True
    except FileNotFoundError:
        return False
