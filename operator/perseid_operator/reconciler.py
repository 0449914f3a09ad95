"""One object's way through the world: observe, decide, write the status, act; again when something changes.

No Kopf in here: whoever watches Kubernetes hands in objects and is told when to come again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from perseid.api.base import replace
from perseid.api.names import history_config_map
from perseid.api.reasons import AttemptState, ConditionStatus, ConditionType, Reason
from perseid.api.status import Condition, EvolutionRunStatus, GenerationStatus
from perseid.decide import DeleteObject, Observed, PipelineState, Plan, Submit, Terminate, clean_up, decide
from perseid_operator.actions import Actions
from perseid_operator.kfp import RunRejectedError
from perseid_operator.kube.protocol import ConflictError, InvalidError, Kube, NotFoundError, Object
from perseid_operator.objects import (
    RunObject,
    is_ours,
    leaves_files,
    needs_work,
    read_object,
    read_status,
    status_to_json,
)
from perseid_operator.observer import Observer
from perseid_operator.snapshots import SnapshotError, Snapshots
from perseid_operator.submission import Doubts

log = logging.getLogger(__name__)

Tell = Callable[[RunObject, EvolutionRunStatus, EvolutionRunStatus, Observed], None]
"""Told of every status that was written: the object, the status before and after, and what it was decided on."""
Announce = Callable[[Object, Condition], None]
"""Told of every condition that has changed its status or reason."""
TURN_SECONDS = 2.0
"""How long a submission waits for its turn before its run tells of it."""
STOPPING_SECONDS = 5.0
"""Between two looks at a run that is being stopped."""


@dataclass(slots=True)
class Memory:
    """What a pass leaves for the next one of the same object. Losing it costs time, never correctness."""

    acted_at: float = float("-inf")
    """When this process last did something outside (the loop's clock): older looks say nothing of it."""
    progress_at: float = float("-inf")
    """When progress was last written."""
    rejected: str | None = None
    """Why nobody can submit the run's pipeline, where that has turned out."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Following and cleaning up must not overlap."""


class Reconciler:
    """Carries EvolutionRuns through, a pass at a time."""

    def __init__(
        self,
        kube: Kube,
        observer: Observer,
        actions: Actions,
        snapshots: Snapshots,
        doubts: Doubts,
        *,
        progress_seconds: float,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        announce: Announce = lambda obj, condition: None,
        tell: Tell = lambda obj, old, new, observed: None,
        on_pass: Callable[[str, float], None] = lambda result, seconds: None,
    ) -> None:
        """`progress_seconds`: least time between two writes that only tell progress."""
        self._kube = kube
        self._observer = observer
        self._actions = actions
        self._snapshots = snapshots
        self._doubts = doubts
        self._progress_seconds = progress_seconds
        self._now = now
        self._clock = clock
        self._announce = announce
        self._tell = tell
        self._on_pass = on_pass
        self._memories: dict[str, Memory] = {}

    def now(self) -> datetime:
        """The time, as decisions take it."""
        return self._now()

    def memory(self, uid: str) -> Memory:
        """What is remembered of an object."""
        return self._memories.setdefault(uid, Memory())

    async def reconcile(self, raw: Object) -> tuple[Object, float | None]:
        """One pass. Returns the newest version of the object and the seconds after which to come again (None: only
        when something changes).

        Raises ConflictError where the object has changed, NotFoundError where it is gone, BadObjectError, and other
        KubeErrors and KfpErrors where something did not work: come again later.
        """
        began, result = time.perf_counter(), "failed"
        try:
            async with self.memory(raw["metadata"]["uid"]).lock:
                newest, again, result = await self._reconcile(raw)
            return newest, again
        except ConflictError:
            result = "conflict"
            raise
        finally:
            self._on_pass(result, time.perf_counter() - began)

    async def _reconcile(self, raw: Object) -> tuple[Object, float | None, str]:
        """The newest version, when to come again, and what was done, in a word for the metrics."""
        obj = read_object(raw)
        status = read_status(raw)
        if not is_ours(raw) or obj.deleting:
            return raw, None, "unchanged"
        memory, queues = self.memory(obj.uid), False
        try:
            observed = await self._observer.observe(obj, status, await self._pipeline(obj, status), memory.acted_at)
            plan = decide(obj.run.spec, status, observed, self._now())
            if isinstance(plan.action, Submit):
                queues = not await self._actions.turns.take(obj.uid, TURN_SECONDS)
                observed = dataclasses.replace(observed, may_submit=not queues)
                plan = decide(obj.run.spec, status, observed, self._now())  # it may have taken a while
            return await self._carry_out(obj, status, observed, plan)
        finally:
            # Whoever fails, or wants to submit no more, must not stand in the way of those behind.
            if not queues:
                self._actions.turns.give_back(obj.uid)

    async def _carry_out(
        self, obj: RunObject, status: EvolutionRunStatus, observed: Observed, plan: Plan
    ) -> tuple[Object, float | None, str]:
        """Write, then act."""
        written, wait = await self._write(obj, status, plan)
        if written is not obj.raw:
            self._tell(obj, status, plan.status, observed)
        if isinstance(plan.action, DeleteObject):
            await self._kube.delete_run(written)
            return written, None, "acted"
        again = await self._act(dataclasses.replace(obj, raw=written), plan)
        if again is None:
            again = _earlier(plan.requeue_after, wait)
        result = "acted" if plan.action is not None else "unchanged" if written is obj.raw else "written"
        return written, again, result

    async def _pipeline(self, obj: RunObject, status: EvolutionRunStatus) -> PipelineState:
        if status.snapshot is not None or status.phase.is_terminal:
            return PipelineState(snapshot=status.snapshot, error=self.memory(obj.uid).rejected)
        return await self._snapshots.take(obj.raw, obj.run.spec.template)

    async def _write(self, obj: RunObject, old: EvolutionRunStatus, plan: Plan) -> tuple[Object, float | None]:
        """Write what has changed; returns the object as it is then, and when to come again for what was put off."""
        status = plan.status
        if status == old:
            return obj.raw, None
        memory = self.memory(obj.uid)
        left = memory.progress_at + self._progress_seconds - self._clock()
        if plan.action is None and left > 0 and without_progress(status) == without_progress(old):
            return obj.raw, left
        for generation in plan.evicted:
            await self._keep(obj, generation)
        written = await self._kube.write_status(obj.raw, status_to_json(status))
        memory.progress_at = self._clock()
        if status.current is not None and _intent(status) != _intent(old):
            self._doubts.intended(status.current.run_id)
        for condition in status.conditions:
            before = old.condition(condition.type)
            if is_news(before, condition):
                self._announce(written, condition)
        return written, None

    async def _keep(self, obj: RunObject, generation: GenerationStatus) -> None:
        """Add a generation to the history. Doing it twice is doing it once."""
        name = history_config_map(obj.name, obj.uid, generation.index)
        text = json.dumps(generation.model_dump(mode="json", by_alias=True, exclude_none=True), separators=(",", ":"))
        data = {f"generation-{generation.index:05d}.json": text}
        try:
            await self._kube.add_to_config_map(obj.namespace, name, data)
        except NotFoundError:
            try:
                await self._kube.create_config_map(obj.raw, name, data, immutable=False)
            except ConflictError:
                await self._kube.add_to_config_map(obj.namespace, name, data)

    async def _act(self, obj: RunObject, plan: Plan) -> float | None:
        """Carry out the action; returns when to come again, None where the action has no say in it."""
        memory = self.memory(obj.uid)
        match plan.action:
            case Submit() as submit:
                memory.acted_at = self._clock()
                try:
                    await self._actions.submit(obj, plan.status, submit)
                except (RunRejectedError, SnapshotError, InvalidError) as error:
                    memory.rejected = str(error)  # it would be another time: the next pass decides on that
                return STOPPING_SECONDS if self._doubts.in_doubt(submit.run_id) else 0.0
            case Terminate(run_id):
                await self._actions.terminate(run_id)
                memory.acted_at = self._clock()
                return STOPPING_SECONDS
        return None

    async def clean_up(self, raw: Object) -> float | None:
        """One pass over an object that is being deleted: None when nothing of it is left, else when to come again."""
        async with self.memory(raw["metadata"]["uid"]).lock:
            obj, status = read_object(raw), read_status(raw)
            if not is_ours(raw):
                return None
            # Of a run that has ended nothing is alive: whether KFP answers does not matter.
            if needs_work(raw) and not await self._is_stopped(obj, status):
                return STOPPING_SECONDS
            if leaves_files(raw):
                await self._actions.reclaim(obj)
            self.forget(obj, status)
            return None

    async def _is_stopped(self, obj: RunObject, status: EvolutionRunStatus) -> bool:
        """Whether no pipeline run of it is alive; stops the next one that is."""
        memory = self.memory(obj.uid)
        observed = await self._observer.observe(obj, status, PipelineState(), memory.acted_at)
        left = clean_up(obj.run.spec, status, observed)
        if left.stop is not None:
            await self._actions.terminate(left.stop.run_id)
            memory.acted_at = self._clock()
        return left.done

    def forget(self, obj: RunObject, status: EvolutionRunStatus) -> None:
        """The object is gone, or done with."""
        self._observer.forget(obj, status)
        self._actions.forget(obj)
        self._memories.pop(obj.uid, None)


def _intent(status: EvolutionRunStatus) -> tuple[str, datetime] | None:
    return None if status.current is None else (status.current.run_id, status.current.intent_time)


def without_progress(status: EvolutionRunStatus) -> EvolutionRunStatus:
    """The status without what only says how far things are.

    That a run is there, and has no pod yet, is such a thing: most get one before it would be told.
    """
    current = status.current
    if current is None:
        return status
    newest = status.generations[-1]
    last = newest.attempts[-1]
    begins = last.state in (AttemptState.SUBMITTING, AttemptState.PENDING)
    conditions = [
        replace(one, message="") if one.type is ConditionType.PROGRESSING else one
        for one in status.conditions
        if not (begins and one.type is ConditionType.PROGRESSING)
    ]
    last = replace(last, state=AttemptState.PENDING if begins else last.state, reason=None, message="")
    newest = replace(newest, attempts=[*newest.attempts[:-1], last])
    return replace(
        status,
        current=replace(current, url=None, stages={}, changed_at=None, gpu_seconds=0.0, gpu_seconds_waited=0.0),
        conditions=conditions,
        generations=[*status.generations[:-1], newest],
        columns=replace(status.columns, gpu_hours="", reason="", link=""),
    )


def is_news(before: Condition | None, now: Condition) -> bool:
    """Whether a condition is worth an Event. That nothing is wrong, where nothing was, is not; what is being submitted
    is told of when it has been; and how it has ended another condition says."""
    if before is None and now.type in (ConditionType.ACCEPTED, ConditionType.BACKEND_READY):
        return now.status is not ConditionStatus.TRUE
    if now.reason in (Reason.SUBMITTING, Reason.FINISHED):
        return False
    return before is None or (before.status, before.reason) != (now.status, now.reason)


def _earlier(*seconds: float | None) -> float | None:
    known = [one for one in seconds if one is not None]
    return min(known) if known else None
