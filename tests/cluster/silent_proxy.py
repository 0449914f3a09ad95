"""A TCP proxy whose connections can go silent, as behind a firewall that has forgotten them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from cluster_access import write_kubeconfig


class SilentProxy:
    """Passes on what comes, both ways, until it is told to be silent."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._connections: list[Connection] = []
        self.url = ""

    def silence(self) -> None:
        """From now on nothing comes through any connection that there is, and none ends; new ones work."""
        for connection in self._connections:
            connection.is_silent = True

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[SilentProxy]:
        """Take connections while the block runs; `url` is where."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for connection in self._connections:
                connection.end()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._port)
        connection = Connection(writer, back)
        self._connections.append(connection)
        try:
            await asyncio.gather(connection.pass_on(reader, back), connection.pass_on(there, writer))
        finally:
            connection.end()


class Connection:
    """One, with its two ends."""

    def __init__(self, *ends: asyncio.StreamWriter) -> None:
        self._ends = ends
        self.is_silent = False

    async def pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """One way, until the source ends it."""
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if not self.is_silent:
                    target.write(data)
                    await target.drain()
        if not self.is_silent:
            target.close()

    def end(self) -> None:
        """Close both ends."""
        for writer in self._ends:
            writer.close()


@contextlib.asynccontextmanager
async def silent_proxy(kubeconfig: Path, directory: Path) -> AsyncIterator[tuple[SilentProxy, Path]]:
    """A proxy before the API server of a kubeconfig, and the same kubeconfig with the proxy's address."""
    config = await asyncio.to_thread(lambda: json.loads(kubeconfig.read_text()))
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]
    server = urlsplit(cluster["server"])
    assert server.hostname is not None
    assert server.port is not None
    async with SilentProxy(server.hostname, server.port).listening() as proxy:
        changed = directory / "proxy.kubeconfig"
        namespace = config["contexts"][0]["context"]["namespace"]
        write_kubeconfig(changed, {**cluster, "server": proxy.url}, user["name"], user["user"]["token"], namespace)
        yield proxy, changed
