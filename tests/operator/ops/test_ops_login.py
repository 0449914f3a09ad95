"""Who the operator is to Kubernetes, and what it makes of the API server's answers."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import kopf
import pytest
from aiohttp import web

from perseid_operator import login
from perseid_operator.kube.client import KubeClient
from perseid_operator.kube.connection import Access, Connection
from perseid_operator.kube.protocol import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
    NotLeadingError,
    UnavailableError,
)


def kubeconfig(directory: Path, user: dict[str, Any], server: str = "http://127.0.0.1:1") -> Path:
    path = directory / "config"
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(config))
    return path


async def test_a_token_of_the_kubeconfig_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, {"token": "abc"})))
    found = await login.access()
    assert (found.server, found.tls) == ("http://127.0.0.1:1", None)
    assert found.headers() == {"Authorization": "Bearer abc"}


# A process of its own imports a library that takes a second: the operator holds it back until it is needed.
async def test_a_command_that_gives_the_credentials_is_run(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "from-the-command"},
    }
    plugin.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    command = {"apiVersion": answer["apiVersion"], "command": str(plugin), "interactiveMode": "Never"}
    program = (
        "import perseid_operator.__main__, asyncio, sys; from perseid_operator.login import access;"
        "assert 'kubernetes_asyncio.client' not in sys.modules;"
        "print(asyncio.run(access()).headers()['Authorization'])"
    )
    environment = {"KUBECONFIG": str(kubeconfig(tmp_path, {"exec": command})), "PATH": "/usr/bin:/bin"}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "Bearer from-the-command", done.stderr


@pytest.mark.parametrize("content", ["{}", "- a", "clusters: [", "", '{"current-context": "nowhere"}'])
async def test_a_kubeconfig_that_is_none_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(KubeError, match="kubeconfig"):
        await login.access()


async def test_without_a_pod_and_a_kubeconfig_the_operator_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(KubeError, match="set KUBECONFIG"):
        await login.access()


async def test_a_renewed_token_of_the_service_account_is_used_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    token, clock = ["first"], [0.0]

    def account(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server="http://api", token=token[0])

    monkeypatch.setattr(kopf, "login_with_service_account", account)
    found = await login.access(lambda: clock[0])
    token[0] = "second"
    assert found.headers() == {"Authorization": "Bearer first"}
    clock[0] = login.REFRESH_SECONDS
    assert found.headers() == {"Authorization": "Bearer second"}

    def unreadable(**_: Any) -> kopf.ConnectionInfo:
        raise OSError("it is being replaced")

    monkeypatch.setattr(kopf, "login_with_service_account", unreadable)
    clock[0] = 2 * login.REFRESH_SECONDS
    assert found.headers() == {"Authorization": "Bearer second"}, "the old one is better than none"


Answer = Callable[[web.Request], web.StreamResponse]


@pytest.fixture
async def server() -> AsyncIterator[dict[str, Any]]:
    """A server whose answer is set by the test."""
    found: dict[str, Any] = {"answer": lambda request: web.json_response({}), "asked": []}

    async def handle(request: web.Request) -> web.StreamResponse:
        found["asked"].append((request.method, request.raw_path))
        answer: web.StreamResponse = found["answer"](request)
        return answer

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    found["url"] = f"http://127.0.0.1:{port}"
    yield found
    await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, ForbiddenError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (410, NotFoundError),
        (413, InvalidError),
        (422, InvalidError),
        (429, UnavailableError),
        (500, UnavailableError),
        (302, UnavailableError),
    ],
)
async def test_every_refusal_is_one_of_ours_and_says_what_could_not_be_done(
    server: dict[str, Any], status: int, kind: type[KubeError]
) -> None:
    server["answer"] = lambda request: web.Response(status=status, text="the reason", headers={"Retry-After": "7"})
    async with Connection(Access(server["url"])) as connection:
        with pytest.raises(kind, match=rf"cannot get EvolutionRun a/b: {status}.*the reason") as caught:
            await KubeClient(connection).get_run("a", "b")
    if isinstance(caught.value, UnavailableError):
        assert caught.value.retry_after == 7


async def test_no_answer_and_nonsense_are_worth_another_try(server: dict[str, Any]) -> None:
    async with Connection(Access("http://127.0.0.1:1")) as connection:
        with pytest.raises(UnavailableError, match="does not answer"):
            await KubeClient(connection).get_run("a", "b")
    server["answer"] = lambda request: web.Response(text="<html>")
    async with Connection(Access(server["url"])) as connection:
        with pytest.raises(UnavailableError, match="no JSON"):
            await KubeClient(connection).get_run("a", "b")


async def test_a_name_never_becomes_another_path(server: dict[str, Any]) -> None:
    async with Connection(Access(server["url"])) as connection:
        await KubeClient(connection).get_config_map("a/../b", "c?d#e")
    assert server["asked"] == [("GET", "/api/v1/namespaces/a%2F..%2Fb/configmaps/c%3Fd%23e")]


async def test_who_does_not_lead_reads_and_writes_nothing(server: dict[str, Any]) -> None:
    run = {"metadata": {"namespace": "a", "name": "b", "uid": "u", "resourceVersion": "1"}}
    async with Connection(Access(server["url"])) as connection:
        kube = KubeClient(connection, may_write=lambda: False)
        await kube.get_run("a", "b")
        for write in (
            kube.write_status(run, {}),
            kube.delete_run(run),
            kube.create_config_map(run, "c", {}, immutable=True),
            kube.add_to_config_map("a", "c", {}),
            kube.delete_workflow(run),
        ):
            with pytest.raises(NotLeadingError):
                await write
    assert [method for method, _ in server["asked"]] == ["GET"]
