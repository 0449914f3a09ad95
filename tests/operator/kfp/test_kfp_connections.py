"""Connections: how they fail, what the client then says, and what it never does over them."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kfp_calls import CALLS, ID, every_call, every_read
from kfp_samples import run_request

from kfp_double import KfpDouble
from perseid_operator.kfp import (
    KfpAmbiguousError,
    KfpClient,
    KfpError,
    KfpRateLimitedError,
    KfpUnreachableError,
    UnreachableKind,
)

Clients = Callable[..., KfpClient]


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@every_call
async def test_a_refused_connection_says_that_nothing_was_sent(clients: Clients, name: str) -> None:
    with pytest.raises(KfpUnreachableError, match="is the API server up") as caught:
        await CALLS[name](clients(f"http://127.0.0.1:{closed_port()}"))
    assert caught.value.kind is UnreachableKind.REFUSED


async def test_an_unknown_host_is_told_as_one(clients: Clients) -> None:
    for name in ("create_run", "get_run"):
        with pytest.raises(KfpUnreachableError, match="host name is not known") as caught:
            await CALLS[name](clients("http://kfp.invalid"))
        assert caught.value.kind is UnreachableKind.DNS


async def test_a_host_that_swallows_connections_is_told_as_one(clients: Clients) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        # The backlog takes so many connections that nobody accepts; the kernel leaves the next ones unanswered.
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            waiting.append(one)
        with pytest.raises(KfpUnreachableError, match="network policy") as caught:
            await CALLS["create_run"](clients(f"http://127.0.0.1:{port}", connect_timeout=0.1))
        for one in waiting:
            one.close()
    assert caught.value.kind is UnreachableKind.CONNECT_TIMEOUT


def certificate(directory: Path, address: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate that is its own authority, and a server that has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kfp")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority, secret = directory / "ca.pem", directory / "key.pem"
    authority.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority, secret)
    return authority, context


async def empty(request: web.Request) -> web.StreamResponse:
    return web.json_response({})


async def test_tls_is_checked_against_the_ca_file(
    clients: Clients, serve: Callable[..., Awaitable[int]], tmp_path: Path
) -> None:
    authority, tls = certificate(tmp_path, "127.0.0.1")
    url = f"https://127.0.0.1:{await serve(empty, tls)}"
    await clients(url, ca_file=authority).check()
    await clients(url, insecure=True).check()
    for name in ("check", "create_run"):
        with pytest.raises(KfpUnreachableError, match=r"TLS failed.*CA file") as caught:
            await CALLS[name](clients(url))
        assert caught.value.kind is UnreachableKind.TLS


async def test_a_certificate_for_another_host_is_not_taken(
    clients: Clients, serve: Callable[..., Awaitable[int]], tmp_path: Path
) -> None:
    authority, tls = certificate(tmp_path, "127.0.0.2")
    with pytest.raises(KfpUnreachableError, match="TLS failed") as caught:
        await clients(f"https://127.0.0.1:{await serve(empty, tls)}", ca_file=authority).check()
    assert caught.value.kind is UnreachableKind.TLS


@every_read
async def test_a_read_without_an_answer_in_time_is_unreachable(
    clients: Clients, serve: Callable[..., Awaitable[int]], name: str
) -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(KfpUnreachableError, match=r"no answer within 0\.05 s") as caught:
        await CALLS[name](clients(f"http://127.0.0.1:{await serve(never)}", request_timeout=0.05))
    assert caught.value.kind is UnreachableKind.TIMEOUT


async def test_an_answer_that_breaks_off_is_unreachable(clients: Clients, serve: Callable[..., Awaitable[int]]) -> None:
    async def torn(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"runs"')
        assert request.transport is not None
        request.transport.close()
        return response

    kfp = clients(f"http://127.0.0.1:{await serve(torn)}")
    with pytest.raises(KfpUnreachableError, match="connection broke") as caught:
        await kfp.list_runs([ID])
    assert caught.value.kind is UnreachableKind.RESET
    with pytest.raises(KfpAmbiguousError, match="connection broke"):
        await kfp.create_run(run_request(ID))


async def test_a_run_is_created_on_a_connection_of_its_own(
    clients: Clients, serve: Callable[..., Awaitable[int]]
) -> None:
    seen: list[tuple[str, int]] = []
    kept: list[object] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        kept.append(request.transport)  # keeps its id from being used again
        seen.append((request.path.rpartition("/")[2], id(request.transport)))
        return web.json_response({"run_id": ID})

    kfp = clients(f"http://127.0.0.1:{await serve(answer)}")
    for call in (kfp.check, kfp.check):
        await call()
    for _ in range(2):
        await kfp.create_run(run_request(ID))
    connections = [connection for _, connection in seen]
    assert connections[0] == connections[1], "reads share one"
    assert len(set(connections)) == 3


async def test_every_exchange_is_told_to_the_hook_with_its_outcome(double: KfpDouble, clients: Clients) -> None:
    told: list[tuple[str, str, float]] = []

    def on_request(operation: str, code: str, seconds: float) -> None:
        told.append((operation, code, seconds))

    kfp = clients(double.url, on_request)
    request = run_request(await kfp.ensure_experiment("name", ""))
    await kfp.create_run(request)
    await kfp.get_run(request.run_id)
    await kfp.list_runs([request.run_id])
    await kfp.terminate(request.run_id)
    await kfp.delete(request.run_id)
    await kfp.get_run(request.run_id)
    await kfp.check()
    double.fail_next("get_run", 429)
    with pytest.raises(KfpRateLimitedError):
        await kfp.get_run(ID)
    await double.go_down()
    with pytest.raises(KfpError):
        await kfp.get_run(ID)
    assert [(operation, code) for operation, code, _ in told] == [
        ("list_experiments", "200"),
        ("create_experiment", "200"),
        ("create_run", "200"),
        ("get_run", "200"),
        ("list_runs", "200"),
        ("terminate_run", "200"),
        ("delete_run", "200"),
        ("get_run", "404"),
        ("check", "200"),
        ("get_run", "429"),
        ("get_run", told[-1][1]),
    ]
    assert told[-1][1] in {"refused", "reset"}
    assert all(0.0 <= seconds < 10.0 for _, _, seconds in told)


async def test_a_cancelled_call_is_told_too(clients: Clients, serve: Callable[..., Awaitable[int]]) -> None:
    arrived = asyncio.Event()
    told: list[str] = []

    async def never(request: web.Request) -> web.StreamResponse:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    kfp = clients(f"http://127.0.0.1:{await serve(never)}", lambda operation, code, seconds: told.append(code))
    task = asyncio.create_task(kfp.get_run(ID))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == ["cancelled"]


async def test_no_answer_of_the_server_makes_the_client_ask_again(double: KfpDouble, kfp: KfpClient) -> None:
    for status in (500, 503, 429, 401, 403):
        double.fail_next("get_run", status)
        with pytest.raises(KfpError):
            await kfp.get_run(ID)
    assert double.counters().requests["get_run"] == 5


def test_the_client_brings_no_kfp_library_no_model_and_no_cluster_with_it() -> None:
    unwanted = "{'kfp', 'kfp_server_api', 'torch', 'kubernetes', 'kubernetes_asyncio', 'kopf'}"
    program = f"import sys, perseid_operator.kfp; print(sorted({unwanted} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
