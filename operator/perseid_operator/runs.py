"""All EvolutionRuns that the operator knows of, and the loop that carries each of them through."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from perseid.decide import DeleteObject, Observed, decide
from perseid_operator import stalls
from perseid_operator.actions import PostponedError
from perseid_operator.health import Health
from perseid_operator.kfp import KfpError, KfpRateLimitedError
from perseid_operator.kube.protocol import ConflictError, Kube, KubeError, NotFoundError, Object, UnavailableError
from perseid_operator.logs import log_context
from perseid_operator.metrics import Metrics
from perseid_operator.objects import BadObjectError, compact, is_held, needs_work, read_object, read_status
from perseid_operator.reconciler import Reconciler

log = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 300.0
PASSES_AT_ONCE = 32
"""Passes under way. A thousand at once would wait for each other's requests, and none of them would get done soon."""
LONGEST_WAIT_SECONDS = 600.0
"""However little is to be expected: a look now and then mends what was missed."""


@dataclass(slots=True)
class Known:
    """One object."""

    newest: Object
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Runs:
    """The newest version of every object, and who is to be woken when one changes."""

    def __init__(self, kube: Kube, reconciler: Reconciler, health: Health, metrics: Metrics) -> None:
        self._kube = kube
        self._reconciler = reconciler
        self._health = health
        self._metrics = metrics
        self._known: dict[str, Known] = {}
        self._passes = asyncio.Semaphore(PASSES_AT_ONCE)

    def seen(self, raw: Object) -> None:
        """A version that the watch brought, compact. An older one than our own last write is no news."""
        uid = raw["metadata"]["uid"]
        known = self._known.get(uid)
        if known is None:
            self._known[uid] = Known(raw)
        elif not _is_older(raw, known.newest):
            known.newest = raw
            known.wake.set()

    def gone(self, raw: Object) -> None:
        """The object is no more."""
        known = self._known.pop(raw["metadata"]["uid"], None)
        if known is not None:
            known.wake.set()
            with contextlib.suppress(BadObjectError):
                self._reconciler.forget(read_object(known.newest), read_status(known.newest))

    def wake(self, uid: str) -> None:
        """Something that the object waits for has changed."""
        known = self._known.get(uid)
        if known is not None:
            known.wake.set()

    def newest(self, uid: str) -> Object | None:
        """The newest version."""
        known = self._known.get(uid)
        return None if known is None else known.newest

    async def follow(self, uid: str, stopped: Callable[[], bool]) -> None:
        """Carry an object that was `seen` through, until it is done or gone, `stopped`, or cancelled. Never raises for
        what goes wrong outside: that is waited out."""
        first = self._known.get(uid)
        if first is None:
            return  # gone already
        metadata = first.newest["metadata"]
        key = f"{metadata['namespace']}/{metadata['name']}"
        failures = 0
        self._health.pass_begun(key, LONGEST_WAIT_SECONDS)
        try:
            with log_context(namespace=metadata["namespace"], name=metadata["name"]):
                while not stopped() and (known := self._known.get(uid)) is not None and needs_work(known.newest):
                    known.wake.clear()
                    if is_held(known.newest):
                        delay, failures = await self._pass(known, failures)
                    else:
                        delay = LONGEST_WAIT_SECONDS  # the watch brings the version that is
                    self._health.pass_done(key, delay)
                    if delay > 0:
                        await _wait(known.wake, delay)
        finally:
            self._health.forget(key)

    async def _pass(self, known: Known, failures: int) -> tuple[float, int]:
        """One pass; the seconds to wait after it, and how many have failed in a row."""
        try:
            async with self._passes:
                newest, delay = await self._reconciler.reconcile(known.newest)
        except ConflictError:
            # Somebody wrote first: decide again on what they wrote. At once, but not in a closed loop.
            return await self._read_again(known, failures)
        except NotFoundError as error:
            log.info("the object has gone: %s", error)
            return await self._read_again(known, failures)
        except (KubeError, KfpError, BadObjectError, PostponedError) as error:
            self._metrics.failed(type(error).__name__)
            log.warning("this pass has failed, another will follow: %s", error)
            return _backoff(failures, error), failures + 1
        except Exception as error:
            # A mistake of ours in one object's pass must not end it for good, nor touch the others.
            self._metrics.failed(type(error).__name__)
            log.exception("this pass has failed by a mistake of the operator's")
            return _backoff(failures, error), failures + 1
        if not _is_older(newest, known.newest):
            known.newest = compact(newest)
        return min(LONGEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS if delay is None else delay), 0

    async def _read_again(self, known: Known, failures: int) -> tuple[float, int]:
        metadata = known.newest["metadata"]
        try:
            read = await self._kube.get_run(metadata["namespace"], metadata["name"])
        except NotFoundError:
            self.gone(known.newest)
            return 0.0, 0
        except KubeError as error:
            return _backoff(failures, error), failures + 1
        if read["metadata"]["uid"] != metadata["uid"]:
            self.gone(known.newest)  # another object took the name
        elif not _is_older(read, known.newest):
            known.newest = compact(read)
        return (0.0 if failures == 0 else _backoff(failures, None)), failures + 1

    async def sweep(self) -> None:
        """Delete what has been finished for long enough, count phases, and tell which runs do not get on."""
        phases: Counter[tuple[str, str]] = Counter()
        oldest: dict[str, float] = {}
        stalled: Counter[str] = Counter()
        now = self._reconciler.now().timestamp()
        for known in list(self._known.values()):
            raw = known.newest
            namespace, status = raw["metadata"]["namespace"], raw.get("status") or {}
            phases[namespace, status.get("phase", "Pending")] += 1
            if stalls.may_progress(status):
                oldest[namespace] = min(oldest.get(namespace, now), stalls.last_progress(status))
                stalled[namespace] += stalls.stands_still(raw, now)
            if needs_work(raw) or (raw.get("spec") or {}).get("ttlSecondsAfterFinished") is None:
                continue
            with contextlib.suppress(BadObjectError):
                await self._delete_if_due(raw)
        self._metrics.phases(phases)
        self._metrics.oldest_progress(oldest)
        self._metrics.stalled(stalled)

    async def _delete_if_due(self, raw: Object) -> None:
        obj, now = read_object(raw), self._reconciler.now()
        if obj.deleting or not isinstance(decide(obj.run.spec, read_status(raw), Observed(), now).action, DeleteObject):
            return
        try:
            await self._kube.delete_run(raw)
            log.info("deleted %s/%s: its time to live is over", obj.namespace, obj.name)
        except KubeError as error:
            log.warning("%s/%s should be deleted, but: %s", obj.namespace, obj.name, error)


def _is_older(one: Object, other: Object) -> bool:
    mine, theirs = one["metadata"].get("resourceVersion", ""), other["metadata"].get("resourceVersion", "")
    return bool(mine.isdigit() and theirs.isdigit() and int(mine) < int(theirs))


def _backoff(failures: int, error: Exception | None) -> float:
    asked = error.retry_after if isinstance(error, KfpRateLimitedError | UnavailableError) else None
    # The spread keeps a thousand objects from coming back at once.
    own = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 10)) * random.uniform(0.7, 1.3)
    return max(own, asked or 0.0)


async def _wait(wake: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(wake.wait(), seconds)
