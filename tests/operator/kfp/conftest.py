"""A double of KFP on virtual time, and a client of it."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from kfp_samples import run_request

from kfp_double import KfpDouble, VirtualClock
from perseid_operator.kfp import KfpClient, KfpSettings


@pytest.fixture
async def double() -> AsyncIterator[KfpDouble]:
    async with KfpDouble(clock=VirtualClock()) as running:
        yield running


@pytest.fixture
async def clients() -> AsyncIterator[Callable[..., KfpClient]]:
    """Makes clients that are closed at the end."""
    made: list[KfpClient] = []

    def make(
        endpoint: str, on_request: Callable[[str, str, float], None] | None = None, **settings: object
    ) -> KfpClient:
        made.append(KfpClient(KfpSettings(endpoint, **settings), on_request))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for client in made:
        await client.close()


@pytest.fixture
def kfp(double: KfpDouble, clients: Callable[..., KfpClient]) -> KfpClient:
    return clients(double.url)


@pytest.fixture
async def experiment(kfp: KfpClient) -> str:
    return await kfp.ensure_experiment("tests", "runs of tests")


@pytest.fixture
def any_kfp(request: pytest.FixtureRequest, clients: Callable[..., KfpClient]) -> KfpClient:
    """A client of the live KFP that PERSEID_KFP_ENDPOINT names, where it is set; else of the double."""
    endpoint = os.environ.get("PERSEID_KFP_ENDPOINT")
    if endpoint:
        return clients(endpoint, namespace=os.environ.get("PERSEID_KFP_NAMESPACE") or None)
    return clients(request.getfixturevalue("double").url)


@pytest.fixture
async def raw(double: KfpDouble) -> AsyncIterator[Callable[..., Awaitable[tuple[int, Any]]]]:
    """Asks the double without the client: method, path below the API, what aiohttp takes. Gives status and JSON."""
    async with aiohttp.ClientSession() as session:

        async def ask(method: str, path: str, **arguments: Any) -> tuple[int, Any]:
            async with session.request(method, f"{double.url}/apis/v2beta1{path}", **arguments) as response:
                return response.status, await response.json()

        yield ask


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """Starts a server that answers everything with one handler; gives its port."""
    runners: list[web.AppRunner] = []

    async def start(
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: ssl.SSLContext | None = None
    ) -> int:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        return int(runner.addresses[0][1])

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def posted(kfp: KfpClient, experiment: str) -> str:
    """Id of a run that has just been created; it runs for 20 s."""
    return (await kfp.create_run(run_request(experiment))).run_id
