from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from ops_virtual_time import VirtualLoop

from perseid_operator.health import Health, serve
from perseid_operator.kfp.settings import KfpSettings
from perseid_operator.metrics import Metrics
from perseid_operator.settings import Settings

SETTINGS = Settings(KfpSettings(endpoint="http://kfp", request_timeout=30.0), storage="/data", poll_seconds=15.0)
SLOW_CALLS = 4 * 30.0
ENDS_WITHIN = 30.0
"""Far more than any of the watched processes needs, on however busy a machine."""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    health = Health(clock, SETTINGS)
    health.started()
    return health


def test_an_operator_is_alive_but_not_ready_until_it_has_started(clock: Clock) -> None:
    health = Health(clock, SETTINGS)
    assert health.live() == (True, "alive")
    assert health.ready() == (False, "the operator is starting")
    health.started()
    assert health.ready() == (True, "ready")
    health.stopping()
    assert health.live()[0]
    assert health.ready() == (False, "the operator is shutting down")


def test_a_poller_that_stands_still_fails_liveness_and_readiness(clock: Clock, health: Health) -> None:
    health.expect("poller")
    clock.now += 5 * 15 + SLOW_CALLS
    assert health.live()[0]
    clock.now += 1
    alive, why = health.live()
    assert not alive
    assert why == "poller has made no round for 196 s (at most 195 s)"
    assert health.ready() == (False, why)
    health.beat("poller")
    assert health.live()[0]


def test_a_poller_that_never_made_its_first_round_is_missed_too(clock: Clock, health: Health) -> None:
    health.expect("poller")
    clock.now += 1e4
    assert not health.live()[0]


def test_what_was_left_off_is_not_missed(clock: Clock, health: Health) -> None:
    health.beat("sweeper")
    health.leave_off("sweeper")
    health.pass_begun("team/a", 15)
    health.forget("team/a")
    health.forget("team/never-there")
    clock.now += 1e6
    assert health.live()[0]


def test_a_run_that_is_not_looked_at_fails_liveness_by_name(clock: Clock, health: Health) -> None:
    for name in ("a", "b", "c", "d", "e"):
        health.pass_begun(f"team/{name}", 15)
    clock.now += 10 * 15 + SLOW_CALLS
    health.pass_done("team/e", 15)
    assert health.live()[0]
    clock.now += 1
    alive, why = health.live()
    assert not alive
    assert why.startswith(
        "no look was had in time at 4 of 5 runs: team/a (271 s), team/b (271 s), team/c (271 s) and 1"
    )
    for name in "abcd":
        health.forget(f"team/{name}")
    assert health.live()[0]


def test_a_run_that_is_looked_at_once_a_day_may_be_late_by_minutes_only(clock: Clock, health: Health) -> None:
    health.pass_done("team/a", 86_400)
    clock.now += 86_400 + 600 + SLOW_CALLS
    assert health.live()[0]
    clock.now += 1
    assert not health.live()[0]


def test_an_absent_kfp_whose_every_call_times_out_fails_no_probe(clock: Clock, health: Health) -> None:
    health.expect("poller")
    health.pass_begun("team/a", 0.25)
    for _ in range(100):
        # A round of one call, or a pass of three, each as long as it may be.
        for _ in range(3):
            clock.now += 30.0
            health.beat("poller")
        clock.now += 15.0
        assert health.live()[0], health.live()
        assert health.ready()[0]
        health.pass_done("team/a", 0.25)


def test_a_blocked_loop_fails_liveness_as_soon_as_it_can_be_asked_and_recovers() -> None:
    lags: list[float] = []

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        health = Health(loop.time, SETTINGS, on_lag=lags.append)
        watching = asyncio.create_task(health.watch_loop())
        await asyncio.sleep(5)
        assert health.lag < 0.01
        loop.stand_still(9.0)
        assert health.live()[0]
        await asyncio.sleep(5)
        loop.stand_still(12.0)
        alive, why = health.live()
        assert not alive
        assert why.startswith("the event loop was blocked for 12 s (at most 10 s)")
        await asyncio.sleep(0.1)
        assert not health.live()[0], "also after the watching task has turned"
        await asyncio.sleep(2)
        assert health.live()[0]
        watching.cancel()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scene())
    assert len([lag for lag in lags if lag > 5]) == 2


@pytest.fixture
async def served(clock: Clock, health: Health) -> AsyncIterator[str]:
    runner = await serve(health, Metrics(), 0, "127.0.0.1")
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


async def get(url: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text(), answer.headers["Content-Type"]


async def test_the_three_paths_say_in_words_how_it_is(clock: Clock, health: Health, served: str) -> None:
    assert (await get(f"{served}/livez"))[:2] == (200, "alive\n")
    assert (await get(f"{served}/readyz"))[:2] == (200, "ready\n")
    status, text, content_type = await get(f"{served}/metrics")
    assert status == 200
    assert "perseid_operator_build_info{" in text
    assert content_type.startswith("text/plain; version=0.0.4")
    health.expect("poller")
    clock.now += 1e4
    for path in ("/livez", "/readyz"):
        status, text, _ = await get(served + path)
        assert status == 503
        assert "poller has made no round" in text
    assert (await get(f"{served}/metrics"))[0] == 200
    assert (await get(f"{served}/healthz"))[0] == 404


async def test_a_probe_that_fails_is_told_once_in_the_log(
    clock: Clock, health: Health, served: str, caplog: pytest.LogCaptureFixture
) -> None:
    health.stopping()
    with caplog.at_level(logging.WARNING, "perseid_operator.health"):
        for _ in range(3):
            await get(f"{served}/readyz")
    assert [record.getMessage() for record in caplog.records] == ["/readyz fails: the operator is shutting down"]


async def test_a_port_that_is_taken_is_told_with_the_setting_to_change(health: Health) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="PERSEID_HTTP_PORT"):
            await serve(health, Metrics(), taken.getsockname()[1], "127.0.0.1")


async def test_a_server_that_is_closed_gives_its_port_back(health: Health) -> None:
    runner = await serve(health, Metrics(), 0, "127.0.0.1")
    port = runner.addresses[0][1]
    await runner.cleanup()
    again: web.AppRunner = await serve(health, Metrics(), port, "127.0.0.1")
    await again.cleanup()


WATCHED = """
import asyncio, logging, re, sys, time
from perseid_operator.health import Health
from perseid_operator.kfp.settings import KfpSettings
from perseid_operator.logs import configure_logs
from perseid_operator.settings import Settings

def sleep():
    time.sleep(600)

def search_for_ever():
    re.match("(a+)+$", "a" * 64 + "b")

def write_to_a_full_pipe():
    while True:
        logging.getLogger("noise").info("x" * 1000)

async def turn(seconds):
    for _ in range(int(seconds / 0.05)):
        await asyncio.sleep(0.05)
        print("turns", flush=True)

async def main():
    configure_logs("text", "INFO")
    health = Health(time.monotonic, Settings(KfpSettings(endpoint="http://kfp"), "/data"), blocked_seconds={limit})
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(health.watch_loop())
        await asyncio.sleep(0)
        print("watched", flush=True)
        {act}
        watching.cancel()
    print("over", flush=True)

asyncio.run(main())
"""


@contextlib.contextmanager
def watched(act: str, limit: float) -> Iterator[subprocess.Popen[str]]:
    program = WATCHED.replace("{act}", act).replace("{limit}", str(limit))
    started = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with started as process:
        try:
            yield process
        finally:
            process.kill()


# Two to four seconds each, and the same again to start Python: real processes, which must stand still long enough.
def test_a_process_whose_loop_is_blocked_ends_and_says_where_it_was_stuck() -> None:
    with watched("sleep()", limit=1.0) as process:
        _, error = process.communicate(timeout=ENDS_WITHIN)
    assert process.returncode == 70
    assert "CRITICAL perseid_operator.watchdog: the event loop was blocked for more than 1 s" in error
    assert "in sleep" in error


def test_a_process_that_is_blocked_with_the_interpreters_lock_held_ends_as_well() -> None:
    with watched("search_for_ever()", limit=1.0) as process:
        _, error = process.communicate(timeout=ENDS_WITHIN)
    assert process.returncode == 1
    assert "Timeout" in error
    assert "in search_for_ever" in error


def test_a_process_that_is_stuck_in_its_own_log_ends_as_well() -> None:
    with watched("write_to_a_full_pipe()", limit=1.0) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "watched\n"
        assert process.wait(timeout=ENDS_WITHIN) == 70  # Its standard error is read by nobody.


def test_a_process_whose_loop_turns_lives_longer_than_the_limit() -> None:
    with watched("await turn(3.0)", limit=1.5) as process:
        output, error = process.communicate(timeout=ENDS_WITHIN)
    assert process.returncode == 0, error
    assert output.endswith("over\n")
    assert error == ""


@pytest.mark.slow  # It is stopped for longer than its limit.
def test_a_process_that_was_stopped_as_a_whole_goes_on_when_it_is_continued() -> None:
    with watched("await turn(600.0)", limit=4.0) as process:
        assert process.stdout is not None
        for expected in ("watched\n", "turns\n"):
            assert process.stdout.readline() == expected
        process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)
        time.sleep(5.0 - (time.monotonic() - stopped))
        process.send_signal(signal.SIGCONT)
        continued = time.monotonic()
        while time.monotonic() - continued < 2.0:
            assert process.stdout.readline() == "turns\n"
