"""Opening a storage, and what is said where it cannot be used."""

from __future__ import annotations

import time
import uuid

import pytest
from s3_server import READER_KEY, READER_SECRET, S3Server, free_ports

from perseid.api.layout import StorageError
from perseid.storage.errors import StorageRefusedError
from perseid.storage.objects import ConflictError, Objects
from perseid.storage.stores import open_store


def refused(uri: str) -> str:
    """What is said, which must not take longer than somebody waits."""
    began = time.monotonic()
    with pytest.raises(StorageRefusedError) as raised:
        Objects(uri).check()
    assert time.monotonic() - began < 5
    return str(raised.value)


def test_wrong_credentials_are_told_at_once_and_never_repeated(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    said = refused(root)
    assert root in said
    assert "SignatureDoesNotMatch" in said
    assert "AWS_SECRET_ACCESS_KEY" in said
    assert "not-the-secret" not in said


def test_a_key_that_nobody_has_is_told_at_once(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY")
    assert "InvalidAccessKeyId" in refused(root)


def test_a_bucket_that_is_not_there_is_told_at_once(server: S3Server) -> None:
    assert "no bucket absent" in refused("s3://absent/runs")


@pytest.mark.usefixtures("server")
def test_every_call_tells_a_missing_bucket_from_a_missing_object() -> None:
    absent = Objects("s3://absent/runs")
    for call in (
        lambda: absent.read("a"),
        lambda: absent.write("a", b"1"),
        lambda: absent.write_if("a", b"1", None),
        lambda: list(absent.list("a")),
        lambda: absent.copy("a", "b", 1),
    ):
        with pytest.raises(StorageRefusedError, match="bucket"):
            call()


def test_who_may_only_read_is_told_when_something_is_written(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    objects = Objects(root)
    objects.check()
    with pytest.raises(StorageRefusedError, match=r"AccessDenied.*write"):
        objects.write("a", b"1")


def test_an_endpoint_where_nobody_listens_is_told_within_seconds(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{free_ports(1)[0]}")
    began = time.monotonic()
    with pytest.raises(StorageError, match="AWS_ENDPOINT"):
        Objects(root).check()
    assert time.monotonic() - began < 20


def test_an_endpoint_without_tls_is_spoken_to_only_where_it_is_named_so(
    root: str, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    Objects(root).check()
    monkeypatch.delenv("AWS_ENDPOINT")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    Objects(root).check()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint.replace("http://", "https://"))
    with pytest.raises(StorageError, match="AWS_ENDPOINT"):
        Objects(root).check()


@pytest.mark.parametrize("uri", ["ftp://elsewhere/x", "/a/directory", "s3:/typo/x", ""])
def test_what_is_no_object_storage_is_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="s3://bucket/prefix"):
        open_store(uri)


def test_of_two_conditional_writes_one_comes_too_late(root: str) -> None:
    objects = Objects(root)
    first = objects.write_if("a", b"1", None)
    with pytest.raises(ConflictError):
        objects.write_if("a", b"other", None)
    second = objects.write_if("a", b"2", first)
    with pytest.raises(ConflictError):
        objects.write_if("a", b"3", first)
    assert objects.read("a") == (b"2", second)


def test_an_object_that_is_not_there_is_an_answer_and_no_error(root: str) -> None:
    objects = Objects(root)
    assert objects.read("a") is None
    assert objects.look("a") is None
    assert list(objects.list("")) == []
    objects.delete(["a", uuid.uuid4().hex])
