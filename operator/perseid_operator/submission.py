"""The way from an intent to exactly one pipeline run, whatever dies or times out on it.

KFP takes our run id, but a second POST of it starts the run a second time, and a POST that failed may still execute
(it makes the Workflow first, and its row after). So a POST is sent only where it is certain that none is on its way:

1. The intent stands in the status with its time, written with the object's version as a condition. Whoever wrote it
   just now is the only one who can have sent anything, and has not yet. He sends within `SUBMIT_SECONDS` of that time,
   or writes it anew first.
2. KFP says 404 for the id, and no Workflow carries it. What it said before the end of a grace time says nothing.
3. Whoever finds an intent that he did not write himself (after a restart), or got no clear answer to his own POST,
   waits out a grace time from the last moment at which it can have been sent, in which KFP finishes what it had begun:
   the run shows, or it never will. That moment stands in the status, so a process that dies again and again waits no
   longer than one that lives. Clocks of several operators must agree to some seconds.

A Workflow without a run (KFP died between the two) is deleted where that is allowed, else waited for: KFP collects it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from perseid.decide import SUBMIT_SECONDS
from perseid_operator.kube.protocol import ForbiddenError, Kube, NotFoundError, Object

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Grace:
    """How long nobody knows, in seconds."""

    without_workflows: float = 600.0
    """Where Workflows cannot be seen: longer than KFP's own collection of Workflows without a run was seen to take."""
    with_workflows: float = 60.0
    """Where they can be: a creation under way shows as a Workflow first."""


class Workflows:
    """Looks at Argo's Workflows, where the operator may; finds out once whether it may."""

    def __init__(self, kube: Kube, *, allowed: bool | None) -> None:
        """`allowed`: None to find out."""
        self._kube = kube
        self._allowed = allowed

    @property
    def visible(self) -> bool:
        """Whether Workflows can be seen, as far as is known."""
        return self._allowed is not False

    async def of(self, run_id: str) -> list[Object] | None:
        """The run's Workflows; None where they cannot be seen. Raises UnavailableError."""
        if self._allowed is False:
            return None
        try:
            found = await self._kube.workflows(run_id)
        except (ForbiddenError, NotFoundError) as error:
            if self._allowed is None:
                log.info("Argo Workflows are out of sight, which makes doubtful submissions wait longer: %s", error)
            self._allowed = False
            return None
        self._allowed = True
        return found

    async def remove(self, workflow: Object) -> bool:
        """Delete a Workflow; False where that is not allowed."""
        try:
            await self._kube.delete_workflow(workflow)
        except ForbiddenError as error:
            log.warning("a Workflow without a run is left to KFP's own collection: %s", error)
            return False
        return True


class Doubts:
    """Since when which submission is in doubt, in this process."""

    def __init__(self, grace: Grace, workflows: Workflows, now: Callable[[], datetime]) -> None:
        self._grace = grace
        self._workflows = workflows
        self._now = now
        self._since: dict[str, datetime] = {}
        self._own: set[str] = set()
        self._seen: set[str] = set()

    def intended(self, run_id: str) -> None:
        """This process has just written the intent: nobody can have sent anything."""
        self._since.pop(run_id, None)
        self._own.add(run_id)

    def sending(self, run_id: str) -> None:
        """From now on something may be on its way, until `rejected` or `seen` says otherwise."""
        self._own.discard(run_id)
        self._since[run_id] = self._now()

    def rejected(self, run_id: str) -> None:
        """KFP refused it before it did anything: it may be sent again."""
        self._since.pop(run_id, None)
        self._own.add(run_id)

    def seen(self, run_id: str) -> None:
        """The run is there. Should KFP deny it later, it was deleted."""
        self._since.pop(run_id, None)
        self._own.discard(run_id)
        self._seen.add(run_id)

    def forget(self, run_id: str) -> None:
        """Nobody cares any more."""
        self._since.pop(run_id, None)
        self._own.discard(run_id)
        self._seen.discard(run_id)

    def in_doubt(self, run_id: str) -> bool:
        """Whether this process has sent something that may be on its way."""
        return run_id in self._since

    def settled(self, run_id: str) -> bool:
        """Whether this process knows for certain how it stands with the run: not sent, or seen."""
        return run_id in self._own or run_id in self._seen

    def was_seen(self, run_id: str) -> bool:
        """Whether this process has seen the run."""
        return run_id in self._seen

    async def certainly_absent(self, run_id: str, intended_at: datetime, asked_at: datetime) -> bool:
        """Whether a run of which KFP says 404 will not come to exist by itself. Raises UnavailableError.

        `intended_at`: the time of its intent, as the status tells it; `asked_at`: when KFP was asked.
        """
        if self.settled(run_id):
            return True
        since = self._since.setdefault(run_id, intended_at + timedelta(seconds=SUBMIT_SECONDS))
        workflows = await self._workflows.of(run_id)
        waited = (asked_at - since).total_seconds()
        if workflows is None:
            return waited >= self._grace.without_workflows
        if waited < self._grace.with_workflows:
            return False
        for workflow in workflows:
            log.warning("Workflow %s has run id %s, and KFP has no such run", workflow["metadata"]["name"], run_id)
            await self._workflows.remove(workflow)
        # Once more the whole grace after the last sign of life: deleting takes a while.
        if workflows:
            self._since[run_id] = self._now()
        return not workflows
