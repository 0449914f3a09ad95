"""What a user does to a run, and what happens to it, seen from Kubernetes and KFP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shell_world import FIRST, UID, expected, open_world, reason

from kfp_double.simulation import Script
from perseid.api.base import APPROVED_GENERATION
from perseid.api.reasons import ConditionStatus, ConditionType, GenerationPhase, Phase, Reason
from perseid.api.stages import METEOR_STAGES
from perseid.decide import run_id_of
from perseid_operator.reconciler import without_progress


async def test_an_object_is_carried_through_to_its_best_model(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, generations={"max": 3, "patience": 5}) as world:
        status = await world.to_the_end()
        assert reason(world, ConditionType.COMPLETE) == (ConditionStatus.TRUE, Reason.MAX_GENERATIONS)
        assert [generation.phase for generation in status.generations] == [GenerationPhase.PROMOTED] * 3
        assert status.promoted is not None
        assert status.promoted.generation == 2
        assert status.columns.generation == "3/3"
        assert status.current is None
        assert ("Complete", "MaxGenerations") in world.announced
        assert world.kube.status_writes / 3 <= 4, "more writes than a generation is worth"


async def test_a_run_of_meteor_is_carried_through_and_its_stages_are_in_the_status(
    tmp_path: Path, meteor_pipeline: str
) -> None:
    seen: set[str] = set()
    script = Script(pending=2, running=400)
    async with open_world(
        tmp_path, meteor_pipeline, script=script, methods=["meteor"], generations={"max": 1}
    ) as world:

        def over() -> bool:
            current = world.kube.status.current
            seen.update(current.stages if current is not None else ())
            return world.kube.status.phase.is_terminal

        await world.until(over)
        assert reason(world, ConditionType.COMPLETE) == (ConditionStatus.TRUE, Reason.MAX_GENERATIONS)
        assert {"mentor-supervised", "self-assessment", "self-evolution"} <= seen <= {*METEOR_STAGES, "evaluate"}


async def test_the_stages_and_the_link_of_a_run_under_way_are_in_the_status(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline) as world:
        await world.until(
            lambda: world.kube.status.current is not None and bool(world.kube.status.current.stages), poll=5
        )
        current = world.kube.status.current
        assert current is not None
        assert current.url == f"https://kubeflow.example/#/runs/details/{FIRST}"
        assert current.stages["synthesize"].value in ("Running", "Succeeded")


async def test_progress_alone_is_written_at_most_every_thirty_seconds(tmp_path: Path, pipeline: str) -> None:
    script = Script(pending=1, running=600)
    async with open_world(tmp_path, pipeline, script=script, generations={"max": 1}) as world:
        await world.until(lambda: len(world.double.run_ids()) == 1)
        writes = world.kube.status_writes
        before = world.kube.status
        await world.until(lambda: world.kube.status.phase.is_terminal, poll=2)
        assert world.kube.status_writes - writes <= 600 / 30 + 4
        assert without_progress(before) != without_progress(world.kube.status)


@pytest.mark.parametrize("policy", ["drain", "terminate"])
async def test_suspending_and_resuming_never_makes_two_runs_and_loses_no_generation(
    tmp_path: Path, pipeline: str, policy: str
) -> None:
    async with open_world(tmp_path, pipeline, suspendPolicy=policy) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        world.kube.edit(suspend=True)
        await world.until(lambda: world.kube.status.phase is Phase.SUSPENDED)
        assert world.alive() == 0
        await world.double.advance(5000)
        await world.step()
        assert world.kube.status.phase is Phase.SUSPENDED
        world.kube.edit(suspend=False)
        status = await world.to_the_end()
        assert status.phase is Phase.COMPLETED
        assert [generation.index for generation in status.generations] == [0, 1]
        assert max(world.double.counters().most_alive.values()) == 1
        attempts = 1 if policy == "drain" else 2
        assert run_id_of(UID, 0, attempts - 1) in world.executions
        assert status.generations[0].charged_attempts == 0
        assert status.suspended_seconds >= 5000


async def test_a_generation_waits_for_the_annotation_that_approves_it(tmp_path: Path, pipeline: str) -> None:
    generations = {"max": 2, "patience": 5, "approval": "manual"}
    async with open_world(tmp_path, pipeline, generations=generations) as world:
        await world.until(
            lambda: (
                bool(world.kube.status.conditions)
                and reason(world, ConditionType.PROGRESSING)[1] is Reason.AWAITING_APPROVAL
            )
        )
        writes = world.kube.status_writes
        await world.double.advance(1000)
        await world.step()
        assert world.kube.status_writes == writes, "waiting is not written again and again"
        world.kube.annotate(**{APPROVED_GENERATION: "1"})
        assert (await world.to_the_end()).phase is Phase.COMPLETED
        assert world.executions == expected(2)


async def test_an_object_of_another_manager_is_left_alone(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, managedBy="someone.example/else") as world:
        await world.step()
        assert world.kube.status_writes == 0
        assert world.double.counters().requests == {}


async def test_a_finished_object_is_deleted_when_its_time_is_up(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, generations={"max": 1}, ttlSecondsAfterFinished=100) as world:
        await world.to_the_end()
        assert world.kube.run is not None
        await world.double.advance(101)
        await world.step()
        assert world.kube.run is None


# Some seconds: sixty generations.
@pytest.mark.slow
async def test_many_generations_stay_small_and_none_is_forgotten(tmp_path: Path, pipeline: str) -> None:
    script = Script(pending=0, running=1)
    generations = {"max": 60, "patience": 1000}
    async with open_world(tmp_path, pipeline, script=script, generations=generations) as world:
        world.gain = lambda generation: 0.0001
        status = await world.to_the_end()
        assert status.phase is Phase.COMPLETED
        assert len(json.dumps(world.kube.run)) < 64 * 1024
        kept = {generation.index for generation in status.generations}
        history = [data for name, data in world.kube.config_maps.items() if "history" in name]
        kept |= {int(key[11:16]) for one in history for key in one["data"]}
        assert kept == set(range(60))
