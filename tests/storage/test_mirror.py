"""A directory and its objects: what is committed is there, what is not is not, and one writer at a time."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from perseid.api.layout import StorageError
from perseid.storage import objects as objects_module
from perseid.storage.directories import inherit
from perseid.storage.errors import ObjectChangedError, OwnershipLostError
from perseid.storage.index import INDEX, read_index
from perseid.storage.mirror import DirectoryMirror
from perseid.storage.objects import ConflictError, Objects

KEY = "generations/000/attempts/0/finetune"
JOURNAL = "journal.jsonl"


class Crash(BaseException):
    """The process dies here."""


class Dying(Objects):
    """Objects that die before their nth change. Changes are counted."""

    def __init__(self, root: str, die_at: int = 10**9) -> None:
        super().__init__(root)
        self.changes, self.die_at = 0, die_at

    def _change(self) -> None:
        self.changes += 1
        if self.changes >= self.die_at:
            raise Crash

    def write(self, *args: Any) -> Any:
        self._change()
        return super().write(*args)

    def write_if(self, *args: Any) -> Any:
        self._change()
        return super().write_if(*args)

    def upload(self, *args: Any) -> Any:
        self._change()
        return super().upload(*args)

    def upload_slice(self, *args: Any) -> Any:
        self._change()
        return super().upload_slice(*args)

    def copy(self, *args: Any) -> Any:
        self._change()
        return super().copy(*args)

    def delete(self, keys: Any) -> None:
        if keys:
            self._change()
        super().delete(keys)


def mirror(root: str, directory: Path, objects: Objects | None = None) -> DirectoryMirror:
    """A new try that has taken the directory over and pulled it."""
    one = DirectoryMirror(objects or Objects(root), KEY, directory)
    one.take_over()
    one.pull()
    return one


def write(directory: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def content(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def keys(root: str) -> set[str]:
    return {found.key.removeprefix(f"{KEY}/") for found in Objects(root).list(KEY)}


# 1.4 s: weights of more than one part go up and down, for that is another path than a small file's.
def test_what_was_pushed_is_what_another_machine_pulls_with_its_times(root: str, tmp_path: Path) -> None:
    first = mirror(root, tmp_path / "a")
    files: dict[str, str | bytes] = {
        "out.jsonl": "{}\n",
        "empty": "",
        "model/config.json": "{}",
        "model/model.safetensors": os.urandom(40 << 20),  # more than one part, up and down
        "odd name+%.txt": "x",
        JOURNAL: "one\ntwo\n",
    }
    write(tmp_path / "a", files)
    assert first.push() == len(files)
    assert first.push() == 0
    second = mirror(root, tmp_path / "b")
    assert content(tmp_path / "b") == content(tmp_path / "a")
    weights = "model/model.safetensors"
    assert (tmp_path / "b" / weights).stat().st_mtime_ns == (tmp_path / "a" / weights).stat().st_mtime_ns
    assert second.push() == 0, "what was just fetched was pushed again"


def test_unfinished_files_are_not_pushed_and_deleted_ones_go(root: str, tmp_path: Path) -> None:
    one = mirror(root, tmp_path / "a")
    write(tmp_path / "a", {"work/step-1.pt": "1", ".model.unfinished/half": "h", "work/step-2.tmp": "t", ".x.tmp": "t"})
    one.push()
    assert keys(root) == {INDEX, "work/step-1.pt"}
    write(tmp_path / "a", {"work/step-2.pt": "2"})
    (tmp_path / "a/work/step-1.pt").unlink()
    one.push()
    assert keys(root) == {INDEX, "work/step-2.pt"}
    shutil.rmtree(tmp_path / "a/work")
    one.finish(b'{"state": "done"}')
    assert keys(root) == {INDEX, "result.json"}


def changed_directory(directory: Path) -> None:
    """From the first commit to the second: a checkpoint is replaced, a model appears, a journal has grown."""
    (directory / "work/step-1.pt").unlink()
    write(
        directory,
        {
            "work/step-2.pt": "second",
            "model/config.json": "{}",
            "model/model.safetensors": "weights",
            "model/perseid-model.json": "manifest",
            "progress.json": "2",
        },
    )
    with (directory / JOURNAL).open("a") as journal:
        journal.write("three\nfour\n")


# 1 s: it dies at each of a dozen requests.
def test_a_push_that_dies_at_any_request_is_never_seen_by_half(root: str, tmp_path: Path) -> None:
    first = {"work/step-1.pt": b"first", "progress.json": b"1", JOURNAL: b"one\ntwo\n"}
    died_at, changes, seen = 0, 10**9, set()
    while died_at < changes:
        died_at += 1
        place = f"{root}/{died_at}"
        directory = tmp_path / f"a{died_at}"
        dying = Dying(place)
        one = mirror(place, directory, dying)
        write(directory, dict(first))
        one.push()
        dying.changes, dying.die_at = 0, died_at
        changed_directory(directory)
        second = content(directory)
        try:
            one.finish(b"result")
            changes = dying.changes  # it has lived through all of them: this was one more than there are
            assert died_at > changes
        except Crash:
            pass
        again = mirror(place, tmp_path / f"b{died_at}")
        found = content(tmp_path / f"b{died_at}")
        result = found.pop("result.json", None)
        found.pop("progress.json")  # rewritten all the time, and read by people only
        if "work/step-1.pt" in found:
            seen.add("first")
            assert found == {"work/step-1.pt": b"first", JOURNAL: b"one\ntwo\n"}
            assert result is None, "a result without its files"
        else:
            seen.add("second" if result is None else "ended")
            assert found == {name: value for name, value in second.items() if name != "progress.json"}
            assert result in (None, b"result")
        names = {name for name in keys(place) if ".parts/" not in name}
        assert names - {INDEX, "result.json", "progress.json"} == set(found) - ({JOURNAL} - names), "what is left over"
        write(tmp_path / f"b{died_at}", {"more": "m"})
        again.finish(b"result of the next try")
        assert again.result() == b"result of the next try"
    assert seen == {"first", "second", "ended"}
    assert changes >= 7


def test_an_older_try_notices_that_it_was_replaced_and_changes_nothing(root: str, tmp_path: Path) -> None:
    old = mirror(root, tmp_path / "old")
    write(tmp_path / "old", {"work/step-1.pt": "old", JOURNAL: "one\n"})
    old.push()
    new = mirror(root, tmp_path / "new")
    write(tmp_path / "new", {"work/step-2.pt": "new"})
    new.push()
    before = {found.key: found.etag for found in Objects(root).list(KEY)}

    write(tmp_path / "old", {"work/step-3.pt": "old", JOURNAL: "one\ntwo\n", "work/step-2.pt": "other"})
    for call in (old.push, lambda: old.push(journals_only=True), lambda: old.finish(b"old")):
        with pytest.raises(OwnershipLostError, match=r"taken over s3://.*finetune; this one stops"):
            call()
    assert {found.key: found.etag for found in Objects(root).list(KEY)} == before
    new.finish(b"new")
    assert new.result() == b"new"


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("moment", ["upload", "upload_slice", "write_if"])
def test_one_that_is_replaced_in_the_middle_of_a_push_commits_nothing(
    root: str, tmp_path: Path, moment: str, final: bool
) -> None:
    """The worst moment: after it has seen that it is the owner."""

    class Overtaken(Objects):
        overtake: Callable[[], None] | None = None

        def overtaken(self, name: str, *args: Any) -> Any:
            if name == moment and self.overtake is not None:
                overtake, self.overtake = self.overtake, None
                overtake()
            return getattr(Objects, name)(self, *args)

        def upload(self, *args: Any) -> Any:
            return self.overtaken("upload", *args)

        def upload_slice(self, *args: Any) -> Any:
            return self.overtaken("upload_slice", *args)

        def write_if(self, *args: Any) -> Any:
            return self.overtaken("write_if", *args)

    objects = Overtaken(root)
    old = mirror(root, tmp_path / "old", objects)
    write(tmp_path / "old", {"work/step-1.pt": "one", JOURNAL: "one\n"})
    old.push()

    def overtake() -> None:
        new = mirror(root, tmp_path / "new")
        write(tmp_path / "new", {"work/step-9.pt": "new"})
        with (tmp_path / "new" / JOURNAL).open("a") as journal:
            journal.write("paid by the new one\n")
        new.push()

    last: Callable[[], object] = (lambda: old.finish(b"old")) if final else old.push
    objects.overtake = overtake
    write(tmp_path / "old", {"work/step-2.pt": "two", JOURNAL: "one\npaid by the old one\n"})
    with pytest.raises(OwnershipLostError):
        last()
    mirror(root, tmp_path / "later")
    assert content(tmp_path / "later") == {
        "work/step-1.pt": b"one",
        "work/step-9.pt": b"new",
        JOURNAL: b"one\npaid by the new one\n",
    }


def test_of_tries_that_begin_at_the_same_moment_one_stays(root: str, tmp_path: Path) -> None:
    tries = [DirectoryMirror(Objects(root), KEY, tmp_path / str(number)) for number in range(6)]
    with ThreadPoolExecutor(len(tries)) as pool:
        list(pool.map(lambda one: one.take_over(), tries))
    stayed = 0
    for number, one in enumerate(tries):
        write(tmp_path / str(number), {"out": str(number)})
        try:
            one.push()
            stayed += 1
        except OwnershipLostError:
            pass
    assert stayed == 1
    index = read_index(Objects(root), KEY)
    assert index is not None
    assert index[0].epoch == len(tries)


def test_a_lost_answer_to_a_commit_is_not_taken_for_a_lost_directory(root: str, tmp_path: Path) -> None:
    class Forgetful(Objects):
        """The write is carried out, its answer is lost, and its retry is refused."""

        def write_if(self, key: str, written: bytes, etag: str | None) -> str:
            super().write_if(key, written, etag)
            raise ConflictError(key)

    one = mirror(root, tmp_path / "a", Forgetful(root))
    write(tmp_path / "a", {"out": "1"})
    assert one.push() == 1
    one.finish(b"result")
    assert one.result() == b"result"


def test_a_journal_is_pushed_in_pieces_and_is_one_file_when_the_stage_ends(root: str, tmp_path: Path) -> None:
    one = mirror(root, tmp_path / "a")
    expected = b""
    for number in range(40):
        assert not one.journals_have_grown()
        with (tmp_path / "a" / JOURNAL).open("ab") as journal:
            line = f"call {number}\n".encode()
            journal.write(line)
        expected += line
        assert one.journals_have_grown()
        assert one.push(journals_only=True) == 1
    index = read_index(Objects(root), KEY)
    assert index is not None
    assert 1 < len(index[0].files[JOURNAL].segments) < 12
    assert len(keys(root)) == len(index[0].files[JOURNAL].segments) + 1, "segments that were taken up are still there"
    mirror(root, tmp_path / "b")
    assert (tmp_path / "b" / JOURNAL).read_bytes() == expected

    last = mirror(root, tmp_path / "c")
    last.finish(b"failed")
    assert keys(root) == {INDEX, JOURNAL, "result.json"}
    assert Objects(root).read(f"{KEY}/{JOURNAL}")[0] == expected  # type: ignore[index]
    with (tmp_path / "c" / JOURNAL).open("ab") as journal:
        journal.write(b"after the failure\n")
    last.push(journals_only=True)
    mirror(root, tmp_path / "d")
    assert (tmp_path / "d" / JOURNAL).read_bytes() == expected + b"after the failure\n"


def test_lines_of_a_journal_that_only_this_machine_has_are_kept_and_pushed(root: str, tmp_path: Path) -> None:
    one = mirror(root, tmp_path / "a")
    write(tmp_path / "a", {JOURNAL: "one\n"})
    one.push()
    write(tmp_path / "a", {JOURNAL: "one\npaid and not pushed\n", "stray": "s"})
    again = mirror(root, tmp_path / "a")
    assert content(tmp_path / "a") == {JOURNAL: b"one\npaid and not pushed\n"}
    assert again.journals_have_grown()
    again.push(journals_only=True)
    mirror(root, tmp_path / "b")
    assert (tmp_path / "b" / JOURNAL).read_bytes() == b"one\npaid and not pushed\n"


def test_a_journal_of_another_past_gives_way_to_the_committed_one(root: str, tmp_path: Path) -> None:
    one = mirror(root, tmp_path / "a")
    write(tmp_path / "a", {JOURNAL: "one\ntwo\n"})
    one.push()
    write(tmp_path / "b", {JOURNAL: "one\nother\nlonger\n"})
    mirror(root, tmp_path / "b")
    assert (tmp_path / "b" / JOURNAL).read_bytes() == b"one\ntwo\n"


def test_a_journal_of_many_parts_is_streamed_up_and_down(root: str, tmp_path: Path) -> None:
    one = mirror(root, tmp_path / "a")
    line = b"x" * 999_999 + b"\n"
    with (tmp_path / "a" / JOURNAL).open("wb") as journal:
        for _ in range(20):
            journal.write(line)
        journal.write(b"half a line")
    one.push(journals_only=True)
    mirror(root, tmp_path / "b")
    assert (tmp_path / "b" / JOURNAL).read_bytes() == line * 20


def test_a_disk_that_is_full_is_told_with_the_place_and_the_variable(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = mirror(root, tmp_path / "a")
    write(tmp_path / "a", {"out": "1"})
    one.push()

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(objects_module.os, "pwrite", full)
    with pytest.raises(StorageError, match=r"out: No space left on device; .*PERSEID_SCRATCH_DIR"):
        mirror(root, tmp_path / "b")
    assert not (tmp_path / "b" / "out").exists()


def test_files_that_are_here_are_not_fetched_again(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = mirror(root, tmp_path / "a")
    write(tmp_path / "a", {"model/model.safetensors": "weights", "work/step-1.pt": "1"})
    one.push()
    (tmp_path / "a/work/step-1.pt").unlink()
    fetched: list[str] = []
    download = objects_module.Objects.download

    def counted(self: Objects, key: str, *args: Any) -> None:
        fetched.append(key.removeprefix(f"{KEY}/"))
        download(self, key, *args)

    monkeypatch.setattr(objects_module.Objects, "download", counted)
    mirror(root, tmp_path / "a")
    assert fetched == ["work/step-1.pt"]


def test_a_file_that_was_replaced_behind_the_index_is_an_error_and_no_model(root: str, tmp_path: Path) -> None:
    one = mirror(root, tmp_path / "a")
    write(tmp_path / "a", {"model/model.safetensors": "weights"})
    one.push()
    Objects(root).write(f"{KEY}/model/model.safetensors", b"WEIGHTS")
    with pytest.raises(ObjectChangedError, match=r"model\.safetensors is not what a stage has committed"):
        mirror(root, tmp_path / "b")
    Objects(root).delete([f"{KEY}/model/model.safetensors"])
    with pytest.raises(ObjectChangedError, match="it is gone"):
        mirror(root, tmp_path / "c")


def test_an_index_that_leads_out_of_its_directory_is_refused(root: str, tmp_path: Path) -> None:
    one = mirror(root, tmp_path / "a")
    write(tmp_path / "a", {"out": "1"})
    one.push()
    objects = Objects(root)
    found = objects.read(f"{KEY}/{INDEX}")
    assert found is not None
    objects.write(f"{KEY}/{INDEX}", found[0].replace(b'"out"', b'"../../out"'))
    with pytest.raises(ObjectChangedError, match="no index that this version"):
        mirror(root, tmp_path / "b")
    assert not (tmp_path / "b").exists()


# 1 s each: weights of more than one part.
@pytest.mark.parametrize("biggest_copy", [objects_module.MAX_COPY_BYTES, 1 << 20])
def test_what_an_earlier_attempt_had_is_copied_with_or_without_its_result(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, biggest_copy: int
) -> None:
    monkeypatch.setattr(objects_module, "MAX_COPY_BYTES", biggest_copy)
    one = mirror(root, tmp_path / "a")
    write(tmp_path / "a", {"model/model.safetensors": os.urandom(20 << 20), JOURNAL: "one\n"})
    one.push()
    with (tmp_path / "a" / JOURNAL).open("a") as journal:
        journal.write("a longer second line\n")
    one.push()
    objects = Objects(root)
    for number, with_result in ((1, False), (2, True)):
        target = KEY.replace("attempts/0", f"attempts/{number}")
        if with_result:
            one.finish(b"done")
        assert inherit(objects, KEY, target, with_result=with_result)
        later = DirectoryMirror(objects, target, tmp_path / str(number))
        assert later.result() == (b"done" if with_result else None)
        later.take_over()
        later.pull()
        found = content(tmp_path / str(number))
        found.pop("result.json", None)
        assert found == content(tmp_path / "a")
    assert not inherit(objects, "generations/000/attempts/7/finetune", "x", with_result=True)


def test_a_copy_that_dies_at_any_request_is_begun_anew(root: str, tmp_path: Path) -> None:
    one = mirror(root, tmp_path / "a")
    write(tmp_path / "a", {"model/model.safetensors": "weights", "model/config.json": "{}", JOURNAL: "one\n"})
    one.finish(b"done")
    for die_at in range(1, 5):
        target = f"generations/000/attempts/{die_at}/finetune"
        with pytest.raises(Crash):
            inherit(Dying(root, die_at), KEY, target, with_result=True)
        assert read_index(Objects(root), target) is None
        assert Objects(root).read(f"{target}/result.json") is None
        assert inherit(Objects(root), KEY, target, with_result=True)
        later = DirectoryMirror(Objects(root), target, tmp_path / str(die_at))
        assert later.result() == b"done"
        later.take_over()
        later.pull()
        assert content(tmp_path / str(die_at)) == {**content(tmp_path / "a"), "result.json": b"done"}
