from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import BUCKET, S3Server

from perseid.api.layout import SCRATCH_DIRECTORY


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Started once (3 s): every test has a place of its own in its bucket."""
    server = S3Server(tmp_path_factory.mktemp("seaweedfs") / "server")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(running_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    """The server, with its writer's credentials in the environment, and a scratch directory of the test's own."""
    for name, value in running_server.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(SCRATCH_DIRECTORY, str(tmp_path / "scratch"))
    monkeypatch.setenv("PERSEID_CACHE", str(tmp_path / "cache"))
    return running_server


@pytest.fixture
def root(server: S3Server) -> str:
    """A place in the bucket that is this test's own."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/run"
