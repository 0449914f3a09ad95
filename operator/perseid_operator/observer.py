"""Gathers what `decide` is shown about one EvolutionRun."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from perseid.api.names import storage_root
from perseid.api.reasons import AttemptState, Phase, Reason, StageState
from perseid.api.result import GenerationResult, ModelRef
from perseid.api.stages import STAGES
from perseid.api.status import AttemptStatus, EvolutionRunStatus, Intent
from perseid.decide import Observed, ObservedRun, PipelineState, RunState, StartModel
from perseid_operator import causes, sight
from perseid_operator.kfp import KfpError, KfpRateLimitedError, KfpRun, KfpUnauthorizedError
from perseid_operator.kube.protocol import Kube, NotFoundError, Object
from perseid_operator.objects import RunObject, read_status
from perseid_operator.results import ResultReader, StorageError
from perseid_operator.submission import Doubts, Workflows
from perseid_operator.train_jobs import TrainJobs
from perseid_operator.watch import Look, RunWatch

log = logging.getLogger(__name__)


class Observer:
    """Asks KFP, the storage and, where it may, Argo and Kubeflow Trainer."""

    def __init__(
        self,
        kube: Kube,
        watch: RunWatch,
        results: ResultReader,
        workflows: Workflows,
        doubts: Doubts,
        *,
        storage: str,
        link: Callable[[str], str | None],
        lost_seconds: float,
        now: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        """`storage`: root for runs whose spec names none; `link`: a run's page in the UI; `lost_seconds`: how long a
        run may be RUNNING for KFP without a Workflow."""
        self._kube = kube
        self._watch = watch
        self._results = results
        self._workflows = workflows
        self._train_jobs = TrainJobs(kube)
        self._doubts = doubts
        self._storage = storage
        self._link = link
        self._lost_seconds = lost_seconds
        self._now = now
        self._clock = clock
        self._stale_since: dict[str, float] = {}

    async def observe(
        self, obj: RunObject, status: EvolutionRunStatus, pipeline: PipelineState, since: float
    ) -> Observed:
        """What is there, not older than `since` (the loop's clock). An outage is part of the answer, never an error."""
        ids = run_ids(status)
        self._watch.follow(obj.uid, ids)
        start_model = await self._start_model(obj, status)
        seen = Observed(
            spec_generation=obj.generation,
            pipeline=pipeline,
            start_model=start_model,
            approved_generation=obj.run.metadata.approved_generation,
        )
        if self._watch.outage is not None:
            # Older looks would say that all is well. The watch asks again, and wakes everybody when it is answered.
            return _outage(seen, self._watch.outage)
        try:
            looks = await self._watch.look(ids, since)
            # What was said before says little about a submission in doubt.
            looks |= await self._watch.look(self._doubtful(status), self._clock())
            runs = {run_id: await self._run(obj, status, run_id, look) for run_id, look in looks.items()}
        except KfpError as error:
            return _outage(seen, error)
        except StorageError as error:
            return dataclasses.replace(seen, backend_reachable=False, backend_message=str(error))
        return dataclasses.replace(seen, runs=runs)

    def _doubtful(self, status: EvolutionRunStatus) -> list[str]:
        states = {one.run_id: one.state for one in _attempts(status)}
        open_ones = [run_id for run_id in run_ids(status) if states.get(run_id) is AttemptState.SUBMITTING]
        return [run_id for run_id in open_ones if not self._doubts.settled(run_id)]

    def forget(self, obj: RunObject, status: EvolutionRunStatus) -> None:
        """The object is gone, or done with."""
        self._watch.follow(obj.uid, ())
        for run_id in run_ids(status):
            self._doubts.forget(run_id)
            self._stale_since.pop(run_id, None)

    async def _run(self, obj: RunObject, status: EvolutionRunStatus, run_id: str, look: Look) -> ObservedRun:
        run = look.run
        if run is None:
            return await self._absent(status, run_id, asked_at=self._now() - timedelta(seconds=self._clock() - look.at))
        self._doubts.seen(run_id)
        seen = sight.observed(run, obj.run.spec.pipeline, self._link(run_id), self._now())
        if status.current is None or run_id != status.current.run_id:
            return seen
        root = storage_root(obj.run.spec.storage.uri, self._storage, obj.namespace, obj.name, obj.uid)
        current = status.current
        if seen.state.is_live:
            workflows = await self._workflows.of(run.run_id)
            if self._is_stale(run, workflows):
                return await self._without_kfp(obj, run, seen, workflows or [], root, current)
            pipeline = obj.run.spec.pipeline
            train_jobs = await self._train_jobs.of(run.run_id, seen, pipeline)
            seen = _with_waiting(seen, sight.waiting(workflows or [], pipeline, train_jobs, self._now()))
            idle = sight.gpus_waiting(seen.stages, workflows or [], pipeline, train_jobs)
            return dataclasses.replace(seen, gpus_waiting=idle)
        self._stale_since.pop(run_id, None)
        if seen.state is RunState.SUCCEEDED:
            result = await self._results.generation(root, current.generation, current.attempt)
            if isinstance(result, str):
                return dataclasses.replace(seen, result_error=result)
            return dataclasses.replace(seen, result=result)
        return await self._failed(obj, run, seen, root, current)

    async def _absent(self, status: EvolutionRunStatus, run_id: str, asked_at: datetime) -> ObservedRun:
        """KFP says 404. That is the end of a run that was seen; of one that never was, it may only not be there yet."""
        attempt = next((one for one in _attempts(status) if one.run_id == run_id), None)
        never_seen = attempt is None or attempt.state is AttemptState.SUBMITTING or run_id in status.stopping
        # Of an attempt that the status does not tell of any more nothing is known: as if it had been sent just now.
        intended_at = self._now() if attempt is None else attempt.submitted_at
        if never_seen and not await self._doubts.certainly_absent(run_id, intended_at, asked_at):
            return ObservedRun(RunState.UNKNOWN)
        if attempt is not None and attempt.state is AttemptState.SUBMITTING and self._doubts.was_seen(run_id):
            # The status does not say yet that it was there. It is not to be submitted a second time.
            return ObservedRun(RunState.FAILED, reason=Reason.RUN_LOST, error="the backend has lost the run")
        return ObservedRun(RunState.MISSING)

    def _is_stale(self, run: KfpRun, workflows: list[Object] | None) -> bool:
        """Whether KFP calls a run alive that Argo has long been done with: for ever where its Workflow was deleted, and
        as long as the agent is stuck that tells KFP of Workflows."""
        if workflows is None or not sight.are_over(workflows):
            self._stale_since.pop(run.run_id, None)
            return False
        since = self._stale_since.setdefault(run.run_id, self._clock())
        return self._clock() - since >= self._lost_seconds

    async def _without_kfp(
        self, obj: RunObject, run: KfpRun, seen: ObservedRun, workflows: list[Object], root: str, current: Intent
    ) -> ObservedRun:
        """What became of a run by its storage and its Workflow. Where it ended well, its last stage has said so."""
        result = await self._results.generation(root, current.generation, current.attempt)
        if isinstance(result, GenerationResult) and result.run_id == run.run_id:
            return dataclasses.replace(seen, state=RunState.SUCCEEDED, result=result)
        if workflows:
            ended = dataclasses.replace(seen, state=RunState.FAILED)
            return await self._failed(obj, run, ended, root, current)
        state = "nothing" if run.state is None else run.state.value
        message = f"KFP shows the run as {state}, but its Workflow has gone"
        return dataclasses.replace(seen, state=RunState.FAILED, reason=Reason.RUN_LOST, error=message)

    async def _failed(self, obj: RunObject, run: KfpRun, seen: ObservedRun, root: str, current: Intent) -> ObservedRun:
        """What it has cost, and why it failed: somebody's wish, else what a pod or the Workflow says of the
        surroundings, else what the stage said of itself, else whatever Argo says."""
        spec = obj.run.spec
        if "meteor" in spec.methods:  # no other stage has mentors or judges
            paid = await self._results.paid(root, current.generation, current.attempt, spec.stages)
            seen = dataclasses.replace(seen, paid=paid)
        told = await self._results.failure(root, current.generation, current.attempt, spec.pipeline.shards)
        stage = next((name for name in STAGES if told is not None and told.stage == name), None)
        if stage is None:
            stage = next((name for name, state in seen.stages.items() if state is StageState.FAILED), None)
        seen = dataclasses.replace(seen, failed_stage=stage)
        if run.was_terminating:  # whatever its pods say, they say it because they were stopped
            return dataclasses.replace(seen, error="somebody terminated the run in KFP")
        words = causes.workflow_messages(await self._workflows.of(run.run_id) or [])
        found = causes.reason_in([*words, run.error or ""])
        if found is not None:
            reason, message = found
            return dataclasses.replace(seen, reason=reason, error=message)
        if told is not None:
            error = f"{told.stage}: {told.message}"
            return dataclasses.replace(seen, error=error, spent_budget=told.spent_budget)
        where = f" in stage {stage}" if stage else ""
        known = next(iter(words), run.error)
        said = f": {known}" if known else " without saying why"
        return dataclasses.replace(seen, error=f"the run failed{where}{said}; its pods' logs are in the Kubeflow UI")

    async def _start_model(self, obj: RunObject, status: EvolutionRunStatus) -> StartModel | None:
        name = obj.run.spec.model.evolution_run
        if name is None or status.promoted is not None:
            return None
        try:
            other = read_status(await self._kube.get_run(obj.namespace, name))
        except NotFoundError:
            return StartModel(None, f"there is no EvolutionRun {name} in the namespace {obj.namespace}")
        if not other.phase.is_terminal:
            return StartModel(None, f"it is {other.phase}; it must be {Phase.COMPLETED} or {Phase.FAILED} first")
        best: ModelRef | None = other.promoted
        if best is None or best.is_base:
            return StartModel(None, "it has ended without promoting a model")
        return StartModel(best)


def _outage(seen: Observed, error: KfpError) -> Observed:
    return dataclasses.replace(seen, backend_reachable=False, backend_reason=_reason(error), backend_message=str(error))


def _with_waiting(seen: ObservedRun, waiting: sight.Waiting | None) -> ObservedRun:
    if waiting is None:
        return seen
    reason = Reason.AWAITING_QUOTA if waiting.quota else Reason.AWAITING_PODS
    return dataclasses.replace(seen, waiting=reason, waiting_message=waiting.message)


def run_ids(status: EvolutionRunStatus) -> list[str]:
    """The runs that matter: the one under way, those being stopped, and the newest generation's others."""
    current = [status.current.run_id] if status.current is not None else []
    newest = status.generation
    others = [attempt.run_id for attempt in newest.attempts] if newest is not None and current else []
    return list(dict.fromkeys([*current, *status.stopping, *others]))


def _attempts(status: EvolutionRunStatus) -> list[AttemptStatus]:
    return [attempt for generation in status.generations for attempt in generation.attempts]


def _reason(error: KfpError) -> Reason:
    if isinstance(error, KfpUnauthorizedError):
        return Reason.UNAUTHORIZED
    return Reason.RATE_LIMITED if isinstance(error, KfpRateLimitedError) else Reason.UNREACHABLE
