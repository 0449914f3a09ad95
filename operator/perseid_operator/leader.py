"""Leader election by a Lease: of several replicas one acts, and it knows when it may not any more.

The library kubernetes_asyncio has an election as well. It is not used: its requests have no time-out, so that a leader
whose API server hangs leads for ever; connection errors end its task; it goes by the wall clock; and it never gives a
Lease back.

The rules here are those of Kubernetes' own controllers. Who renewed at a time, by its own clock and measured before the
request was sent, leads until `renew_deadline` later and not a moment longer; who waits takes the Lease when it has seen
no change in it for the holder's `lease` time, measured from when it saw the last one. No two machines' clocks are ever
compared, and every write names the version of the Lease that it replaces.

A Lease does not fence: a process that is stopped and goes on does not know at once that its time is over. So whoever
acts asks `is_leading` right before, and the status write with a resourceVersion precondition stands behind that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from perseid_operator.kube.protocol import ConflictError, ForbiddenError, KubeError, NotFoundError
from perseid_operator.lease import LeaseApi, LeaseRecord, claim, parse_lease, release

log = logging.getLogger(__name__)

LEASE_NAME = "perseid-operator"
_NO_ANSWER = (KubeError, TimeoutError, ValueError)
"""What a request can end with. ValueError: an answer that is no Lease, from whatever proxy stands between."""


@dataclass(frozen=True, slots=True)
class ElectionTimes:
    """Seconds. Raises ValueError where they could let two lead at once."""

    lease: float = 15.0
    """How long others leave a Lease alone that its holder does not renew."""
    renew_deadline: float = 10.0
    """How long a holder leads after the last renewal."""
    retry: float = 2.0
    """Between two tries, of holders and of those who wait."""

    def __post_init__(self) -> None:
        if not 0 < 2 * self.retry < self.renew_deadline < self.lease or self.lease != int(self.lease):
            raise ValueError(
                f"the election's times are lease {self.lease:g}, renew deadline {self.renew_deadline:g}, retry"
                f" {self.retry:g}; the lease must be whole seconds and longer than the deadline, the deadline longer"
                " than two retries"
            )

    @property
    def request(self) -> float:
        """Longest wait in one try: a holder can try twice within its deadline."""
        return self.renew_deadline / 2 - self.retry


def new_identity() -> str:
    """A name for this process and no other: the host's (a pod's) name and something random."""
    return f"{socket.gethostname()}_{uuid.uuid4()}"


class LeaderElection:
    """One candidate. `identity` must be this process' alone: a restarted one is another candidate.

    Needs the verbs get, create and update on Leases. `clock` gives seconds, never goes back and goes on while the
    process is stopped (time.monotonic).
    """

    def __init__(
        self,
        api: LeaseApi,
        namespace: str,
        name: str = LEASE_NAME,
        identity: str | None = None,
        times: ElectionTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        """`on_change` is told when this process begins to lead and when it ends to."""
        self._api = api
        self._namespace = namespace
        self._name = name
        self.identity = identity if identity is not None else new_identity()
        self._times = times if times is not None else ElectionTimes()
        self._clock = clock
        self._on_change = on_change
        self._seen: LeaseRecord | None = None
        self._over = False
        self._leads_until: float | None = None
        self._told = ""

    @property
    def is_leading(self) -> bool:
        """Whether this process may act at this very moment. Ask again after every await."""
        return not self._over and self._leads_until is not None and self._clock() < self._leads_until

    @contextlib.asynccontextmanager
    async def leading(self) -> AsyncIterator[asyncio.Event]:
        """Wait until this process leads; then the body runs, and the event that it gets is set when the lead is lost.
        A lost lead does not come back: end the process. Raises RuntimeError where this election is over already.

        The Lease is given back when the body ends, so whatever acts must have ended by then.
        """
        if self._over:
            raise RuntimeError("this election is over; a process that led does not lead again")
        await self._acquire()
        lost = asyncio.Event()
        log.info("leads by the Lease %s", self._lease)
        self._tell(True)
        renewing = asyncio.create_task(self._renew(lost), name="renew-lease")
        guarding = asyncio.create_task(self._guard(lost), name="guard-lease")
        try:
            yield lost
        finally:
            held = self.is_leading
            self._over = True
            for task in (renewing, guarding):
                task.cancel()
            # Not gathered: a request that does not let itself be cancelled must not hold up the end.
            await asyncio.wait((renewing, guarding), timeout=self._times.retry)
            if held and renewing.done():
                await self._release()
            if not lost.is_set():
                self._tell(False)

    async def _acquire(self) -> None:
        log.info("%s waits for the Lease %s", self.identity, self._lease)
        while not await self._try():  # noqa: ASYNC110 - nobody tells when a Lease becomes free
            # Spread, so that those who wait do not all come at the same time.
            await asyncio.sleep(self._times.retry * random.uniform(1.0, 1.2))

    async def _renew(self, lost: asyncio.Event) -> None:
        while not lost.is_set():
            await asyncio.sleep(self._times.retry)
            if not await self._try() and self._taken_by_another:
                assert self._seen is not None
                self._lose(lost, f"{self._seen.holder or 'nobody'} holds it")

    async def _guard(self, lost: asyncio.Event) -> None:
        """Set the event when the time is up, whatever becomes of the requests."""
        while not lost.is_set():
            left = (self._leads_until or 0.0) - self._clock()
            if left <= 0:
                self._lose(lost, f"it could not be renewed for {self._times.renew_deadline:g} s")
                return
            await asyncio.sleep(left)

    def _lose(self, lost: asyncio.Event, why: str) -> None:
        if not lost.is_set():
            log.error("%s leads no more by the Lease %s: %s", self.identity, self._lease, why)
            self._over = True
            lost.set()
            self._tell(False)

    async def _try(self) -> bool:
        """Try once to get or to renew the Lease. Whatever goes wrong with the request means no."""
        try:
            async with asyncio.timeout(self._times.request):
                return await self._get_or_renew()
        except _NO_ANSWER as error:
            self._trouble(_explain(error))
            return False

    async def _get_or_renew(self) -> bool:
        try:
            lease = await self._api.read_lease(self._namespace, self._name)
        except NotFoundError:
            # Somebody deleted it; who held it does not know that yet.
            return False if self._must_wait_for(self._seen) else await self._write(None)
        seen = self._look(lease)
        return False if self._must_wait_for(seen) else await self._write(seen)

    def _must_wait_for(self, seen: LeaseRecord | None) -> bool:
        if seen is None or seen.holder in ("", self.identity):
            return False
        self._say(f"the Lease {self._lease} is held by {seen.holder}")
        # The holder's own word counts where it is longer: it may be of another version.
        free_at = seen.seen_at + max(self._times.lease, seen.duration)
        return self._leads_until is not None or self._clock() < free_at

    async def _write(self, seen: LeaseRecord | None) -> bool:
        sent = self._clock()
        if self._has_lost(sent):
            return False
        body = claim(self._name, self._namespace, self.identity, self._times.lease, seen)
        try:
            if seen is None:
                lease = await self._api.create_lease(self._namespace, body)
            else:
                lease = await self._api.replace_lease(self._namespace, self._name, body)
        except (NotFoundError, ConflictError):
            return False  # Somebody was faster; the next try looks again.
        self._look(lease)
        if self._has_lost(self._clock()):
            return False
        self._leads_until = sent + self._times.renew_deadline
        self._told = ""
        return True

    def _has_lost(self, now: float) -> bool:
        # A lost lead does not come back, though the request may have been granted. The guard says it, or is about to.
        return self._over or (self._leads_until is not None and now >= self._leads_until)

    def _look(self, lease: Any) -> LeaseRecord:
        record = parse_lease(lease, self._clock())
        if self._seen is None or self._seen.version != record.version:
            self._seen = record
        return self._seen

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(self._times.request):
                # Looked at again: a renewal that was under way may have come through.
                seen = self._look(await self._api.read_lease(self._namespace, self._name))
                if seen.holder != self.identity:
                    return
                await self._api.replace_lease(self._namespace, self._name, release(self._name, self._namespace, seen))
        except _NO_ANSWER as error:
            log.warning("the Lease %s was not given back and runs out by itself: %s", self._lease, _explain(error))
        else:
            log.info("gave back the Lease %s", self._lease)

    @property
    def _taken_by_another(self) -> bool:
        return self._seen is not None and self._seen.holder != self.identity

    @property
    def _lease(self) -> str:
        return f"{self._namespace}/{self._name}"

    def _trouble(self, what: str) -> None:
        if self._leads_until is not None:
            log.warning("the Lease %s was not renewed: %s", self._lease, what)
        else:
            self._say(f"the Lease {self._lease} cannot be had: {what}")

    def _say(self, what: str) -> None:
        if what != self._told:
            self._told = what
            log.info("%s", what)

    def _tell(self, leads: bool) -> None:
        if self._on_change is not None:
            self._on_change(leads)


def _explain(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the API server did not answer in time"
    if isinstance(error, ForbiddenError):
        return f"{error}; the service account needs the verbs get, create and update on it"
    return str(error)
