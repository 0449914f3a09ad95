"""Probes that tell the truth: whether the event loop turns, whether the rounds are made, whether each run is looked at.

Kubeflow Pipelines being away never fails a probe: a restart would not bring it back. That is a condition of the runs
and an alert.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from perseid_operator.settings import Settings
from perseid_operator.watchdog import BLOCKED_SECONDS, Watchdog

log = logging.getLogger(__name__)

TICK_SECONDS = 0.5
"""How often the event loop is looked at."""
MAX_LAG_SECONDS = 10.0
MAX_ROUNDS_MISSED = 5
MAX_PASSES_MISSED = 10
MAX_PASS_SLACK_SECONDS = 600.0
"""A run that is looked at once an hour may miss that by minutes, not by ten hours."""
_NAMED = 3
"""How many of those that stand still a message names."""


class Rendered(Protocol):
    """What can be shown at /metrics."""

    def render(self) -> tuple[bytes, str]:
        """The body and its content type."""
        ...


@dataclass(slots=True)
class _Duty:
    """Something that must be done again and again."""

    since: float
    within: float

    def overdue(self, now: float) -> float:
        return now - self.since - self.within


class Health:
    """What the probes say. All methods are for the event loop's own thread.

    `clock` gives seconds and never goes back (time.monotonic). Every limit has room for the time-outs of KFP's client
    on top, since an absent KFP makes rounds and passes long.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        settings: Settings,
        on_lag: Callable[[float], None] | None = None,
        blocked_seconds: float = BLOCKED_SECONDS,
    ) -> None:
        """`on_lag` is told the event loop's lag, some times a second. After `blocked_seconds` in which the event loop
        has not turned, the process is ended."""
        self._clock = clock
        self._poll_seconds = settings.poll_seconds
        self._slow_calls = 4 * settings.kfp.request_timeout
        self._on_lag = on_lag
        self._blocked_seconds = blocked_seconds
        self._rounds: dict[str, _Duty] = {}
        self._passes: dict[str, _Duty] = {}
        self._tick: float | None = None
        self._lags: deque[float] = deque(maxlen=2)
        self._unready = "the operator is starting"

    def expect(self, name: str, interval: float | None = None) -> None:
        """From now on `beat(name)` must come. `interval` is PERSEID_POLL_SECONDS by default."""
        within = MAX_ROUNDS_MISSED * (self._poll_seconds if interval is None else interval) + self._slow_calls
        self._rounds[name] = _Duty(self._clock(), within)

    def beat(self, name: str) -> None:
        """A round was made: KFP answered, or did not and that was taken in. A round of many requests beats after each,
        since each may take its whole time-out."""
        duty = self._rounds.get(name)
        if duty is None:
            self.expect(name)
        else:
            duty.since = self._clock()

    def leave_off(self, name: str) -> None:
        """`beat(name)` will not come any more, and need not."""
        self._rounds.pop(name, None)

    def pass_begun(self, key: str, interval: float) -> None:
        """A run's daemon has started: from now on its passes are expected, the first after `interval` seconds."""
        self.pass_done(key, interval)

    def pass_done(self, key: str, interval: float) -> None:
        """A run was looked at, and will be again after `interval` seconds or earlier."""
        within = min(MAX_PASSES_MISSED * interval, interval + MAX_PASS_SLACK_SECONDS) + self._slow_calls
        self._passes[key] = _Duty(self._clock(), within)

    def forget(self, key: str) -> None:
        """A run's daemon has ended."""
        self._passes.pop(key, None)

    def started(self) -> None:
        """Everything that the operator needs to act, or to wait for the Lease, is there: ready."""
        self._unready = ""

    def stopping(self) -> None:
        """The operator goes down in good order: not ready any more, but alive."""
        self._unready = "the operator is shutting down"

    @property
    def lag(self) -> float:
        """Seconds by which the event loop is late, now or a moment ago; 0 where nobody watches it."""
        if self._tick is None:
            return 0.0
        # Who asks right after a block asks before the watching task has come to see it.
        return max(0.0, self._clock() - self._tick - TICK_SECONDS, *self._lags)

    async def watch_loop(self) -> None:
        """Measure the event loop's lag until cancelled, and have a thread end the process where the loop is blocked for
        good: then no probe is answered, and there may be none."""
        loop = asyncio.get_running_loop()
        with Watchdog(self._blocked_seconds) as watchdog:
            try:
                while True:
                    asked = loop.time()
                    self._tick = self._clock()
                    watchdog.feed()
                    await asyncio.sleep(TICK_SECONDS)
                    lag = max(0.0, loop.time() - asked - TICK_SECONDS)
                    self._lags.append(lag)
                    if self._on_lag is not None:
                        self._on_lag(lag)
            finally:
                self._tick = None
                self._lags.clear()

    def live(self) -> tuple[bool, str]:
        """Whether a restart is not needed, and in words why it is."""
        now = self._clock()
        troubles = []
        if self.lag > MAX_LAG_SECONDS:
            troubles.append(
                f"the event loop was blocked for {self.lag:.0f} s (at most {MAX_LAG_SECONDS:.0f} s): some call does not"
                " give way"
            )
        troubles += [
            f"{name} has made no round for {now - duty.since:.0f} s (at most {duty.within:.0f} s)"
            for name, duty in sorted(self._rounds.items())
            if duty.overdue(now) > 0
        ]
        late = sorted(key for key, duty in self._passes.items() if duty.overdue(now) > 0)
        if late:
            named = ", ".join(f"{key} ({now - self._passes[key].since:.0f} s)" for key in late[:_NAMED])
            more = f" and {len(late) - _NAMED} more" if len(late) > _NAMED else ""
            troubles.append(f"no look was had in time at {len(late)} of {len(self._passes)} runs: {named}{more}")
        return (False, "; ".join(troubles)) if troubles else (True, "alive")

    def ready(self) -> tuple[bool, str]:
        """Whether the operator does its work, and in words why not."""
        if self._unready:
            return False, self._unready
        alive, why = self.live()
        return (True, "ready") if alive else (False, why)


async def serve(health: Health, metrics: Rendered, port: int, host: str | None = None) -> web.AppRunner:
    """Answer /livez, /readyz and /metrics until the runner's `cleanup`. Port 0 takes one that is free: see the runner's
    `addresses`. Raises OSError where the port cannot be had."""
    runner = web.AppRunner(_application(health, metrics), access_log=None, handle_signals=False, shutdown_timeout=2.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise OSError(
            error.errno,
            f"port {port}, for /livez, /readyz and /metrics, cannot be opened ({error.strerror}); give another"
            " as PERSEID_HTTP_PORT",
        ) from None
    return runner


def _application(health: Health, metrics: Rendered) -> web.Application:
    def probe(ask: Callable[[], tuple[bool, str]]) -> Handler:
        said = ""

        async def answer(request: web.Request) -> web.Response:
            nonlocal said
            good, words = ask()
            if not good and words != said:
                log.warning("%s fails: %s", request.path, words)
            said = "" if good else words
            return web.Response(status=200 if good else 503, text=words + "\n", headers={"Cache-Control": "no-store"})

        return answer

    async def show(_: web.Request) -> web.Response:
        body, content_type = metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    application = web.Application()
    application.router.add_get("/livez", probe(health.live))
    application.router.add_get("/readyz", probe(health.ready))
    application.router.add_get("/metrics", show)
    return application
