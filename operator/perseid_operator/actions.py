"""Carries out what `decide` has planned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from perseid.api.attempt import Attempt
from perseid.api.base import replace
from perseid.api.names import display_name, experiment_name, storage_root
from perseid.api.pipeline import PipelineSpec
from perseid.api.status import EvolutionRunStatus
from perseid.decide import SUBMIT_SECONDS, Submit
from perseid_operator.kfp import (
    KfpAmbiguousError,
    KfpClient,
    KfpError,
    KfpExperimentMissingError,
    KfpRun,
    KfpRunState,
    RunRequest,
)
from perseid_operator.objects import RunObject
from perseid_operator.reclaim import delete_files
from perseid_operator.snapshots import Snapshots
from perseid_operator.submission import Doubts
from perseid_operator.turns import Turns
from perseid_operator.watch import RunWatch

log = logging.getLogger(__name__)

SUBMISSIONS_AT_ONCE = 16
"""KFP makes five runs a second. Asked for more at once, it answers later than anybody waits, and nobody knows then what
became of them."""


class PostponedError(Exception):
    """It may not be done now; another pass decides again."""


class Actions:
    """Submits and stops pipeline runs, and deletes what is left of them."""

    def __init__(
        self,
        kfp: KfpClient,
        watch: RunWatch,
        doubts: Doubts,
        snapshots: Snapshots,
        *,
        storage: str,
        cancel_seconds: float,
        now: Callable[[], datetime],
        on_submission: Callable[[str], None] = lambda result: None,
        wake: Callable[[str], None] = lambda uid: None,
        may_act: Callable[[], bool] = lambda: True,
    ) -> None:
        """`cancel_seconds`: after that long in CANCELING a run is deleted, which ends it for certain. `wake(uid)`: a
        submission may have its turn. `may_act`: whether this process leads at this very moment."""
        self._kfp = kfp
        self._watch = watch
        self._doubts = doubts
        self._snapshots = snapshots
        self._storage = storage
        self._cancel_seconds = cancel_seconds
        self._now = now
        self._on_submission = on_submission
        self._may_act = may_act
        self._experiments: dict[str, str] = {}
        self.turns = Turns(SUBMISSIONS_AT_ONCE, wake)
        """Take one before the intent of a submission is written; give it back after."""

    async def submit(self, obj: RunObject, status: EvolutionRunStatus, submit: Submit) -> None:
        """Create the run. Only where nothing of it can be on its way (`Doubts`); whoever calls has seen to that.

        Raises RunRejectedError, SnapshotError, KubeErrors, and KfpErrors other than KfpAmbiguousError, which is noted.
        """
        assert status.snapshot is not None  # accept() has taken it
        frozen = await self._snapshots.load(obj.raw, obj.run.spec.template, status.snapshot)
        experiment = await self._experiment(obj, probably_new=(submit.generation, submit.attempt) == (0, 0))
        # As it was accepted: the operator's defaults may be others by now.
        pipeline = frozen.defaults.complete(obj.run.spec.pipeline)
        attempt = self._attempt(obj, submit, pipeline)
        request = RunRequest(
            run_id=submit.run_id,
            display_name=display_name(obj.namespace, obj.name, submit.generation, submit.attempt),
            description=(
                f"Generation {submit.generation}, attempt {submit.attempt} of EvolutionRun {obj.namespace}/{obj.name}"
                f" (uid {obj.uid})"
            ),
            experiment_id=experiment,
            pipeline_spec=frozen.pipeline,
            platform_spec=frozen.platform,
            parameters=attempt.arguments(),
            service_account=pipeline.service_account,
        )
        # Shielded: when this object's task is cancelled, the request is on its way all the same.
        assert status.current is not None  # that is what is being submitted
        await asyncio.shield(asyncio.ensure_future(self._create(obj, request, status.current.intent_time)))

    async def _create(self, obj: RunObject, request: RunRequest, intended_at: datetime) -> None:
        self._must_lead("submits")
        if self._now() - intended_at > timedelta(seconds=SUBMIT_SECONDS):
            raise PostponedError("getting ready to submit the run took too long: its intent has to be written anew")
        self._doubts.sending(request.run_id)
        try:
            run = await self._kfp.create_run(request)
        except KfpAmbiguousError as error:
            log.warning("the submission of run %s is in doubt: %s", request.run_id, error)
            self._on_submission("ambiguous")
            return
        except KfpExperimentMissingError:
            self._experiments.pop(obj.uid, None)
            self._doubts.rejected(request.run_id)
            raise
        except KfpError:
            self._doubts.rejected(request.run_id)
            self._on_submission("rejected")
            raise
        self._doubts.seen(request.run_id)
        self._watch.note(run, request.run_id)
        self._on_submission("created")
        log.info("submitted run %s", request.run_id)

    def _must_lead(self, does: str) -> None:
        if not self._may_act():
            raise PostponedError(f"another operator leads by now; it {does} the run")

    async def terminate(self, run_id: str) -> None:
        """Stop a run; one that KFP does not get stopped is deleted, which takes its Workflow and pods along."""
        self._must_lead("stops")
        known = self._watch.last(run_id)
        since = None if known is None or known.run is None else canceling_since(known.run)
        if since is not None and self._now() - since > timedelta(seconds=self._cancel_seconds):
            log.warning("run %s has been CANCELING for %s s: it is deleted", run_id, round(self._cancel_seconds))
            await self._kfp.delete(run_id)
            return
        if await self._kfp.terminate(run_id):
            log.info("asked KFP to terminate run %s", run_id)

    async def reclaim(self, obj: RunObject) -> None:
        """Delete the run's files. Raises StorageError."""
        self._must_lead("deletes the files of")
        await delete_files(self._root(obj))
        log.info("deleted the run's files, as its reclaimPolicy says")

    async def _experiment(self, obj: RunObject, probably_new: bool) -> str:
        known = self._experiments.get(obj.uid)
        if known is None:
            name = experiment_name(obj.namespace, obj.name)
            description = f"EvolutionRun {obj.namespace}/{obj.name}"
            known = await self._kfp.ensure_experiment(name, description, probably_new=probably_new)
            self._experiments[obj.uid] = known
        return known

    def forget(self, obj: RunObject) -> None:
        """The object is gone, or done with."""
        self.turns.give_back(obj.uid)
        self._experiments.pop(obj.uid, None)

    def _attempt(self, obj: RunObject, submit: Submit, pipeline: PipelineSpec) -> Attempt:
        return Attempt(
            run=replace(obj.run, spec=replace(obj.run.spec, pipeline=pipeline)),
            run_id=submit.run_id,
            generation=submit.generation,
            number=submit.attempt,
            storage=self._root(obj),
            start_model=submit.start_model.uri,
        )

    def _root(self, obj: RunObject) -> str:
        return storage_root(obj.run.spec.storage.uri, self._storage, obj.namespace, obj.name, obj.uid)


def canceling_since(run: KfpRun) -> datetime | None:
    """When somebody asked to stop a run that has not ended."""
    if run.is_final:
        return None
    asked = [change.at for change in run.state_history if change.state is KfpRunState.CANCELING and change.at]
    return min(asked) if asked else None
