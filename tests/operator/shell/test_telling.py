from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from shell_world import FIRST, World, open_world

from kfp_double.simulation import Script
from perseid.api.base import replace
from perseid.api.reasons import StageState
from perseid.api.stages import StageName
from perseid.decide import Observed, ObservedRun, RunState
from perseid_operator.metrics import Metrics
from perseid_operator.objects import read_object
from perseid_operator.telling import tell


async def test_what_has_ended_is_counted_once_whatever_is_decided_on_it(tmp_path: Path, pipeline: str) -> None:
    metrics = Metrics()
    script = Script(pending=40, running=60)
    async with open_world(tmp_path, pipeline, script=script, generations={"max": 2, "patience": 5}) as world:
        world.start()
        assert world.reconciler is not None
        world.reconciler._tell = lambda obj, old, new, seen: tell(metrics, obj, old, new, seen, world.now())
        await world.to_the_end()
    text = metrics.render()[0].decode()
    assert 'perseid_generations_total{namespace="team",result="Promoted"} 2.0' in text
    waited = next(line for line in text.splitlines() if line.startswith("perseid_queue_wait_seconds_sum"))
    assert 2 * 40 <= float(waited.split()[-1]) <= 2 * 80


def listen(world: World) -> Metrics:
    metrics = Metrics()
    world.start()
    assert world.reconciler is not None
    world.reconciler._tell = lambda obj, old, new, seen: tell(metrics, obj, old, new, seen, world.now())
    return metrics


def told(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Values by the labels' values, in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render()[0].decode())
        for sample in family.samples
        if sample.name == name
    }


GPUS = {"stages": {"synthesize": {"gpus": 8}, "finetune": {"gpus": 2}, "evaluate": {"gpus": 1}}}


async def test_gpu_time_is_what_the_status_says_attempts_that_fail_included(tmp_path: Path, pipeline: str) -> None:
    script = Script(pending=5, running=900)
    async with open_world(tmp_path, pipeline, script=script, pipeline=GPUS, generations={"max": 1}) as world:
        metrics = listen(world)
        await world.until(lambda: world.kube.status.current is not None and bool(world.kube.status.current.stages))
        await world.double.advance(100)
        await world.double.finish_run(FIRST, "FAILED")
        status = await world.to_the_end()
    assert [one.number for one in status.generations[0].attempts] == [0, 1]
    seconds = told(metrics, "perseid_gpu_seconds_total")
    assert set(seconds) == {("team", "synthesize"), ("team", "finetune"), ("team", "evaluate")}
    assert abs(sum(seconds.values()) - status.usage.gpu_seconds) < 1e-6
    assert seconds["team", "synthesize"] > seconds["team", "finetune"] > seconds["team", "evaluate"] > 0


async def test_all_nodes_of_a_trainjob_use_gpu_time(tmp_path: Path, pipeline: str) -> None:
    spread = {"trainJob": {"numNodes": 4}, "stages": {"finetune": {"gpus": 2}}}
    script = Script(pending=5, running=900)
    async with open_world(tmp_path, pipeline, script=script, pipeline=spread, generations={"max": 1}) as world:
        metrics = listen(world)
        status = await world.to_the_end()
    (took,) = [
        value for labels, value in told(metrics, "perseid_stage_duration_seconds_sum").items() if "finetune" in labels
    ]
    assert told(metrics, "perseid_gpu_seconds_total") == {("team", "finetune"): status.usage.gpu_seconds}
    assert abs(status.usage.gpu_seconds - 4 * 2 * took) < 1e-6


async def test_each_stage_is_counted_once_with_how_it_ended(tmp_path: Path, pipeline: str) -> None:
    script = Script(pending=5, running=900)
    async with open_world(tmp_path, pipeline, script=script, generations={"max": 2, "patience": 5}) as world:
        metrics = listen(world)
        await world.until(lambda: world.kube.status.current is not None and bool(world.kube.status.current.stages))
        await world.double.finish_run(FIRST, "FAILED")
        await world.to_the_end()
    ended = told(metrics, "perseid_stage_duration_seconds_count")
    stages = ("synthesize", "convert", "finetune", "evaluate")
    assert ended == {**{("Succeeded", stage): 2 for stage in stages}, ("Failed", "synthesize"): 1}
    seconds = told(metrics, "perseid_stage_duration_seconds_sum")
    for stage in stages:
        assert 0 < seconds["Succeeded", stage] < 2 * 900


@pytest.mark.parametrize(
    ("run", "counted"),
    [
        (ObservedRun(RunState.RUNNING), {}),
        (ObservedRun(RunState.SUCCEEDED), {("Succeeded", "evaluate"): 1.0}),
        (ObservedRun(RunState.FAILED, failed_stage="evaluate"), {("Failed", "evaluate"): 1.0}),
        (ObservedRun(RunState.FAILED), {}),
    ],
    ids=["goes on", "succeeded", "the stage said that it failed", "nobody knows which stage failed"],
)
async def test_what_has_ended_is_known_although_kfp_s_tasks_lag_behind(
    tmp_path: Path, pipeline: str, run: ObservedRun, counted: dict[tuple[str, str], float]
) -> None:
    stages: dict[StageName, StageState] = {"finetune": StageState.SUCCEEDED, "evaluate": StageState.RUNNING}
    async with open_world(tmp_path, pipeline, script=Script(pending=1, running=None)) as world:
        await world.until(lambda: world.kube.status.current is not None)
        old = world.kube.status
        assert old.current is not None
        assert world.kube.run is not None
        before = replace(old, current=replace(old.current, stages=stages))
        metrics = Metrics()
        seen = Observed(runs={old.current.run_id: dataclasses.replace(run, stages=stages)})
        tell(metrics, read_object(world.kube.run), before, before, seen, world.now())
    assert told(metrics, "perseid_stage_duration_seconds_count") == counted
