"""A stage's directory in a storage and its local working copy, with one writer at a time.

`take_over` makes this process the writer, `pull` makes the working copy what was committed, `push` commits what has
changed, `finish` commits everything and then the result. A kill at any moment leaves the last commit:

- files are uploaded first, then the index that names them is replaced, then what it no longer names is deleted;
- files of a directory inside the stage's own (checkpoints, a model) are written once under their names, and the index
  holds their ETags;
- the result is no part of the index: it is written after it, and only where nobody else has written one.

Names that begin with a dot or end with `.tmp` are unfinished by the stages' convention, and are not pushed.
"""

from __future__ import annotations

import os
import platform
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from perseid.api.layout import JOURNAL, RESULT
from perseid.storage import journals
from perseid.storage.directories import fetch_file, is_journal, object_names
from perseid.storage.errors import OwnershipLostError
from perseid.storage.index import INDEX, Entry, Index, Owner, Segment, encode, read_index
from perseid.storage.objects import ConflictError, Objects

TAKE_OVER_TRIES = 20
"""Each that fails is another try's success: more than a few at a moment means that something starts them in a loop."""


@dataclass(slots=True)
class _Commit:
    """What this writer has committed last."""

    index: Index
    etag: str


@dataclass(slots=True)
class DirectoryMirror:
    """One directory. Calls may come from any thread; they wait for each other."""

    objects: Objects
    key: str
    """Of the directory in the storage."""
    directory: Path
    """The working copy."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Of this writer: what the index names it by."""
    _commit: _Commit | None = None
    _files: dict[str, Entry] = field(default_factory=dict)
    """What is in the storage by our doing, committed or not: an upload is not made again after a failed commit."""
    _garbage: set[str] = field(default_factory=set)
    """Objects that the next commit makes superfluous, by their names in the directory."""
    _result_etag: str | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def uri(self) -> str:
        """The directory's URI."""
        return self.objects.uri(self.key)

    def result(self) -> bytes | None:
        """The stage's result; None where it has not ended."""
        with self._lock:
            found = self.objects.read(f"{self.key}/{RESULT}")
            self._result_etag = None if found is None else found[1]
            return None if found is None else found[0]

    def take_over(self) -> None:
        """Become the writer. Whoever was it before finds out at its next push."""
        owner = Owner(token=self.token, host=platform.node())
        with self._lock:
            for _ in range(TAKE_OVER_TRIES):
                found = read_index(self.objects, self.key)
                if found is None:
                    index = Index(owner=owner)
                else:
                    earlier = found[0]
                    index = Index(owner=owner, epoch=earlier.epoch + 1, files=earlier.files)
                try:
                    self._write(index, None if found is None else found[1])
                except OwnershipLostError:
                    continue  # another try came first: the last one stays
                self._files = dict(index.files)
                return
        raise OwnershipLostError(f"{self.uri} is taken over again and again: more than one try of the stage is started")

    def pull(self) -> None:
        """Make the working copy what was committed. Files that it has already are not fetched.

        A journal that goes on where the committed one ends is kept: its calls were made, and may have been paid for.
        """
        with self._lock:
            self.directory.mkdir(parents=True, exist_ok=True)
            for name, entry in self._files.items():
                fetch_file(self.objects, self.key, name, entry, self.directory / name)
            for path in list(self.directory.iterdir()):
                self._remove_unknown(path)
            result = self.result()
            if result is not None:
                (self.directory / RESULT).write_bytes(result)
            self._delete_orphans()

    def _remove_unknown(self, path: Path) -> None:
        name = path.relative_to(self.directory).as_posix()
        if path.is_dir() and not path.is_symlink():
            if any(known.startswith(f"{name}/") for known in self._files):
                for child in list(path.iterdir()):
                    self._remove_unknown(child)
            else:
                shutil.rmtree(path)
        elif name not in self._files and not is_journal(name):
            path.unlink()

    def _delete_orphans(self) -> None:
        """Delete what a push that was killed has left."""
        known = {f"{self.key}/{name}" for name in (INDEX, RESULT)}
        for name, entry in self._files.items():
            known.update(f"{self.key}/{one}" for one in object_names(name, entry))
        self.objects.delete([one.key for one in self.objects.list(self.key) if one.key not in known])

    def push(self, *, journals_only: bool = False) -> int:
        """Commit what has changed; returns the number of files that were uploaded.

        Raises OwnershipLostError where another try has taken over: then nothing was changed, but for a file whose
        upload had begun. After another StorageError the next push goes on where this one ended.
        """
        with self._lock:
            self._still_ours()
            return self._push(journals_only=journals_only, final=False)

    def finish(self, result: bytes, before_result: Callable[[], None] = lambda: None) -> None:
        """Commit everything, call `before_result`, and write the result last. May be called again after an error."""
        with self._lock:
            self._still_ours()
            self._push(journals_only=False, final=True)
            before_result()
            try:
                key = f"{self.key}/{RESULT}"
                self._result_etag = self.objects.write_if(key, result, self._result_etag)
            except ConflictError:
                found = self.objects.read(f"{self.key}/{RESULT}")
                if found is None or found[0] != result:  # else it is ours, and only the answer was lost
                    raise self._lost(None) from None
                self._result_etag = found[1]

    def replace_result(self, result: bytes) -> None:
        """Write a result over the one that `result` has found last, without being the writer of anything else.

        Raises OwnershipLostError where somebody has written another in between.
        """
        with self._lock:
            try:
                self._result_etag = self.objects.write_if(f"{self.key}/{RESULT}", result, self._result_etag)
            except ConflictError:
                raise self._lost(None) from None

    def journals_have_grown(self) -> bool:
        """Whether a call was recorded that is not pushed. Costs a look at the local disk, no more."""
        for path in self.directory.glob(f"*{JOURNAL}"):
            entry = self._files.get(path.name)
            if path.stat().st_size > (0 if entry is None else entry.size):
                return True
        return False

    def _push(self, *, journals_only: bool, final: bool) -> int:
        uploaded = 0
        present: set[str] = set()
        for name, path in self._local_files():
            present.add(name)
            try:
                if is_journal(name):
                    uploaded += self._push_journal(name, path, final=final)
                elif not journals_only:
                    uploaded += self._push_file(name, path)
            except FileNotFoundError:
                continue  # replaced or deleted while we came to it: the next push sees what became of it
        if not journals_only:
            for name in [name for name in self._files if name not in present]:
                self._garbage.update(object_names(name, self._files.pop(name)))
        assert self._commit is not None
        if self._files != self._commit.index.files:
            self._write(
                self._commit.index.model_copy(
                    update={"serial": self._commit.index.serial + 1, "files": dict(self._files)}
                ),
                self._commit.etag,
            )
        in_use = {one for name, entry in self._files.items() for one in object_names(name, entry)}
        self.objects.delete([f"{self.key}/{name}" for name in sorted(self._garbage - in_use)])
        self._garbage.clear()
        return uploaded

    def _local_files(self) -> Iterator[tuple[str, Path]]:
        """Journals first, because a call that is lost is made again; then in the order in which they were written, so
        that what is read as a sign of others comes after them."""
        found: list[tuple[bool, int, str, Path]] = []
        for base, directories, names in os.walk(self.directory):
            directories[:] = [name for name in directories if not _is_unfinished(name)]
            for name in names:
                path = Path(base) / name
                relative = path.relative_to(self.directory).as_posix()
                if _is_unfinished(name) or relative == RESULT:
                    continue
                try:
                    modified = path.stat().st_mtime_ns
                except FileNotFoundError:
                    continue
                found.append((not is_journal(relative), modified, relative, path))
        return ((name, path) for _, _, name, path in sorted(found))

    def _push_file(self, name: str, path: Path) -> bool:
        stat = path.stat()
        known = self._files.get(name)
        if known is not None and (known.size, known.modified_ns) == (stat.st_size, stat.st_mtime_ns):
            return False
        etag = self.objects.upload(f"{self.key}/{name}", path, stat.st_size)
        self._files[name] = Entry(size=stat.st_size, modified_ns=stat.st_mtime_ns, etag=etag)
        return True

    def _push_journal(self, name: str, path: Path, *, final: bool) -> bool:
        known = self._files.get(name)
        segments = () if known is None else journals.segments_of(name, known)
        length = journals.whole_lines(path)
        if final:
            if known is not None and not known.segments and known.size == length:
                return False
            self.objects.upload_slice(f"{self.key}/{name}", path, 0, length)
            entry = Entry(size=length, modified_ns=path.stat().st_mtime_ns)
        else:
            step = journals.plan(segments, length)
            if step is None:
                return False
            assert self._commit is not None
            new = f"{name}{journals.SUFFIX}/{step.start:015d}-{step.stop:015d}-{self._commit.index.epoch:06d}"
            self.objects.upload_slice(f"{self.key}/{new}", path, step.start, step.stop)
            kept = (*step.kept, Segment(name=new, size=step.stop - step.start))
            entry = Entry(size=length, modified_ns=path.stat().st_mtime_ns, segments=kept)
        self._files[name] = entry
        self._garbage.update(segment.name for segment in segments if segment not in entry.segments)
        return True

    def _still_ours(self) -> None:
        assert self._commit is not None, "take_over comes first"
        seen = self.objects.look(f"{self.key}/{INDEX}")
        if seen is None or seen.etag != self._commit.etag:
            found = read_index(self.objects, self.key)
            if found is None or found[0] != self._commit.index:
                raise self._lost(None if found is None else found[0])
            self._commit.etag = found[1]  # copied or restored, but ours

    def _write(self, index: Index, etag: str | None) -> None:
        """Replace the index. Raises OwnershipLostError where somebody else has."""
        try:
            new = self.objects.write_if(f"{self.key}/{INDEX}", encode(index), etag)
        except ConflictError:
            found = read_index(self.objects, self.key)
            if found is None or found[0] != index:  # else it is ours, and only the answer was lost
                raise self._lost(None if found is None else found[0]) from None
            new = found[1]
        self._commit = _Commit(index, new)

    def _lost(self, index: Index | None) -> OwnershipLostError:
        by = "" if index is None else f" on {index.owner.host or 'another machine'} (try {index.epoch})"
        return OwnershipLostError(
            f"another try of this stage{by} has taken over {self.uri}; this one stops and changes nothing more"
        )


def _is_unfinished(name: str) -> bool:
    return name.startswith(".") or name.endswith(".tmp")
