"""Who asks: tokens that are renewed, missing or unknown, and what a refusal says about them."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from kfp_calls import CALLS, SERVED_AS, every_call
from kfp_samples import run_request

from kfp_double import KfpDouble, VirtualClock
from kfp_double.server import Access
from perseid_operator.kfp import (
    KfpClient,
    KfpServerError,
    KfpUnauthorizedError,
)

Clients = Callable[..., KfpClient]


@every_call
async def test_a_sign_in_page_is_not_followed(double: KfpDouble, kfp: KfpClient, name: str) -> None:
    for status in (302, 307):
        double.answer_next(SERVED_AS.get(name, name), status, "", location="https://login.example/")
        with pytest.raises(KfpUnauthorizedError, match=r"redirected .* 'https://login\.example/'.*no credentials"):
            await CALLS[name](kfp)


def service_account_token(account: str) -> str:
    payload = base64.urlsafe_b64encode(json.dumps({"sub": account}).encode()).decode().rstrip("=")
    return f"header.{payload}.signature"


GOOD = service_account_token("system:serviceaccount:perseid:operator")
STRANGER = service_account_token("system:serviceaccount:perseid:stranger")


@pytest.fixture
async def guarded() -> AsyncIterator[KfpDouble]:
    """A double in multi-user mode."""
    access = Access({GOOD: "operator", STRANGER: "stranger"}, frozenset({"operator", "user@example"}))
    async with KfpDouble(clock=VirtualClock(), access=access) as running:
        yield running


async def test_401_says_what_was_sent(guarded: KfpDouble, clients: Clients, tmp_path: Path) -> None:
    with pytest.raises(KfpUnauthorizedError, match=r"401.*no credentials"):
        await clients(guarded.url, namespace="team").check()
    token = tmp_path / "token"
    token.write_text("unknown-secret")
    with pytest.raises(KfpUnauthorizedError, match=f"401.*no known account.*{token}.*audience") as caught:
        await clients(guarded.url, namespace="team", token_file=token).check()
    assert "unknown-secret" not in str(caught.value), "KFP's words repeat the token"
    assert "[token]" in str(caught.value)


async def test_403_says_which_account_and_namespace(guarded: KfpDouble, clients: Clients, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(STRANGER)
    kfp = clients(guarded.url, namespace="team", token_file=token)
    for name, call in CALLS.items():
        with pytest.raises(KfpUnauthorizedError, match="403") as caught:
            await call(kfp)
        said = str(caught.value)
        assert f"system:serviceaccount:perseid:stranger (token file {token})" in said, name
        assert "in the namespace team" in said
        assert STRANGER not in said


async def test_the_user_id_header_is_sent_and_named(guarded: KfpDouble, clients: Clients) -> None:
    await clients(guarded.url, namespace="team", user_id="user@example").check()
    with pytest.raises(KfpUnauthorizedError, match="the user nobody"):
        await clients(guarded.url, namespace="team", user_id="nobody").check()


async def test_the_namespace_goes_with_lists_and_experiments(
    guarded: KfpDouble, clients: Clients, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(GOOD)
    kfp = clients(guarded.url, namespace="team", token_file=token)
    request = run_request(await kfp.ensure_experiment("name", ""))
    await kfp.create_run(request)
    assert set(await kfp.list_runs([request.run_id])) == {request.run_id}
    with pytest.raises(KfpServerError, match="namespace"):
        await clients(guarded.url, token_file=token).list_runs([request.run_id])


async def test_a_renewed_token_is_used_at_once(guarded: KfpDouble, clients: Clients, tmp_path: Path) -> None:
    # As the kubelet does it: a directory by generation, and a link that is turned over.
    for number, content in enumerate((STRANGER, GOOD)):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "token").write_text(content + "\n")
        os.utime(tmp_path / str(number) / "token", (1, 1))  # Written within one tick of the clock.
    (tmp_path / "data").symlink_to("0")
    (tmp_path / "token").symlink_to("data/token")
    kfp = clients(guarded.url, namespace="team", token_file=tmp_path / "token")
    with pytest.raises(KfpUnauthorizedError, match="stranger"):
        await kfp.check()
    (tmp_path / "next").symlink_to("1")
    (tmp_path / "next").rename(tmp_path / "data")
    await kfp.check()


async def test_a_token_that_is_written_over_is_used_at_once(
    guarded: KfpDouble, clients: Clients, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(GOOD)
    kfp = clients(guarded.url, namespace="team", token_file=token)
    await kfp.check()
    token.write_text(STRANGER)
    os.utime(token, (1, 1))
    with pytest.raises(KfpUnauthorizedError, match="403"):
        await kfp.check()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot be read"), (b"", "empty"), (b" \n", "empty"), (b"a b", "single"), ("ä".encode(), "not ASCII")],
)
@every_call
async def test_without_a_usable_token_nothing_is_sent(
    double: KfpDouble, clients: Clients, tmp_path: Path, name: str, content: bytes | None, complaint: str
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    with pytest.raises(KfpUnauthorizedError, match=complaint) as caught:
        await CALLS[name](clients(double.url, token_file=token))
    assert str(token) in str(caught.value)
    assert double.counters().requests == {}


async def test_a_token_that_comes_back_is_used(guarded: KfpDouble, clients: Clients, tmp_path: Path) -> None:
    token = tmp_path / "token"
    kfp = clients(guarded.url, namespace="team", token_file=token)
    with pytest.raises(KfpUnauthorizedError, match="cannot be read"):
        await kfp.check()
    token.write_text(GOOD)
    await kfp.check()
