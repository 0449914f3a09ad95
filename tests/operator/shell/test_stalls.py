"""Which runs stand still. The statuses are those that the operator writes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML
from shell_world import World, open_world

from kfp_double.simulation import Script
from perseid.api.reasons import AttemptState, Phase
from perseid_operator.metrics import Metrics
from perseid_operator.runs import Runs
from perseid_operator.stalls import QUIET_SECONDS, STAGE_SECONDS, last_progress, may_progress, stands_still

RULES = Path(__file__).parents[3] / "manifests" / "monitoring" / "prometheus-rule.yaml"
HOUR = 3600.0


def raw(world: World) -> dict[str, Any]:
    assert world.kube.run is not None
    return copy.deepcopy(world.kube.run)


async def until_a_stage_works(world: World) -> float:
    """When it began."""
    await world.until(lambda: world.kube.status.current is not None and bool(world.kube.status.current.stages))
    return last_progress(raw(world)["status"])


async def test_a_stage_that_works_may_take_as_long_as_its_pods_may(tmp_path: Path, pipeline: str) -> None:
    stages = {"synthesize": {"timeoutSeconds": 12 * 3600, "retries": 1}}
    script = Script(pending=1, running=None)
    async with open_world(tmp_path, pipeline, script=script, pipeline={"stages": stages}) as world:
        began = await until_a_stage_works(world)
        assert not stands_still(raw(world), began + 24 * HOUR - 60)
        assert stands_still(raw(world), began + 24 * HOUR + 60), "two tries of twelve hours"


async def test_a_stage_without_a_deadline_stands_still_after_a_day(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, script=Script(pending=1, running=None)) as world:
        began = await until_a_stage_works(world)
        assert not stands_still(raw(world), began + STAGE_SECONDS)
        assert stands_still(raw(world), began + STAGE_SECONDS + 1)


async def test_each_stage_that_begins_is_progress_and_gpu_time_is_none(tmp_path: Path, pipeline: str) -> None:
    stages = {"pipeline": {"stages": {"synthesize": {"gpus": 8}}}}
    async with open_world(tmp_path, pipeline, script=Script(pending=1, running=600), **stages) as world:
        began = await until_a_stage_works(world)

        def uses_gpus() -> bool:
            return world.kube.status.current is not None and world.kube.status.current.gpu_seconds > 0

        await world.until(uses_gpus)
        assert last_progress(raw(world)["status"]) == began
        before = dict(world.kube.status.current.stages)  # type: ignore[union-attr]
        await world.until(lambda: world.kube.status.current is None or world.kube.status.current.stages != before)
        assert last_progress(raw(world)["status"]) > began


async def test_a_run_whose_pods_do_not_start_stands_still_after_two_hours(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, script=Script(pending=None)) as world:
        await world.until(lambda: bool(world.kube.status.generations))
        await world.until(lambda: world.kube.status.generations[0].attempts[0].state is AttemptState.PENDING)
        seen = last_progress(raw(world)["status"])
        assert not stands_still(raw(world), seen + QUIET_SECONDS)
        assert stands_still(raw(world), seen + QUIET_SECONDS + 1)


async def test_an_image_that_cannot_be_pulled_in_the_middle_is_no_stage_that_works(
    tmp_path: Path, pipeline: str
) -> None:
    async with open_world(tmp_path, pipeline, script=Script(pending=1, running=None)) as world:
        await until_a_stage_works(world)
        waits_for(world, "ImagePullBackOff: Back-off pulling image")
        await world.until(lambda: world.kube.status.generations[0].attempts[0].reason is not None)
        seen = last_progress(raw(world)["status"])
        assert may_progress(raw(world)["status"])
        assert not stands_still(raw(world), seen + QUIET_SECONDS)
        assert stands_still(raw(world), seen + QUIET_SECONDS + 1)


async def test_who_waits_for_quota_is_left_out_and_begins_anew_when_it_is_let_in(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, script=Script(pending=1, running=None)) as world:
        await until_a_stage_works(world)
        waits_for(world, "exceeded quota: team")
        await world.until(lambda: not may_progress(raw(world)["status"]))
        waits_for(world, None)
        await world.double.advance(10 * HOUR)
        await world.until(lambda: may_progress(raw(world)["status"]))
        assert last_progress(raw(world)["status"]) >= world.double.clock.now() - 60


async def test_who_waits_for_approval_is_left_out(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, generations={"max": 2, "approval": "manual"}) as world:
        await until_a_stage_works(world)
        await world.until(lambda: world.kube.status.current is None)
        assert world.kube.status.phase is Phase.RUNNING
        assert not may_progress(raw(world)["status"])


async def test_a_backend_that_comes_and_goes_is_no_progress(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, script=Script(pending=1, running=None)) as world:
        began = await until_a_stage_works(world)
        status = raw(world)["status"]
        for condition in status["conditions"]:
            if condition["type"] == "BackendReady":
                condition["lastTransitionTime"] = "2099-01-01T00:00:00Z"
        assert last_progress(status) == began


def waits_for(world: World, message: str | None) -> None:
    """What Argo says of the pod of the first stage."""
    phase = "Running" if message is None else "Pending"
    node = {"type": "Pod", "phase": phase, "name": "x.root.synthesize.executor", "message": message}

    async def workflows(run_id: str) -> list[dict[str, object]]:
        return [{"metadata": {"name": "x", "namespace": "team"}, "status": {"phase": "Running", "nodes": {"x": node}}}]

    world.kube.workflows = workflows  # type: ignore[method-assign]


async def test_the_alert_is_about_runs_that_stand_still_and_no_others(tmp_path: Path, pipeline: str) -> None:
    stages = {"synthesize": {"timeoutSeconds": 12 * 3600}}
    async with open_world(
        tmp_path, pipeline, script=Script(pending=1, running=None), pipeline={"stages": stages}
    ) as world:
        await until_a_stage_works(world)
        metrics = Metrics()
        assert world.reconciler is not None
        runs = Runs(world.kube, world.reconciler, None, metrics)  # type: ignore[arg-type]
        runs.seen(raw(world))
        for hours, expected in ((3, 0.0), (9.5, 1.0)):
            await world.double.advance(hours * HOUR)
            await runs.sweep()
            assert told(metrics) == {"team": expected}
    (alert,) = [
        rule
        for group in YAML(typ="safe").load(RULES)["spec"]["groups"]
        for rule in group["rules"]
        if rule["alert"] == "PerseidRunStalled"
    ]
    assert alert["expr"] == "max by (namespace) (perseid_evolutionruns_stalled) > 0"


def told(metrics: Metrics) -> dict[str, float]:
    return {
        sample.labels["namespace"]: sample.value
        for family in text_string_to_metric_families(metrics.render()[0].decode())
        for sample in family.samples
        if sample.name == "perseid_evolutionruns_stalled"
    }


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.SUSPENDED, Phase.COMPLETED, Phase.FAILED])
def test_a_run_that_is_not_running_need_not_get_on(phase: Phase) -> None:
    assert not may_progress({"phase": phase.value})
