"""Which runs the operator looks for TrainJobs of, and what it does where it may not."""

from __future__ import annotations

from typing import Any

import pytest

from perseid.api.pipeline import PipelineSpec
from perseid.api.reasons import StageState
from perseid.decide import ObservedRun, RunState
from perseid_operator.kube.protocol import ForbiddenError, NotFoundError, Object, UnavailableError
from perseid_operator.train_jobs import TrainJobs

SPREAD = PipelineSpec.model_validate({"trainJob": {"numNodes": 2}})
TRAINS = ObservedRun(RunState.RUNNING, stages={"convert": StageState.SUCCEEDED, "finetune": StageState.RUNNING})
EVALUATES = ObservedRun(RunState.RUNNING, stages={"finetune": StageState.SUCCEEDED, "evaluate": StageState.RUNNING})


class Cluster:
    """As much of `Kube` as is asked."""

    def __init__(self, *answers: list[Object] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def train_jobs(self, run_id: str) -> list[Object]:
        self.asked.append(run_id)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def looking(*answers: list[Object] | Exception) -> tuple[TrainJobs, Cluster]:
    kube: Any = Cluster(*answers)
    return TrainJobs(kube), kube


async def test_the_cluster_is_asked_while_a_stage_runs_on_several_nodes_and_at_no_other_time() -> None:
    jobs, cluster = looking([{"metadata": {}}])
    assert await jobs.of("r", EVALUATES, SPREAD) == []
    assert await jobs.of("r", TRAINS, PipelineSpec()) == []
    assert await jobs.of("r", ObservedRun(RunState.PENDING), SPREAD) == []
    assert cluster.asked == []
    assert await jobs.of("r", TRAINS, SPREAD) == [{"metadata": {}}]


@pytest.mark.parametrize("error", [ForbiddenError("no"), NotFoundError("no such kind")])
async def test_where_trainjobs_are_out_of_sight_it_asks_no_more(error: Exception) -> None:
    jobs, cluster = looking(error)
    assert await jobs.of("r", TRAINS, SPREAD) == []
    assert await jobs.of("r", TRAINS, SPREAD) == []
    assert cluster.asked == ["r"]


async def test_an_outage_is_told_and_asked_again_after() -> None:
    jobs, _ = looking(UnavailableError("later"), [])
    with pytest.raises(UnavailableError):
        await jobs.of("r", TRAINS, SPREAD)
    assert await jobs.of("r", TRAINS, SPREAD) == []
