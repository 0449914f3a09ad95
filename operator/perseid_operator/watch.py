"""Looks at all runs of all EvolutionRuns at once: one list of KFP for a hundred of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from perseid_operator.kfp import KfpClient, KfpError, KfpRun

log = logging.getLogger(__name__)

OUTAGE_SECONDS = 30.0
"""How long KFP must fail to answer before every run tells of it. One slow list of a thousand runs is no outage, and a
thousand status writes would not make it faster."""
GATHER_SECONDS = 0.05
"""How long a question waits for others to be asked with it."""


@dataclass(frozen=True, slots=True)
class Look:
    """What KFP last said of a run."""

    run: KfpRun | None
    """None where it says that there is none."""
    at: float
    """When it was asked, on the watch's clock."""


class RunWatch:
    """Keeps the newest look at every run that somebody follows, and wakes them when it changes."""

    def __init__(
        self,
        kfp: KfpClient,
        wake: Callable[[str], None],
        on_round: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], float],
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        """`wake(key)` is called for whoever follows a run that has changed; `on_round` after every round; `clock`:
        seconds that only grow."""
        self._clock = clock
        self._gather_seconds = gather_seconds
        self._kfp = kfp
        self._wake = wake
        self._on_round = on_round
        self._looks: dict[str, Look] = {}
        self._followers: dict[str, set[str]] = {}
        self._followed: dict[str, frozenset[str]] = {}
        self._asked: dict[str, asyncio.Future[Look]] = {}
        self._asking: asyncio.Task[None] | None = None
        self.outage: KfpError | None = None
        """Why KFP has not been answering for a while; None where it answers, or has only just failed to."""
        self._failing_since: float | None = None

    def follow(self, key: str, run_ids: Iterable[str]) -> None:
        """`key` wants to know of these runs from now on, and of no others."""
        wanted = frozenset(run_ids)
        for run_id in self._followed.get(key, frozenset()) - wanted:
            followers = self._followers[run_id]
            followers.discard(key)
            if not followers:
                del self._followers[run_id]
                self._looks.pop(run_id, None)
        for run_id in wanted:
            self._followers.setdefault(run_id, set()).add(key)
        if wanted:
            self._followed[key] = wanted
        else:
            self._followed.pop(key, None)

    def note(self, run: KfpRun, run_id: str) -> None:
        """A run that somebody has just seen."""
        self._looks[run_id] = Look(run, self._clock())

    def last(self, run_id: str) -> Look | None:
        """The newest look."""
        return self._looks.get(run_id)

    async def look(self, run_ids: Iterable[str], since: float) -> dict[str, Look]:
        """Looks that are not older than `since` (the watch's clock), asked for with others' where there is none.

        Raises KfpErrors.
        """
        found: dict[str, Look] = {}
        waiting: list[asyncio.Future[Look]] = []
        names: list[str] = []
        for run_id in run_ids:
            look = self._looks.get(run_id)
            if look is not None and look.at >= since:
                found[run_id] = look
            else:
                names.append(run_id)
                waiting.append(self._ask(run_id))
        # Not gather: one that fails must not leave the others' failures unread.
        results = await asyncio.gather(*waiting, return_exceptions=True)
        for run_id, result in zip(names, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            found[run_id] = result
        return found

    async def round(self) -> None:
        """Ask for everything that is followed, and wake whoever follows something that has changed.

        After a failure everybody is woken once, and once more when KFP answers again.
        """
        wanted = sorted(self._followers)
        try:
            if wanted:
                changed = await self._list(wanted)
            else:
                changed = set()
                await self._kfp.check()
        except KfpError as error:
            self._note_answer(error)
            return
        finally:
            self._on_round()
        self._note_answer(None)
        for key in {key for run_id in changed for key in self._followers.get(run_id, ())}:
            self._wake(key)

    def _note_answer(self, failure: KfpError | None) -> None:
        """KFP has answered, or has not. Everybody hears of the begin and the end of an outage."""
        if failure is None:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = self._clock()
            log.warning("KFP cannot be asked: %s", failure)
        lasting = self._failing_since is not None and self._clock() - self._failing_since >= OUTAGE_SECONDS
        changed = lasting != (self.outage is not None)
        self.outage = failure if lasting else None
        if not changed:
            return
        if lasting:
            log.error("KFP has not answered for %.0f s: %s", OUTAGE_SECONDS, failure)
        else:
            log.info("KFP answers again")
        for key in list(self._followed):
            self._wake(key)

    def _ask(self, run_id: str) -> asyncio.Future[Look]:
        future = self._asked.get(run_id)
        if future is None:
            future = self._asked[run_id] = asyncio.get_running_loop().create_future()
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._answer())
        return asyncio.ensure_future(_shielded(future))

    async def _answer(self) -> None:
        while self._asked:
            await asyncio.sleep(self._gather_seconds)
            asked, self._asked = self._asked, {}
            try:
                await self._list(sorted(asked))
                self._note_answer(None)
            except Exception as error:  # noqa: BLE001  # whoever asked gets it, whatever it is
                if isinstance(error, KfpError):
                    self._note_answer(error)
                for future in asked.values():
                    if not future.done():
                        future.set_exception(error)
                        future.exception()  # they who asked may be gone
                continue
            for run_id, future in asked.items():
                if not future.done():
                    future.set_result(self._looks[run_id])

    async def _list(self, run_ids: list[str]) -> set[str]:
        """Ask, and keep the answers. A list that lacks a run is no proof: KFP is asked for it by itself."""
        began = self._clock()
        found: dict[str, KfpRun | None] = dict(await self._kfp.list_runs(run_ids))
        for run_id in run_ids:
            if run_id not in found:
                known = self._looks.get(run_id)
                # One that was not there a moment ago, and is in no list, is still not there.
                found[run_id] = None if known is not None and known.run is None else await self._kfp.get_run(run_id)
        changed: set[str] = set()
        for run_id, run in found.items():
            known = self._looks.get(run_id)
            if known is not None and known.at > began:
                continue  # somebody has seen it since, maybe because he has just made it
            if known is None or known.run != run:
                changed.add(run_id)
            self._looks[run_id] = Look(run, began)
        return changed


async def _shielded(future: Awaitable[Look]) -> Look:
    """One of several that wait for the same answer: its cancellation is not the others'."""
    return await asyncio.shield(future)
