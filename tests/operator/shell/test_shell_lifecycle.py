"""What a user does to a run, and what happens to it, seen from Kubernetes and KFP."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from shell_world import NAME, UID, World, expected, open_world

from kfp_double.simulation import Script
from perseid.api.attempt import Attempt
from perseid.api.base import APPROVED_GENERATION, replace
from perseid.api.pipeline import QUEUE_LABEL, STAGE_LABEL, EnvSpec, StageDefaults
from perseid.api.reasons import AttemptState, ConditionStatus, ConditionType, GenerationPhase, Phase, Reason
from perseid.api.stages import METEOR_STAGES
from perseid.decide import run_id_of
from perseid_operator.kfp import KfpClient, KfpSettings
from perseid_operator.objects import leaves_files
from perseid_operator.reconciler import without_progress

FIRST = run_id_of(UID, 0, 0)


def reason(world: World, type_: ConditionType) -> tuple[ConditionStatus, Reason]:
    condition = world.kube.status.condition(type_)
    assert condition is not None
    return condition.status, condition.reason


async def clean_up(world: World) -> None:
    """The object is being deleted: passes until nothing is left of it."""
    assert world.kube.run is not None
    if world.reconciler is None:
        world.start()
    assert world.reconciler is not None
    for _ in range(1000):
        wait = await world.reconciler.clean_up(copy.deepcopy(world.kube.run))
        if wait is None:
            return
        await world.double.advance(wait)
        if world.watch is not None:
            await world.watch.round()
    raise AssertionError("nothing ends")


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


async def test_an_outage_of_kfp_is_a_condition_uses_up_nothing_and_is_over_when_kfp_answers(
    tmp_path: Path, pipeline: str
) -> None:
    async with open_world(tmp_path, pipeline) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        await world.double.go_down()
        await world.until(lambda: reason(world, ConditionType.BACKEND_READY)[0] is ConditionStatus.FALSE)
        assert reason(world, ConditionType.BACKEND_READY)[1] is Reason.UNREACHABLE
        await world.double.advance(1000)
        await world.step()
        await world.double.come_up()
        status = await world.to_the_end()
        assert status.phase is Phase.COMPLETED
        assert world.executions == expected(2)
        assert status.generations[0].charged_attempts == 0
        assert reason(world, ConditionType.BACKEND_READY)[0] is ConditionStatus.TRUE


async def test_a_run_whose_workflow_is_deleted_is_lost_and_tried_again_without_being_charged(
    tmp_path: Path, pipeline: str
) -> None:
    script = Script(pending=1, running=100)
    async with open_world(tmp_path, pipeline, script=script, generations={"max": 1}) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        await world.double.lose_workflow(FIRST)
        status = await world.to_the_end()
        assert status.phase is Phase.COMPLETED
        first, *_ = status.generations[0].attempts
        assert (first.reason, first.charged) == (Reason.RUN_LOST, False)


async def test_a_run_that_ended_well_while_kfp_was_away_counts_although_its_workflow_has_gone(
    tmp_path: Path, pipeline: str
) -> None:
    async with open_world(tmp_path, pipeline, generations={"max": 1}) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        world.double.set_agent(False)  # KFP sees nothing of what Argo does
        await world.double.advance(100)
        await world.double.lose_workflow(FIRST)
        status = await world.to_the_end()
        assert status.phase is Phase.COMPLETED
        assert world.executions == {FIRST: 1}


async def test_a_run_that_has_failed_while_kfp_goes_on_calling_it_running_is_tried_again(
    tmp_path: Path, pipeline: str
) -> None:
    """The agent is stuck that tells KFP what becomes of Workflows."""
    scripts = iter([Script(pending=1, running=20, outcome="FAILED", message="OOMKilled")])
    async with open_world(
        tmp_path, pipeline, script=lambda workflow: next(scripts, Script(pending=1, running=20)), generations={"max": 1}
    ) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        world.double.set_agent(False)
        await world.until(lambda: len(world.kube.status.generations[0].attempts) == 2)
        first = world.kube.status.generations[0].attempts[0]
        assert first.reason is Reason.OUT_OF_MEMORY
        world.double.set_agent(True)
        assert (await world.to_the_end()).phase is Phase.COMPLETED


async def test_a_run_that_kfp_forgets_while_it_is_under_way_is_lost_and_not_charged(
    tmp_path: Path, pipeline: str
) -> None:
    async with open_world(tmp_path, pipeline, script=Script(pending=1, running=100), generations={"max": 1}) as world:
        await world.until(lambda: world.kube.status.current is not None and bool(world.kube.status.current.stages))
        await world.double.collect_garbage(FIRST)
        status = await world.to_the_end()
        assert status.phase is Phase.COMPLETED
        first, *_ = status.generations[0].attempts
        assert (first.reason, first.charged) == (Reason.RUN_LOST, False)


async def test_a_run_that_kfp_does_not_get_stopped_is_deleted(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, suspendPolicy="terminate") as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        world.double.set_controller(False)  # CANCELING for ever
        world.kube.edit(suspend=True)
        await world.until(lambda: world.kube.status.phase is Phase.SUSPENDED)
        assert FIRST not in world.double.run_ids()


async def test_a_failed_run_says_what_its_stage_said_and_is_tried_again(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, generations={"max": 1}) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        stage = tmp_path / "team" / f"{NAME}-{UID}" / "generations/000/attempts/0/finetune"
        stage.mkdir(parents=True)
        (stage / "result.json").write_text(
            json.dumps({"stage": "finetune", "state": "failed", "error": "lower finetune.batchSize"})
        )
        await world.double.finish_run(FIRST, "FAILED")
        status = await world.to_the_end()
        assert status.phase is Phase.COMPLETED
        attempt = status.generations[0].attempts[0]
        assert (attempt.reason, attempt.charged) == (Reason.RUN_FAILED, True)
        assert attempt.message == "finetune: lower finetune.batchSize"


async def test_a_failure_in_a_stage_of_meteor_is_told_with_its_name_and_ends_the_run_where_the_policy_says_so(
    tmp_path: Path, meteor_pipeline: str
) -> None:
    policy = {"rules": [{"stages": ["self-assessment"], "action": "fail"}]}
    async with open_world(tmp_path, meteor_pipeline, methods=["meteor"], failurePolicy=policy) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        attempt_directory = tmp_path / "team" / f"{NAME}-{UID}" / "generations/000/attempts/0"
        told = {"mentor-supervised": {"state": "done"}, "self-assessment": {"state": "failed", "error": "no judge"}}
        for stage, result in told.items():
            (attempt_directory / stage).mkdir(parents=True)
            (attempt_directory / stage / "result.json").write_text(json.dumps({"stage": stage, **result}))
        await world.double.finish_run(FIRST, "FAILED")
        status = await world.to_the_end()
        assert reason(world, ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.FAILURE_POLICY)
        (attempt,) = status.generations[0].attempts
        assert (attempt.reason, attempt.message) == (Reason.RUN_FAILED, "self-assessment: no judge")


async def test_a_stage_that_the_budget_kept_from_asking_ends_the_run(tmp_path: Path, meteor_pipeline: str) -> None:
    async with open_world(tmp_path, meteor_pipeline, methods=["meteor"], budget={"mentorCost": 2.5}) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        stage = tmp_path / "team" / f"{NAME}-{UID}" / "generations/000/attempts/0/mentor-supervised"
        stage.mkdir(parents=True)
        told = {"state": "failed", "error": "raise spec.budget.mentorCost", "spentBudget": {"mentorCost": 2.5}}
        told["usage"] = {"cost": 2.25, "paidTokens": 400}
        (stage / "result.json").write_text(json.dumps({"stage": "mentor-supervised", **told}))
        await world.double.finish_run(FIRST, "FAILED")
        status = await world.to_the_end()
        assert reason(world, ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.BUDGET_EXCEEDED)
        (attempt,) = status.generations[0].attempts
        assert attempt.message == "mentor-supervised: raise spec.budget.mentorCost"
        assert (status.usage.cost, status.usage.mentor_tokens) == (2.25, 400), "a failed attempt is paid for, too"


async def test_a_stage_of_meteor_whose_pod_died_is_the_one_that_the_failure_policy_sees(
    tmp_path: Path, meteor_pipeline: str
) -> None:
    policy = {"rules": [{"stages": ["mentor-supervised"], "reasons": ["OutOfMemory"], "action": "fail"}]}
    spec = {"methods": ["meteor"], "failurePolicy": policy}
    async with open_world(tmp_path, meteor_pipeline, script=Script(pending=2, running=400), **spec) as world:
        await world.until(lambda: world.kube.status.current is not None and bool(world.kube.status.current.stages))
        assert world.kube.status.current is not None
        assert set(world.kube.status.current.stages) == {"mentor-supervised"}
        await world.double.finish_run(FIRST, "FAILED", "OOMKilled (exit code 137)")
        await world.to_the_end()
        assert reason(world, ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.FAILURE_POLICY)


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


async def test_what_a_pod_died_of_is_read_from_the_workflow(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, generations={"max": 1}) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        await world.double.finish_run(FIRST, "FAILED", "OOMKilled (exit code 137)")
        status = await world.to_the_end()
        attempt = status.generations[0].attempts[0]
        assert (attempt.reason, attempt.message) == (Reason.OUT_OF_MEMORY, "OOMKilled (exit code 137)")


async def test_words_of_argo_s_that_have_no_reason_are_told_all_the_same(tmp_path: Path, pipeline: str) -> None:
    words = 'error in entry template execution: serviceaccounts "trainer" not found'
    async with open_world(tmp_path, pipeline, generations={"max": 1, "maxAttempts": 1}) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        await world.double.finish_run(FIRST, "FAILED", words)
        status = await world.to_the_end()
        attempt = status.generations[0].attempts[0]
        assert (attempt.reason, attempt.charged) == (Reason.RUN_FAILED, True)
        assert words in attempt.message


async def test_pods_that_were_killed_are_tried_again_at_no_charge(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, generations={"max": 1, "maxAttempts": 1}) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        await world.double.finish_run(FIRST, "FAILED", "main: Error (exit code 137)")
        status = await world.to_the_end()
        first, second = status.generations[0].attempts
        assert (first.reason, first.charged) == (Reason.INFRASTRUCTURE_FAULT, False)
        assert second.state is AttemptState.SUCCEEDED


async def test_a_run_that_somebody_terminated_in_kfp_was_not_killed_by_its_surroundings(
    tmp_path: Path, pipeline: str
) -> None:
    async with open_world(tmp_path, pipeline, generations={"max": 1, "maxAttempts": 1}) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        async with KfpClient(KfpSettings(world.double.url)) as kfp:
            await kfp.terminate(FIRST)
        await world.double.finish_run(FIRST, "FAILED", "main: Error (exit code 137)")
        status = await world.to_the_end()
        attempt = status.generations[0].attempts[0]
        assert (attempt.message, attempt.charged) == ("somebody terminated the run in KFP", True)


@pytest.mark.parametrize(
    ("message", "expected_reason"),
    [
        ('CreateContainerConfigError: secret "storage" not found', Reason.AWAITING_PODS),
        ("exceeded quota: team, requested: requests.nvidia.com/gpu=8", Reason.AWAITING_QUOTA),
    ],
)
async def test_what_a_pod_waits_for_is_in_the_condition_with_a_link(
    tmp_path: Path, pipeline: str, message: str, expected_reason: Reason
) -> None:
    async with open_world(tmp_path, pipeline, script=Script(pending=None)) as world:
        node = {"type": "Pod", "phase": "Pending", "name": "x.root.synthesize.executor", "message": message}

        async def workflows(run_id: str) -> list[dict[str, object]]:
            return [{"metadata": {"name": "x", "namespace": "team"}, "status": {"nodes": {"x": node}}}]

        world.kube.workflows = workflows  # type: ignore[method-assign]
        await world.until(lambda: world.kube.status.current is not None)
        await world.until(lambda: reason(world, ConditionType.PROGRESSING)[1] is expected_reason)
        told = world.kube.status.condition(ConditionType.PROGRESSING)
        assert told is not None
        assert message in told.message
        assert told.message.endswith(f"https://kubeflow.example/#/runs/details/{FIRST}")


async def test_a_trainjob_that_waits_for_quota_is_in_the_condition(tmp_path: Path, pipeline: str) -> None:
    spread = {"queue": "research", "trainJob": {"numNodes": 2}}
    async with open_world(tmp_path, pipeline, script=Script(running=600), pipeline=spread) as world:
        labels = {STAGE_LABEL: "finetune", QUEUE_LABEL: "research"}

        async def train_jobs(run_id: str) -> list[dict[str, object]]:
            return [{"metadata": {"name": "job", "labels": labels}, "spec": {"suspend": True}}]

        world.kube.train_jobs = train_jobs  # type: ignore[method-assign]
        await world.until(lambda: world.kube.status.current is not None)
        await world.until(lambda: reason(world, ConditionType.PROGRESSING)[1] is Reason.AWAITING_QUOTA)
        told = world.kube.status.condition(ConditionType.PROGRESSING)
        assert told is not None
        assert "the TrainJob job of stage finetune waits for quota in the queue research of Kueue" in told.message


async def test_a_success_without_a_result_is_no_success(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, generations={"max": 1, "maxAttempts": 2}) as world:
        world.double.on_end(None)
        status = await world.to_the_end()
        assert reason(world, ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.ATTEMPTS_EXHAUSTED)
        assert [attempt.reason for attempt in status.generations[0].attempts] == [Reason.RESULT_MISSING] * 2


async def test_a_run_that_kfp_refuses_fails_with_kfps_own_words(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline) as world:
        world.double.fail_next("create_run", 400, text="InvalidInputError: unknown field")
        status = await world.to_the_end()
        assert reason(world, ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.PIPELINE_INVALID)
        failed = status.condition(ConditionType.FAILED)
        assert failed is not None
        assert "refused" in failed.message


async def test_a_frozen_pipeline_that_was_deleted_is_made_again_and_one_that_was_changed_is_not_used(
    tmp_path: Path, pipeline: str
) -> None:
    async with open_world(tmp_path, pipeline) as world:
        await world.until(lambda: world.kube.status.snapshot is not None)
        (name,) = world.kube.config_maps
        del world.kube.config_maps[name]
        world.reconciler = None  # a process that has seen the pipeline needs no ConfigMap to know it
        await world.until(lambda: len(world.kube.status.generations) == 2)
        assert name in world.kube.config_maps
        await world.to_the_end()
        assert world.executions == expected(2)

    async with open_world(tmp_path / "changed", pipeline) as world:
        await world.until(lambda: world.kube.status.snapshot is not None)
        changed = {"pipeline.json": pipeline.replace("perseid-generation", "evil-generation")}
        world.kube.config_maps[name]["data"] = changed
        world.reconciler = None
        await world.until(lambda: world.kube.status.phase.is_terminal)
        assert reason(world, ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.PIPELINE_INVALID)


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


async def test_a_deleted_object_stops_its_run_before_it_goes_also_when_no_operator_was_there(
    tmp_path: Path, pipeline: str
) -> None:
    async with open_world(tmp_path, pipeline) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        world.reconciler = None  # the operator was down meanwhile
        await clean_up(world)
        assert world.alive() == 0


async def test_a_deleted_object_takes_its_files_along_where_its_spec_says_so_once_its_run_is_stopped(
    tmp_path: Path, pipeline: str
) -> None:
    async with open_world(tmp_path, pipeline, reclaimPolicy="delete") as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        root = tmp_path / "team" / f"{NAME}-{UID}"
        for name in ("generations/000/attempts/0/finetune/model", "evaluations/dev/scores.json", "notes.md"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        assert world.kube.run is not None
        assert leaves_files(world.kube.run)
        world.reconciler = None
        await clean_up(world)
        assert world.alive() == 0
        assert [path.name for path in root.iterdir()] == ["notes.md"], "what is not the run's stays"
        await clean_up(world)  # a crash after it: once more


async def test_the_files_of_a_finished_run_can_be_deleted_although_kfp_has_gone(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, reclaimPolicy="delete") as world:
        await world.to_the_end()
        root = tmp_path / "team" / f"{NAME}-{UID}"
        assert (root / "generations").is_dir()
        world.double.fail_next("list_runs", 500, times=1000)
        await clean_up(world)
        assert not (root / "generations").exists()


@pytest.mark.parametrize("spec", [{}, {"reclaimPolicy": "retain"}])
async def test_files_stay_where_nobody_asked_to_delete_them(
    tmp_path: Path, pipeline: str, spec: dict[str, str]
) -> None:
    async with open_world(tmp_path, pipeline, **spec) as world:
        await world.to_the_end()
        assert world.kube.run is not None
        assert not leaves_files(world.kube.run)
        await clean_up(world)
        assert (tmp_path / "team" / f"{NAME}-{UID}" / "generations").is_dir()


@pytest.mark.parametrize("sees_workflows", [True, False])
async def test_a_deleted_object_waits_for_a_submission_in_doubt(
    tmp_path: Path, pipeline: str, sees_workflows: bool
) -> None:
    async with open_world(tmp_path, pipeline, sees_workflows=sees_workflows) as world:
        world.double.drop_next_create("row", "reset")
        await world.until(lambda: world.submissions["ambiguous"] == 1)
        await clean_up(world)
        assert world.alive() == 0


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
