"""What has to be noticed although nothing changes that would wake the operator: time alone passes.

Elsewhere in these tests a pass follows every poll. Here passes are as rare as `perseid_operator.runs` makes them: when
a look at KFP has shown something new, or when the pass before asked for one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from shell_world import FIRST, POLL_SECONDS, Crash, World, expected, open_world

from kfp_double.simulation import Script
from perseid.api.reasons import ConditionType, Reason
from perseid.decide import SUBMIT_SECONDS
from perseid_operator.runs import LONGEST_WAIT_SECONDS

LATE_SECONDS = 60.0
"""How much later than it could be noticed something may be."""
both_sights = pytest.mark.parametrize("sees_workflows", [True, False], ids=["Workflows in sight", "out of sight"])


async def live(world: World, done: Callable[[], bool], within: float) -> None:
    """Let time pass until something is the case, with no more passes than a whole operator would make."""
    now = world.double.clock.now
    began, due = now(), now()
    woken: list[str] = []
    while not done():
        assert now() - began <= within, f"not within {within:.0f} s; the next pass would be in {due - now():.0f} s"
        if woken or now() >= due:
            woken.clear()
            wait = await world.step()
            due = now() + min(LONGEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS if wait is None else wait)
        await world.double.advance(max(0.1, min(POLL_SECONDS, due - now())))
        if world.watch is not None:
            world.watch._wake = woken.append
            await world._round()


@both_sights
async def test_an_intent_that_somebody_else_left_is_carried_out_when_its_grace_time_is_over(
    tmp_path: Path, pipeline: str, sees_workflows: bool
) -> None:
    async with open_world(tmp_path, pipeline, sees_workflows=sees_workflows, generations={"max": 1}) as world:

        def reached(point: str) -> None:
            if point == "before create_run" and not world.crashes:
                world.crashes.append(point)
                raise Crash(point)

        world.reached = reached  # type: ignore[method-assign]
        await world.until(lambda: bool(world.crashes))
        grace = world.grace.with_workflows if sees_workflows else world.grace.without_workflows
        await live(world, lambda: bool(world.executions), SUBMIT_SECONDS + grace + LATE_SECONDS)
        assert world.executions == expected(1)


@both_sights
async def test_an_own_submission_that_did_not_arrive_is_sent_again_when_its_grace_time_is_over(
    tmp_path: Path, pipeline: str, sees_workflows: bool
) -> None:
    async with open_world(tmp_path, pipeline, sees_workflows=sees_workflows, generations={"max": 1}) as world:
        world.double.drop_next_create("request", "reset")
        await world.until(lambda: world.submissions["ambiguous"] == 1)
        grace = world.grace.with_workflows if sees_workflows else world.grace.without_workflows
        await live(world, lambda: bool(world.executions), SUBMIT_SECONDS + grace + LATE_SECONDS)
        assert world.executions == expected(1)


async def test_a_run_whose_workflow_has_gone_is_lost_after_the_time_that_is_set(tmp_path: Path, pipeline: str) -> None:
    script = Script(pending=1, running=None)
    async with open_world(tmp_path, pipeline, script=script, generations={"max": 1}) as world:
        await world.until(lambda: world.kube.status.current is not None and bool(world.kube.status.current.stages))
        await world.double.lose_workflow(FIRST)
        # As open_world sets it up; a pass at a bad moment makes the looks half a time longer.
        await live(world, lambda: is_lost(world), 300 * 1.5 + LATE_SECONDS)


def is_lost(world: World) -> bool:
    newest = world.kube.status.generation
    return newest is not None and newest.attempts[0].reason is Reason.RUN_LOST


async def test_a_budget_of_gpu_hours_ends_the_run_soon_after_it_is_used_up(tmp_path: Path, pipeline: str) -> None:
    script = Script(pending=1, running=None)
    async with open_world(tmp_path, pipeline, script=script, budget={"gpuHours": 1.0}) as world:
        world.kube.edit(pipeline={"stages": {"synthesize": {"gpus": 4}}})
        await world.until(lambda: world.kube.status.current is not None and bool(world.kube.status.current.stages))
        # Four GPUs use an hour's worth in a quarter of one.
        await live(world, lambda: world.kube.status.phase.is_terminal, 900 + LATE_SECONDS)
        failed = world.kube.status.condition(ConditionType.FAILED)
        assert failed is not None
        assert failed.reason is Reason.BUDGET_EXCEEDED


async def test_a_pod_that_waits_in_a_queue_uses_up_no_budget_also_when_the_operator_was_restarted(
    tmp_path: Path, pipeline: str
) -> None:
    script = Script(pending=1, running=None)
    async with open_world(tmp_path, pipeline, script=script, budget={"gpuHours": 1.0}) as world:
        world.kube.edit(pipeline={"queue": "research", "stages": {"synthesize": {"gpus": 4}}})
        node = {"type": "Pod", "phase": "Pending", "name": "x.root.synthesize.executor"}
        one = {"metadata": {"name": "x", "namespace": "team"}, "status": {"phase": "Running", "nodes": {"x": node}}}

        async def workflows(run_id: str) -> list[dict[str, object]]:
            return [one]

        world.kube.workflows = workflows  # type: ignore[method-assign]
        await world.until(lambda: world.kube.status.current is not None and bool(world.kube.status.current.stages))
        queued_until = world.double.clock.now() + 20_000
        await live(world, lambda: world.double.clock.now() > queued_until, 20_100)
        current = world.kube.status.current
        assert current is not None
        assert current.gpu_seconds == 0
        assert current.gpu_seconds_waited > 4 * 19_000
        world.reconciler = None  # nothing but the status is left
        await live(world, lambda: world.double.clock.now() > queued_until + 1000, 1100)
        node["phase"] = "Running"
        await live(world, lambda: world.kube.status.phase.is_terminal, 900 + LATE_SECONDS)
        failed = world.kube.status.condition(ConditionType.FAILED)
        assert failed is not None
        assert failed.reason is Reason.BUDGET_EXCEEDED


async def test_a_run_that_starts_too_late_fails_at_its_start_deadline(tmp_path: Path, pipeline: str) -> None:
    script = Script(pending=None)
    spec = {"startDeadlineSeconds": 700, "generations": {"max": 1, "maxAttempts": 1}}
    async with open_world(tmp_path, pipeline, script=script, **spec) as world:
        await live(world, lambda: world.kube.status.phase.is_terminal, 700 + LATE_SECONDS)


async def test_a_run_that_takes_too_long_fails_at_its_deadline(tmp_path: Path, pipeline: str) -> None:
    script = Script(pending=1, running=None)
    async with open_world(tmp_path, pipeline, script=script, activeDeadlineSeconds=1900) as world:
        await live(world, lambda: world.kube.status.phase.is_terminal, 1900 + LATE_SECONDS)
