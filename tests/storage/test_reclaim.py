"""Deleting a run's files from a real object store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from s3_server import S3Server

from perseid.api.layout import StorageError
from perseid.storage.objects import Objects
from perseid_operator import reclaim
from perseid_operator.reclaim import delete_files


def keys(root: str) -> list[str]:
    return sorted(found.key for found in Objects(root).list(""))


async def test_all_that_stages_have_written_is_deleted_and_nothing_else(root: str) -> None:
    objects = Objects(root)
    for number in range(1100):  # more than a page of a list, and than one request deletes
        objects.write(f"generations/000/attempts/0/synthesize/journal.jsonl.{number}", b"x")
    objects.write("evaluations/dev-1/scores.json", b"{}")
    objects.write("generations-of-others/model", b"x")
    objects.write("notes.md", b"x")
    Objects(f"{root}-2").write("generations/000/attempts/0/result.json", b"{}")
    await delete_files(root)
    assert keys(root) == ["generations-of-others/model", "notes.md"]
    assert keys(f"{root}-2") == ["generations/000/attempts/0/result.json"]
    await delete_files(root)


async def test_a_storage_that_refuses_is_told_of(root: str, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    Objects(root).write("generations/000/attempts/0/result.json", b"{}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="AWS_SECRET_ACCESS_KEY"):
        await delete_files(root)


async def test_a_storage_that_falls_silent_is_told_of_and_not_waited_for(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object, **__: object) -> AsyncIterator[list[dict[str, str]]]:
        await asyncio.Event().wait()
        yield []

    monkeypatch.setattr(reclaim.obstore, "list", silent)
    monkeypatch.setattr(reclaim, "TIMEOUT_SECONDS", 0.01)
    with pytest.raises(StorageError, match="does not answer within"):
        await delete_files(root)


async def test_what_somebody_else_deletes_meanwhile_ends_nothing_early(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError("generations/000/attempts/0/result.json")

    Objects(root).write("generations/000/attempts/0/result.json", b"{}")
    Objects(root).write("evaluations/dev-1/scores.json", b"{}")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(reclaim.obstore, "delete_async", gone)
        with pytest.raises(StorageError, match="at the same time"):
            await delete_files(root)
    await delete_files(root)
    assert keys(root) == []


async def test_a_directory_that_was_never_made_is_as_good_as_deleted(tmp_path: Path) -> None:
    await delete_files(str(tmp_path / "never"))
