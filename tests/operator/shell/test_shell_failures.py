"""What fails around a run or in it, seen from Kubernetes: lost runs, dead pods, refusals, and what is waited for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shell_world import FIRST, NAME, UID, expected, open_world, reason

from kfp_double.simulation import Script
from perseid.api.pipeline import QUEUE_LABEL, STAGE_LABEL
from perseid.api.reasons import AttemptState, ConditionStatus, ConditionType, Phase, Reason
from perseid_operator.kfp import KfpClient, KfpSettings


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
