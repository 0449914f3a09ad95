from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
import time
import warnings
from typing import Any

import kopf
import pytest

from perseid_operator.handlers import WAITING, kopf_settings
from perseid_operator.logs import configure_logs, log_context, redact

log = logging.getLogger("perseid_operator.test")
TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQifQ.c2lnbmF0dXJl-x_y"


@pytest.fixture(autouse=True)
def _restored(restored_logs: None) -> None:
    pass


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_message_is_one_json_object_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "INFO")
    log.info("two\nlines of %s", "värde", extra={"seconds": 1.5})
    (line,) = told(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "INFO",
        "logger": "perseid_operator.test",
        "message": "two\nlines of värde",
        "seconds": 1.5,
    }


async def test_the_context_holds_across_awaits_and_does_not_leak_into_other_tasks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("json", "INFO")
    both_inside = asyncio.Barrier(2)

    async def reconcile(name: str) -> None:
        with log_context(namespace="team", name=name):
            await both_inside.wait()
            with log_context(generation=0, run_id=f"run-{name}"):
                await asyncio.sleep(0)
                log.info("inner")
            log.info("outer")

    await asyncio.gather(reconcile("a"), reconcile("b"))
    log.info("outside")
    lines = told(capsys)
    fields = [{key: line.get(key) for key in ("message", "namespace", "name", "generation", "runId")} for line in lines]
    for name in "ab":
        about = {"namespace": "team", "name": name}
        assert {"message": "inner", **about, "generation": 0, "runId": f"run-{name}"} in fields
        assert {"message": "outer", **about, "generation": None, "runId": None} in fields
    assert {"namespace", "name", "generation", "runId"}.isdisjoint(lines[-1])


async def test_the_context_goes_along_into_threads_that_asyncio_starts(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "INFO")
    with log_context(namespace="team", name="a"):
        await asyncio.to_thread(log.info, "inside")
    assert told(capsys)[0]["name"] == "a"


def test_kopfs_own_messages_go_the_same_way_and_name_their_object(capsys: pytest.CaptureFixture[str]) -> None:
    from kopf._core.actions.loggers import LocalObjectLogger

    configure_logs("json", "INFO")
    body = kopf.Body({"metadata": {"name": "a", "namespace": "team", "uid": "u"}})  # type: ignore[typeddict-item]
    LocalObjectLogger(body=body, settings=kopf.OperatorSettings()).info("Handler is invoked.")
    (line,) = told(capsys)
    assert (line["logger"], line["namespace"], line["name"]) == ("kopf.objects", "team", "a")
    assert {"k8s_ref", "k8s_skip", "settings"}.isdisjoint(line)


def test_waiting_for_runs_to_stop_is_no_error_and_what_goes_wrong_meanwhile_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from kopf._core.actions.loggers import LocalObjectLogger

    configure_logs("json", "INFO")
    settings = kopf_settings()
    body = kopf.Body({"metadata": {"name": "a", "namespace": "team", "uid": "u"}})  # type: ignore[typeddict-item]
    logger = LocalObjectLogger(body=body, settings=settings)
    logger.error(f"Handler 'clean-up' failed temporarily: {WAITING}")
    logger.error("Handler 'clean-up' failed: the cluster is on fire")
    assert [line["message"] for line in told(capsys)] == ["Handler 'clean-up' failed: the cluster is on fire"]


def test_an_exception_is_told_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "INFO")
    try:
        raise RuntimeError(f"refused: Bearer {TOKEN}")
    except RuntimeError:
        log.exception("it went wrong")
    (line,) = told(capsys)
    assert "RuntimeError: refused" in line["exc_info"]
    assert TOKEN not in line["exc_info"]


def test_the_text_format_says_when_who_about_what_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("text", "INFO")
    with log_context(namespace="team", name="a", generation=3, run_id="r-1"):
        try:
            raise RuntimeError("out of luck")
        except RuntimeError:
            log.exception("it went wrong")
    log.info("no run")
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\S+Z ERROR +perseid_operator\.test: \[team/a g3 r-1\] it went wrong", lines[0])
    assert lines[-2] == "RuntimeError: out of luck"
    assert re.fullmatch(r"\S+Z INFO +perseid_operator\.test: no run", lines[-1])


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize(
    "secret",
    [
        f"Authorization: Bearer {TOKEN}",
        f"token {TOKEN} was refused",
        "Authorization: Bearer c29tZXRoaW5nLW9wYXF1ZQ==",
        "{'Authorization': 'Bearer c29tZXRoaW5nLW9wYXF1ZQ=='}",
        '{"token": "c29tZXRoaW5nLW9wYXF1ZQ"}',
        "AWS_SECRET_ACCESS_KEY=c29tZXRoaW5nLW9wYXF1ZQ",
        "https://bucket/x?X-Amz-Signature=c29tZXRoaW5nLW9wYXF1ZQ&y=1",
        "postgres://me:c29tZXRoaW5nLW9wYXF1ZQ@host/db",
        "sk-proj-c29tZXRoaW5nLW9wYXF1ZQ",
    ],
)
def test_a_secret_is_not_told(format: str, secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(format, "INFO")
    log.info("the server said %s", secret)
    log.info("see the extra", extra={"answer": {"body": [secret], "api_key": "short"}, "error": ValueError(secret)})
    shown = capsys.readouterr().err
    assert "[hidden]" in shown
    for part in ("c29tZXRoaW5nLW9wYXF1ZQ", TOKEN, '"short"'):
        assert part not in shown


@pytest.mark.parametrize(
    "harmless",
    [
        "the token file /var/run/secrets/token cannot be read (No such file); mount one there",
        "max_tokens=2048 of 100000 tokens",
        "POST https://kfp.example:8888/apis/v2beta1/runs answered 500",
        "run 6f1c2c9e-7b0e-5a0e-9d43-7f4f6a3f9a55 of generation 12 is RUNNING",
        "names of secrets are fine: the Secret model-credentials is missing",
    ],
)
def test_what_is_no_secret_stays_readable(harmless: str) -> None:
    assert redact(harmless) == harmless


@pytest.mark.parametrize(
    "hostile",
    ["a-" * 200_000, "eyJ-" * 100_000, "token" * 80_000, "://a:" * 80_000, "token" + " " * 400_000, "sk-" * 99_999],
)
def test_a_hostile_message_is_cut_and_takes_no_time(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "INFO")
    begun = time.process_time()
    log.info("%s", hostile)
    assert time.process_time() - begun < 0.5
    (line,) = told(capsys)
    assert len(line["message"]) < 20_000
    assert line["message"].endswith(f"({len(hostile)} characters)")


def test_levels_hold_and_libraries_that_repeat_whole_requests_stay_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "DEBUG")
    log.debug("ours")
    logging.getLogger("kubernetes_asyncio.client.rest").debug("response body: ...")
    logging.getLogger("aiohttp.access").debug("GET /livez")
    assert [line["message"] for line in told(capsys)] == ["ours"]
    configure_logs("json", "WARNING")
    log.info("not this")
    assert told(capsys) == []


def test_configuring_again_replaces_what_was_before(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("text", "INFO")
    configure_logs("json", "INFO")
    log.info("once")
    assert [line["message"] for line in told(capsys)] == ["once"]


def test_warnings_of_python_are_messages_too(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logs("json", "INFO")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        (line,) = told(capsys)
    assert line["logger"] == "py.warnings"
    assert "old ways" in line["message"]


@pytest.mark.parametrize(("format", "level"), [("xml", "INFO"), ("json", "LOUD")])
def test_another_format_or_level_is_refused(format: str, level: str) -> None:
    with pytest.raises(ValueError, match="the log"):
        configure_logs(format, level)


def test_the_last_words_of_a_process_are_json_as_well() -> None:
    program = (
        "import threading; from perseid_operator.logs import configure_logs; configure_logs('json', 'INFO')\n"
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()\n"
        "raise RuntimeError('the end')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    thread, end = (json.loads(line) for line in done.stderr.splitlines())
    assert "ZeroDivisionError" in thread["exc_info"]
    assert end["level"] == "CRITICAL"
    assert "RuntimeError: the end" in end["exc_info"]
