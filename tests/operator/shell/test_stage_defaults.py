"""What a run does not say of its stages is the operator's, as it was when the run was accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shell_world import expected, open_world

from kfp_double.simulation import Script
from perseid.api.attempt import Attempt
from perseid.api.base import replace
from perseid.api.pipeline import EnvSpec, StageDefaults
from perseid.api.reasons import ConditionType, Reason

DEFAULTS = StageDefaults(
    image="images.example.org/perseid-stage:1",
    env=[EnvSpec(name="AWS_REGION", value="here"), EnvSpec(name="LEVEL", value="the operator's")],
    service_account="stages",
)


async def test_what_a_run_does_not_say_of_its_stages_is_the_operators_and_stays_what_it_was_at_acceptance(
    tmp_path: Path, pipeline: str
) -> None:
    posted: list[dict[str, Any]] = []

    def script_for(body: dict[str, Any]) -> Script:
        posted.append(body)
        return Script(pending=2, running=30)

    said = {"env": [{"name": "LEVEL", "value": "the run's"}]}
    async with open_world(tmp_path, pipeline, pipeline=said) as world:
        world.double.script(script_for)
        world.defaults = DEFAULTS
        await world.until(lambda: len(posted) == 1)
        world.defaults = replace(DEFAULTS, image="images.example.org/perseid-stage:2", service_account="others")
        world.reconciler = None  # the operator is started again, with other defaults
        status = await world.to_the_end()
    assert status.snapshot is not None
    assert status.snapshot.image == "images.example.org/perseid-stage:1"
    assert len(posted) == 2
    for body in posted:
        assert body["service_account"] == "stages"
        told = Attempt.of_arguments(body["runtime_config"]["parameters"]).run.spec.pipeline
        assert told.image == "images.example.org/perseid-stage:1", "by which a TrainJob's nodes go"
        assert {one.name: one.value for one in told.env} == {"AWS_REGION": "here", "LEVEL": "the run's"}


async def test_a_run_that_was_accepted_without_defaults_gets_none_by_an_upgrade(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline) as world:
        await world.until(lambda: world.kube.status.snapshot is not None)
        world.defaults, world.reconciler = DEFAULTS, None
        status = await world.to_the_end()
        assert world.executions == expected(2)
        assert status.snapshot is not None
        assert status.snapshot.image == "perseid-stage:latest"


async def test_what_the_operator_and_a_run_say_together_is_refused_where_it_is_too_much(
    tmp_path: Path, pipeline: str
) -> None:
    many = [{"name": f"OWN_{number}", "value": "x"} for number in range(31)]
    async with open_world(tmp_path, pipeline, pipeline={"env": many}) as world:
        world.defaults = DEFAULTS
        status = await world.to_the_end()
        failed = status.condition(ConditionType.FAILED)
        assert failed is not None
        assert failed.reason is Reason.PIPELINE_INVALID
        assert "operator's defaults of stages" in failed.message
