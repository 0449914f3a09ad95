"""A directory in a storage, seen by whoever does not write it: its files are fetched, or copied to another."""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path

from perseid.api.layout import JOURNAL, RESULT
from perseid.storage import journals
from perseid.storage.errors import ObjectChangedError
from perseid.storage.index import INDEX, Entry, Index, Owner, encode, read_index
from perseid.storage.objects import ConflictError, Objects

log = logging.getLogger(__name__)


def fetch_file(objects: Objects, directory: str, name: str, entry: Entry, target: Path, *, done: bool = False) -> None:
    """Fetch a file of a directory, unless `target` is it already. Raises ObjectChangedError where it is not whole.

    A file that lies in the directory itself may be newer than the index while the stage is under way (not `done`): its
    writer was killed between the two, and writes it again.
    """
    if is_journal(name):
        journals.fetch(objects, directory, name, entry, target)
        return
    if target.is_file():
        stat = target.stat()
        if (stat.st_size, stat.st_mtime_ns) == (entry.size, entry.modified_ns):
            return
    key = f"{directory}/{name}"
    if done or "/" in name:
        objects.download(key, target, entry.size, entry.etag)
        os.utime(target, ns=(entry.modified_ns, entry.modified_ns))
        return
    newest = objects.look(key)
    if newest is None:
        target.unlink(missing_ok=True)
        return
    objects.download(key, target, newest.size, newest.etag)
    if newest.etag == entry.etag:
        os.utime(target, ns=(entry.modified_ns, entry.modified_ns))


def inherit(objects: Objects, source: str, target: str, *, with_result: bool) -> bool:
    """Copy what an earlier attempt has committed in the directory `source` to `target`, inside the storage.

    False where there is nothing of it. The new index comes after its files, the result (where wanted) after it.
    """
    while True:
        found = read_index(objects, source)
        if found is None:
            return False
        try:
            files = {name: _copied(objects, source, target, name, entry) for name, entry in found[0].files.items()}
            break
        except ObjectChangedError:
            again = read_index(objects, source)
            if again is not None and again[1] == found[1]:
                raise  # nobody writes there any more: it is damaged
    try:
        index = Index(owner=Owner(token=f"inherited-{uuid.uuid4().hex}"), files=files)
        objects.write_if(f"{target}/{INDEX}", encode(index), None)
    except ConflictError:
        log.info("another try has begun %s already", objects.uri(target))
        return True
    result = objects.read(f"{source}/{RESULT}") if with_result else None
    if result is not None:
        objects.write(f"{target}/{RESULT}", result[0])
    return True


def _copied(objects: Objects, source: str, target: str, name: str, entry: Entry) -> Entry:
    if entry.segments:
        for segment in entry.segments:
            objects.copy(f"{source}/{segment.name}", f"{target}/{segment.name}", segment.size)
        return entry
    etag = objects.copy(f"{source}/{name}", f"{target}/{name}", entry.size)
    return entry.model_copy(update={"etag": etag})


def is_journal(name: str) -> bool:
    """Whether a file grows by whole lines and is stored in segments."""
    return "/" not in name and name.endswith(JOURNAL)


def object_names(name: str, entry: Entry) -> list[str]:
    """The objects of a file, as they are called in its directory."""
    return [segment.name for segment in entry.segments] or [name]
