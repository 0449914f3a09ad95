"""One object's way through the world: observe, decide, write the status, act; again when something changes.

No Kopf in here: whoever watches Kubernetes hands in objects and is told when to come again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from perseid.api.base import replace, whole_seconds_utc
from perseid.api.names import history_config_map
from perseid.api.reasons import ConditionType, Reason
from perseid.api.status import Condition, EvolutionRunStatus, GenerationStatus
from perseid.decide import DeleteObject, Observed, PipelineState, Plan, Submit, Terminate, clean_up, decide
from perseid.decide.lifecycle import fail
from perseid_operator.actions import Actions
from perseid_operator.kfp import RunRejectedError
from perseid_operator.kube.protocol import ConflictError, InvalidError, Kube, NotFoundError, Object
from perseid_operator.objects import RunObject, is_ours, read_object, read_status, status_to_json
from perseid_operator.observer import Observer
from perseid_operator.snapshots import SnapshotError, Snapshots
from perseid_operator.submission import Doubts

log = logging.getLogger(__name__)

Tell = Callable[[RunObject, EvolutionRunStatus, EvolutionRunStatus, Observed], None]
"""Told of every status that was written: the object, the status before and after, and what it was decided on."""
Announce = Callable[[Object, Condition], None]
"""Told of every condition that has changed its status or reason."""
STOPPING_SECONDS = 5.0
"""Between two looks at a run that is being stopped."""


@dataclass(slots=True)
class Memory:
    """What a pass leaves for the next one of the same object. Losing it costs time, never correctness."""

    acted_at: float = float("-inf")
    """When this process last did something outside (the loop's clock): older looks say nothing of it."""
    progress_at: float = float("-inf")
    """When progress was last written."""
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
        memory = self.memory(obj.uid)
        observed = await self._observer.observe(obj, status, await self._pipeline(obj, status), memory.acted_at)
        plan = decide(obj.run.spec, status, observed, self._now())
        written, wait = await self._write(obj, status, plan)
        if written is not raw:
            self._tell(obj, status, plan.status, observed)
        if isinstance(plan.action, DeleteObject):
            await self._kube.delete_run(written)
            return written, None, "acted"
        again = await self._act(read_object(written), plan)
        if again is None:
            again = _earlier(plan.requeue_after, wait)
        result = "acted" if plan.action is not None else "unchanged" if written is raw else "written"
        return written, again, result

    async def _pipeline(self, obj: RunObject, status: EvolutionRunStatus) -> PipelineState:
        if status.snapshot is not None or status.phase.is_terminal:
            return PipelineState(snapshot=status.snapshot)
        return await self._snapshots.take(obj.raw, obj.run.spec.pipeline)

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
            if before is None or (before.status, before.reason) != (condition.status, condition.reason):
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
                try:
                    await self._actions.submit(obj, plan.status, submit)
                except (RunRejectedError, SnapshotError, InvalidError) as error:
                    await self._fail(obj, plan.status, str(error))
                finally:
                    memory.acted_at = self._clock() if self._doubts_left(submit) else memory.acted_at
                return 0.0 if not self._doubts_left(submit) else STOPPING_SECONDS
            case Terminate(run_id):
                await self._actions.terminate(run_id)
                memory.acted_at = self._clock()
                return STOPPING_SECONDS
        return None

    def _doubts_left(self, submit: Submit) -> bool:
        return self._doubts.in_doubt(submit.run_id)

    async def _fail(self, obj: RunObject, status: EvolutionRunStatus, why: str) -> None:
        """KFP refuses the run for what is in it: no other attempt would fare better."""
        now = whole_seconds_utc(self._now())
        failed = fail(replace(status, current=None), Reason.PIPELINE_INVALID, why, now)
        written = await self._kube.write_status(obj.raw, status_to_json(failed))
        condition = failed.condition(ConditionType.FAILED)
        assert condition is not None
        self._announce(written, condition)

    async def clean_up(self, raw: Object) -> float | None:
        """One pass over an object that is being deleted: None when nothing of it is left, else when to come again."""
        async with self.memory(raw["metadata"]["uid"]).lock:
            obj, status = read_object(raw), read_status(raw)
            if not is_ours(raw):
                return None
            memory = self.memory(obj.uid)
            observed = await self._observer.observe(obj, status, PipelineState(), memory.acted_at)
            plan = clean_up(obj.run.spec, status, observed)
            if plan.action is None and plan.requeue_after is None:
                self.forget(obj, status)
                return None
            if isinstance(plan.action, Terminate):
                await self._actions.terminate(plan.action.run_id)
                memory.acted_at = self._clock()
                return STOPPING_SECONDS
            return plan.requeue_after

    def forget(self, obj: RunObject, status: EvolutionRunStatus) -> None:
        """The object is gone, or done with."""
        self._observer.forget(obj, status)
        self._actions.forget(obj)
        self._memories.pop(obj.uid, None)


def _intent(status: EvolutionRunStatus) -> tuple[str, datetime] | None:
    return None if status.current is None else (status.current.run_id, status.current.intent_time)


def without_progress(status: EvolutionRunStatus) -> EvolutionRunStatus:
    """The status without what only says how far things are."""
    current = status.current
    if current is not None:
        current = replace(current, stages={}, gpu_seconds=0.0)
    return replace(status, current=current, columns=replace(status.columns, gpu_hours=""))


def _earlier(*seconds: float | None) -> float | None:
    known = [one for one in seconds if one is not None]
    return min(known) if known else None
