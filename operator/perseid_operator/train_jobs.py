"""TrainJobs of Kubeflow Trainer, as far as the operator may see them. It makes none: pipelines' pods do."""

from __future__ import annotations

import logging

from perseid.api.pipeline import PipelineSpec
from perseid.api.reasons import StageState
from perseid.decide import ObservedRun
from perseid_operator.kube.protocol import ForbiddenError, Kube, NotFoundError, Object

log = logging.getLogger(__name__)


class TrainJobs:
    """Looks at them, where the operator may; finds out once whether it may."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._allowed = True

    async def of(self, run_id: str, seen: ObservedRun, pipeline: PipelineSpec) -> list[Object]:
        """Those of a run, while a stage of it has one; none where they cannot be seen. Raises UnavailableError."""
        running = [stage for stage, state in seen.stages.items() if state is StageState.RUNNING]
        if not self._allowed or all(pipeline.nodes_of(stage) == 1 for stage in running):
            return []
        try:
            return await self._kube.train_jobs(run_id)
        except (ForbiddenError, NotFoundError) as error:
            log.info("TrainJobs are out of sight: a run does not say that one waits for quota: %s", error)
            self._allowed = False
            return []
