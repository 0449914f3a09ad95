"""Deadlines and budgets."""

from __future__ import annotations

from decide_scenarios import UID, at, condition, first, go, running, seen, spec, succeeded

from perseid.api.base import replace
from perseid.api.reasons import ConditionStatus, ConditionType, Phase, Reason
from perseid.api.result import MentorBudget, PaidUsage, StageUsage
from perseid.decide import Observed, ObservedRun, Plan, RunState, Submit, Terminate, run_id_of


def test_a_pause_does_not_count_towards_the_deadline() -> None:
    limits = {"activeDeadlineSeconds": 100}
    plan = go(spec(limits, suspend=True), first(spec(limits)), Observed(), at(50))
    plan = go(spec(limits, suspend=True), plan, Observed(), at(5000))
    assert plan.status.phase is Phase.SUSPENDED
    plan = go(spec(limits), plan, Observed(), at(9000))
    assert isinstance(plan.action, Submit)
    assert plan.requeue_after == 50
    plan = go(spec(limits), plan, seen(plan), at(9049))
    assert plan.status.phase is Phase.RUNNING
    plan = go(spec(limits), plan, seen(plan), at(9050))
    assert condition(plan.status, ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.DEADLINE_EXCEEDED)
    assert plan.action == Terminate(run_id_of(UID, 0, 0))


def test_a_result_that_came_in_time_counts_although_it_is_seen_after_the_deadline() -> None:
    wanted = spec({"activeDeadlineSeconds": 100})
    plan = first(wanted)
    plan = go(wanted, plan, succeeded(plan), at(500))
    assert plan.status.phase is Phase.COMPLETED


def test_an_attempt_whose_pods_never_run_fails_at_the_start_deadline_and_is_stopped() -> None:
    wanted = spec({"startDeadlineSeconds": 60}, max_attempts=2)
    plan = first(wanted)
    assert plan.requeue_after == 60
    pending = seen(plan, RunState.PENDING)
    plan = go(wanted, plan, pending, at(59))
    assert condition(plan.status, ConditionType.PROGRESSING) == (ConditionStatus.TRUE, Reason.AWAITING_PODS)
    plan = go(wanted, plan, pending, at(60))
    assert plan.action == Terminate(run_id_of(UID, 0, 0)), "nothing new is submitted while the old run is alive"
    attempt = plan.status.generations[0].attempts[0]
    assert (attempt.reason, attempt.charged) == (Reason.START_DEADLINE_EXCEEDED, True)
    plan = go(wanted, plan, Observed(runs={run_id_of(UID, 0, 0): ObservedRun(RunState.FAILED)}), at(90))
    assert isinstance(plan.action, Submit)
    assert plan.action.attempt == 1


def test_a_run_that_has_started_is_not_stopped_by_the_start_deadline() -> None:
    wanted = spec({"startDeadlineSeconds": 60})
    plan = running(wanted)
    plan = go(wanted, plan, seen(plan), at(500))
    assert plan.action is None


def test_the_gpu_budget_stops_the_run_and_keeps_its_best_model() -> None:
    wanted = spec({"budget": {"gpuHours": 2.0}}, max=3)
    plan = first(wanted)
    plan = go(wanted, plan, seen(plan, RunState.RUNNING, gpu_seconds=3600.0), at(10))
    assert plan.status.columns.gpu_hours == "1.0"
    done = succeeded(plan, candidate=0.7)
    run = done.runs[run_id_of(UID, 0, 0)]
    plan = go(wanted, plan, Observed(runs={run_id_of(UID, 0, 0): ObservedRun(run.state, run.result)}), at(20))
    assert plan.status.usage.gpu_seconds == 3600
    plan = go(wanted, plan, seen(plan, RunState.RUNNING, gpu_seconds=3540.0), at(30))
    assert plan.status.phase is Phase.RUNNING
    plan = go(wanted, plan, seen(plan, RunState.RUNNING, gpu_seconds=3600.0), at(40))
    assert condition(plan.status, ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.BUDGET_EXCEEDED)
    assert plan.action == Terminate(run_id_of(UID, 1, 0))
    assert plan.status.promoted is not None
    assert plan.status.promoted.generation == 0
    assert plan.status.usage.gpu_seconds == 7200


def test_gpus_that_wait_use_up_no_budget() -> None:
    wanted = spec({"budget": {"gpuHours": 2.0}})
    plan = first(wanted)
    queued = {"waiting": Reason.AWAITING_QUOTA, "gpus_waiting": 1.0}
    plan = go(wanted, plan, seen(plan, RunState.RUNNING, gpu_seconds=36_000.0, **queued), at(10))
    assert plan.status.phase is Phase.RUNNING
    assert plan.status.columns.gpu_hours == "0.0"
    plan = go(wanted, plan, seen(plan, RunState.RUNNING, gpu_seconds=39_600.0), at(20))
    assert plan.status.columns.gpu_hours == "1.0", "what has come since it was let in"
    plan = go(wanted, plan, seen(plan, RunState.RUNNING, gpu_seconds=43_200.0, gpus_waiting=0.25), at(30))
    assert plan.status.current is not None
    assert (plan.status.current.gpu_seconds, plan.status.current.gpu_seconds_waited) == (6300, 36_900)
    plan = go(wanted, plan, seen(plan, RunState.RUNNING, gpu_seconds=44_100.0), at(40))
    assert condition(plan.status, ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.BUDGET_EXCEEDED)
    assert plan.status.usage.gpu_seconds == 7200


def test_what_was_used_stays_used_when_a_stage_begins_anew_or_waits_again() -> None:
    wanted = spec()
    plan = first(wanted)
    plan = go(wanted, plan, seen(plan, RunState.RUNNING, gpu_seconds=600.0), at(10))
    for now, told in ((20, 100.0), (30, 600.0)):
        plan = go(wanted, plan, seen(plan, RunState.RUNNING, gpu_seconds=told, gpus_waiting=1.0), at(now))
        assert plan.status.current is not None
        assert (plan.status.current.gpu_seconds, plan.status.current.gpu_seconds_waited) == (600, 0)
    plan = go(wanted, plan, seen(plan, RunState.FAILED, gpu_seconds=630.0), at(40))
    assert plan.status.usage.gpu_seconds == 630, "the rest is counted at the end"


def test_gpu_time_of_a_run_that_is_lost_stays_counted() -> None:
    wanted = spec()
    plan = first(wanted)
    plan = go(wanted, plan, seen(plan, RunState.RUNNING, gpu_seconds=600.0), at(10))
    plan = go(wanted, plan, seen(plan, RunState.MISSING), at(20))
    assert plan.status.usage.gpu_seconds == 600


def test_small_steps_of_gpu_time_do_not_change_the_status() -> None:
    wanted = spec()
    plan = running(wanted)
    again = go(wanted, plan, seen(plan, RunState.RUNNING, gpu_seconds=59.0), at(20))
    assert again.status == plan.status


def test_the_cost_of_mentors_ends_the_run_when_it_reaches_the_budget() -> None:
    wanted = spec({"budget": {"mentorCost": 5.0}}, max=5, patience=5)
    plan = first(wanted)
    result = succeeded(plan).runs[run_id_of(UID, 0, 0)].result
    assert result is not None
    usage = {"mentor-supervised": {"cost": 3.0}, "evaluate": {"cost": 2.5}}
    paid = type(result).model_validate({**result.model_dump(by_alias=False), "usage": usage})
    plan = go(wanted, plan, seen(plan, RunState.SUCCEEDED, result=paid), at(20))
    assert condition(plan.status, ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.BUDGET_EXCEEDED)
    assert plan.status.usage.cost == 5.5


def test_the_tokens_of_mentors_end_the_run_when_they_reach_the_budget() -> None:
    wanted = spec({"methods": ["meteor"], "budget": {"mentorTokens": 2000}}, max=5, patience=5)
    plan = first(wanted)
    for generation, (phase, tokens) in enumerate([(Phase.RUNNING, 1999), (Phase.FAILED, 2000)]):
        made = succeeded(plan, candidate=0.7).runs[run_id_of(UID, generation, 0)].result
        assert made is not None
        usage = {
            "mentor-supervised": StageUsage(paid_tokens=tokens - 1 if generation == 0 else 0, prompt_tokens=10**6),
            "self-assessment": StageUsage(paid_tokens=1, cost=0.25, completion_tokens=10**6),
        }
        plan = go(wanted, plan, seen(plan, RunState.SUCCEEDED, result=replace(made, usage=usage)), at(20 + generation))
        assert (plan.status.phase, plan.status.usage.mentor_tokens) == (phase, tokens)
    assert plan.status.usage.cost == 0.5
    failed = plan.status.condition(ConditionType.FAILED)
    assert failed is not None
    assert failed.reason is Reason.BUDGET_EXCEEDED
    assert "Mentors have used 2,000 tokens; budget.mentorTokens is 2,000." in failed.message
    assert plan.status.promoted is not None
    assert plan.status.promoted.generation == 1, "its best model stays"
    assert plan.action is None


def test_what_mentors_cost_failed_attempts_is_counted_and_only_once() -> None:
    wanted = spec({"methods": ["meteor"]}, max=5, patience=5, max_attempts=5)
    plan = first(wanted)
    # An attempt takes over what the last one has paid for, so each tells the cost of its generation up to then.
    for number, (cost, tokens) in enumerate([(1.5, 100), (4.0, 300), (4.0, 300)]):
        failed = seen(plan, RunState.FAILED, error="no disk", paid=PaidUsage(cost=cost, tokens=tokens))
        plan = go(wanted, plan, failed, at(20 + number))
        assert (plan.status.usage.cost, plan.status.usage.mentor_tokens) == (cost, tokens)
    made = succeeded(plan, candidate=0.7).runs[run_id_of(UID, 0, 3)].result
    assert made is not None
    paid = replace(made, usage={"self-assessment": StageUsage(cost=6.0, paid_tokens=500)})
    plan = go(wanted, plan, seen(plan, RunState.SUCCEEDED, result=paid), at(30))
    assert plan.status.generations[0].paid == PaidUsage(cost=6.0, tokens=500)
    plan = go(wanted, plan, seen(plan, RunState.FAILED, error="no disk", paid=PaidUsage(cost=1.0, tokens=50)), at(40))
    assert plan.status.generations[-1].index == 1
    assert (plan.status.usage.cost, plan.status.usage.mentor_tokens) == (7.0, 550)


def test_a_budget_that_is_raised_before_it_is_reached_lets_the_run_go_on() -> None:
    low, high = (spec({"budget": {"mentorTokens": tokens}}, max=5, patience=5) for tokens in (100, 1000))
    plan = first(low)
    made = succeeded(plan).runs[run_id_of(UID, 0, 0)].result
    assert made is not None
    paid = replace(made, usage={"self-assessment": StageUsage(paid_tokens=100)})
    assert go(low, plan, seen(plan, RunState.SUCCEEDED, result=paid), at(20)).status.phase is Phase.FAILED
    plan = go(high, plan, seen(plan, RunState.SUCCEEDED, result=paid), at(20))
    assert isinstance(plan.action, Submit)


def refused(plan: Plan, **budget: float) -> Observed:
    """An attempt whose first stage could pay for nothing with this budget."""
    failure = ObservedRun(
        RunState.FAILED,
        error="mentor-supervised: no question could be taught; raise spec.budget.mentorCost",
        failed_stage="mentor-supervised",
        spent_budget=MentorBudget(**budget),
    )
    assert plan.status.current is not None
    return Observed(runs={plan.status.current.run_id: failure})


def test_a_stage_that_the_rest_of_the_budget_pays_nothing_of_ends_the_run_at_once() -> None:
    retry_always = {"rules": [{"action": "ignore"}]}
    wanted = spec({"budget": {"mentorCost": 5.0}, "failurePolicy": retry_always}, max=5, patience=5)
    plan = first(wanted)
    plan = go(wanted, plan, refused(plan, mentor_cost=5.0), at(20))
    assert plan.status.phase is Phase.FAILED
    assert plan.status.generations[-1].attempts[-1].reason is Reason.BUDGET_EXCEEDED
    failed = plan.status.condition(ConditionType.FAILED)
    assert failed is not None
    assert failed.reason is Reason.BUDGET_EXCEEDED
    assert "no question could be taught; raise spec.budget.mentorCost" in failed.message


def test_a_stage_that_lacked_a_budget_which_was_raised_meanwhile_is_tried_again() -> None:
    wanted = spec({"budget": {"mentorCost": 9.0}}, max=5, patience=5)
    plan = first(wanted)
    plan = go(wanted, plan, refused(plan, mentor_cost=5.0), at(20))
    assert plan.status.phase is Phase.RUNNING
    assert plan.status.generations[-1].charged_attempts == 1
