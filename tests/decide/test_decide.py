from datetime import datetime

import pytest
from decide_scenarios import START, UID, at, first, fresh, result, score, seen, spec, succeeded

from perseid.api.base import replace
from perseid.api.identity import spec_digest
from perseid.api.lifecycle import PromotionSpec
from perseid.api.reasons import AttemptState, ConditionStatus, ConditionType, GenerationPhase, Phase, Reason
from perseid.api.result import Gain
from perseid.api.status import EvolutionRunStatus
from perseid.decide import Observed, ObservedRun, Plan, RunState, Submit, Terminate, decide, run_id_of
from perseid.decide.promotion import judge


def reason_of(status: EvolutionRunStatus, type_: ConditionType) -> Reason | None:
    condition = status.condition(type_)
    return condition.reason if condition is not None else None


def test_the_first_decision_submits_generation_0_from_the_base() -> None:
    wanted = spec(max=3)
    plan = decide(wanted, fresh(), Observed(spec_generation=4), START)
    assert isinstance(plan.action, Submit)
    assert (plan.action.generation, plan.action.attempt) == (0, 0)
    assert plan.action.run_id == run_id_of(UID, 0, 0)
    assert plan.action.start_model.is_base
    assert plan.action.start_model.uri == wanted.model.ref
    assert plan.status.phase is Phase.RUNNING
    assert plan.status.observed_generation == 4
    assert plan.status.spec_digest == spec_digest(wanted)
    assert plan.status.started_at == START


def test_the_intent_stands_in_the_status_that_comes_with_the_submission() -> None:
    plan = first(spec())
    assert plan.status.current is not None
    assert isinstance(plan.action, Submit)
    assert plan.status.current.run_id == plan.action.run_id
    assert plan.status.current.intent_time == START
    assert plan.status.generations[0].attempts[0].state is AttemptState.SUBMITTING


@pytest.mark.parametrize("observed", [Observed(), Observed(runs={run_id_of(UID, 0, 0): ObservedRun(RunState.MISSING)})])
def test_a_crash_between_intent_and_submission_leads_to_the_same_submission(observed: Observed) -> None:
    before = first(spec())
    restored = EvolutionRunStatus.model_validate_json(before.status.model_dump_json(by_alias=True))
    after = decide(spec(), restored, observed, at(500))
    assert after.action == before.action
    assert after.status.current is not None
    assert before.status.current is not None
    assert after.status.current.run_id == before.status.current.run_id


def test_a_run_that_is_under_way_is_waited_for() -> None:
    plan = first(spec())
    for state, attempt in [(RunState.PENDING, AttemptState.PENDING), (RunState.RUNNING, AttemptState.RUNNING)]:
        plan = decide(spec(), plan.status, seen(plan, state), at(10))
        assert plan.action is None
        assert plan.status.generations[0].attempts[0].state is attempt
    assert reason_of(plan.status, ConditionType.PROGRESSING) is Reason.GENERATION_IN_PROGRESS


def test_an_unclear_answer_is_waited_out_even_for_a_run_that_was_never_seen() -> None:
    plan = first(spec())
    plan = decide(spec(), plan.status, seen(plan, RunState.UNKNOWN), at(10))
    assert plan.action is None
    assert plan.status.generations[0].attempts[0].state is AttemptState.SUBMITTING


def test_a_better_model_is_promoted_and_the_next_generation_starts_from_it() -> None:
    wanted = spec(max=2)
    plan = first(wanted)
    plan = decide(wanted, plan.status, succeeded(plan, candidate=0.6, parent=0.4), at(60))
    assert plan.status.generations[0].phase is GenerationPhase.PROMOTED
    assert plan.status.promoted == result(0).candidate
    assert plan.status.promoted_score == 0.6
    assert isinstance(plan.action, Submit)
    assert plan.action.generation == 1
    assert plan.action.start_model == plan.status.promoted


def test_a_rejected_model_leaves_the_old_start_in_place() -> None:
    wanted = spec(max=3, patience=2)
    plan = first(wanted)
    plan = decide(wanted, plan.status, succeeded(plan, candidate=0.41, parent=0.4), at(60))
    assert plan.status.generations[0].phase is GenerationPhase.REJECTED
    assert plan.status.patience_used == 1
    assert plan.status.promoted_score == 0.4
    assert isinstance(plan.action, Submit)
    assert plan.action.start_model.is_base


@pytest.mark.parametrize(
    ("rule", "least", "candidate", "half_width", "promoted"),
    [
        ("interval", 0.0, 0.5, 0.05, True),
        ("interval", 0.0, 0.5, 0.1, False),  # the interval touches 0
        ("interval", 0.0, 0.5, 0.2, False),
        ("interval", 0.06, 0.5, 0.05, False),
        ("interval", -0.2, 0.35, 0.05, True),
        ("improvement", 0.0, 0.41, 0.3, True),
        ("improvement", 0.0, 0.4, 0.0, False),
        ("improvement", 0.2, 0.5, 0.0, False),
        ("improvement", -0.1, 0.35, 0.3, True),
    ],
)
def test_promotion_follows_the_rule(
    rule: str, least: float, candidate: float, half_width: float, promoted: bool
) -> None:
    wanted = spec(promotion={"rule": rule, "minImprovement": least})
    plan = first(wanted)
    made = succeeded(plan, candidate=candidate, parent=0.4, half_width=half_width)
    plan = decide(wanted, plan.status, made, at(60))
    expected = GenerationPhase.PROMOTED if promoted else GenerationPhase.REJECTED
    assert plan.status.generations[0].phase is expected
    assert plan.status.generations[0].result is not None
    assert "gain on dev" in plan.status.generations[0].result.message


def test_a_generation_without_a_model_is_skipped_and_uses_patience() -> None:
    wanted = spec(max=3, patience=1)
    plan = first(wanted)
    plan = decide(wanted, plan.status, succeeded(plan, candidate=None), at(60))
    assert plan.status.generations[0].phase is GenerationPhase.SKIPPED
    assert plan.status.generations[0].result is not None
    assert "3 training records" in plan.status.generations[0].result.message
    assert plan.status.phase is Phase.COMPLETED
    assert reason_of(plan.status, ConditionType.COMPLETE) is Reason.PATIENCE_USED_UP


def test_a_promotion_gives_the_patience_back() -> None:
    wanted = spec(max=10, patience=2)
    plan = first(wanted)
    for second, candidate in enumerate([0.4, 0.9, 0.4]):
        plan = decide(wanted, plan.status, succeeded(plan, candidate=candidate, parent=0.4), at(second))
    assert plan.status.patience_used == 1
    assert plan.status.phase is Phase.RUNNING


def test_the_run_completes_after_its_last_generation() -> None:
    wanted = spec(max=2)
    plan = first(wanted)
    plan = decide(wanted, plan.status, succeeded(plan, candidate=0.6), at(60))
    plan = decide(wanted, plan.status, succeeded(plan, candidate=0.9, parent=0.6), at(120))
    assert plan.action is None
    assert plan.status.phase is Phase.COMPLETED
    assert plan.status.finished_at == at(120)
    assert plan.status.current is None
    complete = plan.status.condition(ConditionType.COMPLETE)
    assert complete is not None
    assert complete.reason is Reason.MAX_GENERATIONS
    assert "the model of generation 1" in complete.message
    assert "0.900" in complete.message


FAILURES = [
    (ObservedRun(RunState.FAILED, error="CUDA out of memory"), Reason.RUN_FAILED, True, "CUDA out of memory"),
    (ObservedRun(RunState.FAILED), Reason.RUN_FAILED, True, "without saying why"),
    (
        ObservedRun(RunState.FAILED, error="evicted", reason=Reason.INFRASTRUCTURE_FAULT),
        Reason.INFRASTRUCTURE_FAULT,
        False,
        "evicted",
    ),
    (ObservedRun(RunState.MISSING), Reason.RUN_LOST, False, "lost"),
    (ObservedRun(RunState.SUCCEEDED), Reason.RESULT_MISSING, True, "left no result.json"),
    (ObservedRun(RunState.SUCCEEDED, result_error="dev: NaN"), Reason.RESULT_INVALID, True, "dev: NaN"),
    (ObservedRun(RunState.SUCCEEDED, result=result(1)), Reason.RESULT_INVALID, True, "of generation 1"),
    (ObservedRun(RunState.SUCCEEDED, result=result(0, 1)), Reason.RESULT_INVALID, True, "attempt 1"),
]


@pytest.mark.parametrize(("run", "reason", "charged", "message"), FAILURES)
def test_a_failed_attempt_says_why_and_is_charged_only_for_its_own_faults(
    run: ObservedRun, reason: Reason, charged: bool, message: str
) -> None:
    plan = first(spec())
    plan = decide(spec(), plan.status, seen(plan), at(10))
    plan = decide(spec(), plan.status, Observed(runs={run_id_of(UID, 0, 0): run}), at(20))
    generation = plan.status.generations[0]
    attempt = generation.attempts[0]
    assert (attempt.state, attempt.reason, attempt.charged) == (AttemptState.FAILED, reason, charged)
    assert message in attempt.message
    assert generation.charged_attempts == int(charged)
    assert attempt.finished_at == at(20)


def test_a_failure_of_the_runs_own_is_tried_again_at_once_under_a_new_id() -> None:
    plan = first(spec())
    plan = decide(spec(), plan.status, seen(plan, RunState.FAILED, error="boom"), at(10))
    assert isinstance(plan.action, Submit)
    assert (plan.action.generation, plan.action.attempt) == (0, 1)
    assert plan.action.run_id == run_id_of(UID, 0, 1)


def test_an_infrastructure_fault_is_waited_out_longer_each_time() -> None:
    plan, now, waits = first(spec(max_attempts=1)), 0.0, []
    for _ in range(7):
        plan = decide(
            spec(max_attempts=1), plan.status, seen(plan, RunState.FAILED, reason=Reason.INFRASTRUCTURE_FAULT), at(now)
        )
        assert plan.action is None
        assert plan.requeue_after is not None
        waits.append(plan.requeue_after)
        assert reason_of(plan.status, ConditionType.PROGRESSING) is Reason.RETRYING
        now += plan.requeue_after
        plan = decide(spec(max_attempts=1), plan.status, Observed(), at(now))
        assert isinstance(plan.action, Submit)
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    assert plan.status.phase is Phase.RUNNING


def test_a_clock_that_was_set_back_does_not_make_a_retry_wait_for_ever() -> None:
    plan = first(spec())
    plan = decide(spec(), plan.status, seen(plan, RunState.FAILED, reason=Reason.INFRASTRUCTURE_FAULT), at(10_000))
    assert isinstance(decide(spec(), plan.status, Observed(), at(0)).action, Submit)


def test_the_run_fails_when_its_attempts_are_used_up_and_keeps_its_best_model() -> None:
    wanted = spec(max=3, max_attempts=2)
    plan = first(wanted)
    plan = decide(wanted, plan.status, succeeded(plan, candidate=0.7), at(60))
    for second in (70, 80):
        plan = decide(wanted, plan.status, seen(plan, RunState.FAILED, error="disk full"), at(second))
    assert plan.action is None
    assert plan.status.phase is Phase.FAILED
    assert plan.status.generations[1].phase is GenerationPhase.FAILED
    assert plan.status.promoted == result(0).candidate
    failed = plan.status.condition(ConditionType.FAILED)
    assert failed is not None
    assert failed.reason is Reason.ATTEMPTS_EXHAUSTED
    assert "Generation 1 failed 2 times" in failed.message
    assert "disk full" in failed.message
    assert "the model of generation 0" in failed.message


@pytest.mark.parametrize("wanted", [spec(max=9), spec(max=9, suspend=True), spec(max=1)])
def test_a_final_phase_stays(wanted: object) -> None:
    plan = first(spec())
    done = decide(spec(), plan.status, succeeded(plan), at(60)).status
    assert done.phase is Phase.COMPLETED
    for observed in (Observed(approved_generation=9), Observed(backend_reachable=False)):
        assert decide(wanted, done, observed, at(600)) == Plan(done)  # type: ignore[arg-type]


def test_suspend_submits_nothing() -> None:
    plan = decide(spec(suspend=True), fresh(), Observed(), START)
    assert plan.action is None
    assert plan.status.phase is Phase.SUSPENDED
    assert plan.status.current is None
    assert reason_of(plan.status, ConditionType.SUSPENDED) is Reason.SUSPENDED


def test_suspend_lets_what_runs_finish_and_resume_goes_on() -> None:
    plan = first(spec(max=2))
    plan = decide(spec(max=2, suspend=True), plan.status, seen(plan), at(10))
    assert (plan.action, plan.status.phase) == (None, Phase.RUNNING)
    assert reason_of(plan.status, ConditionType.SUSPENDED) is Reason.DRAINING
    plan = decide(spec(max=2, suspend=True), plan.status, succeeded(plan, candidate=0.7), at(20))
    assert (plan.action, plan.status.phase) == (None, Phase.SUSPENDED)
    assert plan.status.generations[0].phase is GenerationPhase.PROMOTED
    plan = decide(spec(max=2), plan.status, Observed(), at(30))
    assert isinstance(plan.action, Submit)
    assert plan.action.generation == 1
    assert plan.status.phase is Phase.RUNNING
    suspended = plan.status.condition(ConditionType.SUSPENDED)
    assert suspended is not None
    assert (suspended.status, suspended.last_transition_time) == (ConditionStatus.FALSE, at(30))


def test_suspend_between_intent_and_submission_keeps_the_intent() -> None:
    before = first(spec())
    held = decide(spec(suspend=True), before.status, seen(before, RunState.MISSING), at(10))
    assert (held.action, held.status.phase) == (None, Phase.SUSPENDED)
    assert decide(spec(), held.status, Observed(), at(20)).action == before.action


def test_a_run_that_appears_while_suspended_drains() -> None:
    plan = first(spec())
    plan = decide(spec(suspend=True), plan.status, Observed(), at(10))
    plan = decide(spec(suspend=True), plan.status, seen(plan), at(20))
    assert reason_of(plan.status, ConditionType.SUSPENDED) is Reason.DRAINING


def test_a_suspended_run_whose_last_generation_drains_is_complete() -> None:
    plan = first(spec())
    plan = decide(spec(suspend=True), plan.status, succeeded(plan), at(20))
    assert plan.status.phase is Phase.COMPLETED


def test_an_outage_is_a_condition_and_changes_nothing_else() -> None:
    plan = first(spec())
    running = decide(spec(), plan.status, seen(plan), at(10))
    down = Observed(backend_reachable=False, backend_message="connection refused")
    held = decide(spec(), running.status, down, at(20))
    assert held.action is None
    assert held.requeue_after is not None
    ready = held.status.condition(ConditionType.BACKEND_READY)
    assert ready is not None
    assert (ready.status, ready.reason) == (ConditionStatus.FALSE, Reason.UNREACHABLE)
    assert "connection refused" in ready.message
    assert held.status.generations == running.status.generations
    back = decide(spec(), held.status, seen(plan), at(30))
    ready = back.status.condition(ConditionType.BACKEND_READY)
    assert ready is not None
    assert (ready.status, ready.last_transition_time) == (ConditionStatus.TRUE, at(30))


def test_nothing_is_submitted_while_the_backend_is_away() -> None:
    plan = decide(spec(), fresh(), Observed(backend_reachable=False), START)
    assert (plan.action, plan.status.phase, plan.status.current) == (None, Phase.PENDING, None)


def test_a_run_that_appears_late_is_terminated_before_anything_else_is_submitted() -> None:
    plan = first(spec())
    lost = run_id_of(UID, 0, 0)
    doubtful = ObservedRun(RunState.FAILED, reason=Reason.INFRASTRUCTURE_FAULT, error="the submission timed out")
    plan = decide(spec(), plan.status, Observed(runs={lost: doubtful}), at(10))
    late = Observed(runs={lost: ObservedRun(RunState.RUNNING)})
    plan = decide(spec(), plan.status, late, at(60))
    assert plan.action == Terminate(lost)
    assert plan.status.current is None
    plan = decide(spec(), plan.status, Observed(runs={lost: ObservedRun(RunState.FAILED)}), at(70))
    assert isinstance(plan.action, Submit)
    assert plan.action.attempt == 1


@pytest.mark.parametrize("suspended", [False, True])
def test_a_stray_run_beside_the_current_one_is_terminated(suspended: bool) -> None:
    plan = first(spec())
    runs = {**seen(plan).runs, "stray": ObservedRun(RunState.PENDING)}
    plan = decide(spec(suspend=suspended), plan.status, Observed(runs=runs), at(10))
    assert plan.action == Terminate("stray")
    assert plan.status.generations[0].attempts[0].state is AttemptState.RUNNING


def test_a_run_that_comes_back_to_life_after_the_end_is_terminated() -> None:
    plan = first(spec())
    done = decide(spec(), plan.status, succeeded(plan), at(60)).status
    assert decide(spec(), done, seen(plan), at(70)) == Plan(done, Terminate(run_id_of(UID, 0, 0)))


def test_fewer_generations_than_are_done_complete_the_run() -> None:
    plan = first(spec(max=5))
    plan = decide(spec(max=5), plan.status, succeeded(plan, candidate=0.7), at(60))
    plan = decide(spec(max=1), plan.status, succeeded(plan, candidate=0.9, parent=0.7), at(120))
    assert plan.status.phase is Phase.COMPLETED


def test_more_generations_may_be_asked_for_while_the_run_goes_on() -> None:
    plan = first(spec(max=1))
    plan = decide(spec(max=2), plan.status, succeeded(plan, candidate=0.7), at(60))
    assert isinstance(plan.action, Submit)
    assert plan.action.generation == 1


def test_a_decision_is_a_function_of_its_arguments() -> None:
    plan = first(spec())
    observed = succeeded(plan)
    assert decide(spec(), plan.status, observed, at(5)) == decide(spec(), plan.status, observed, at(5))


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        decide(spec(), fresh(), Observed(), datetime(2026, 1, 1))


def test_times_are_written_in_utc_without_fractions() -> None:
    plan = decide(spec(), fresh(), Observed(), datetime.fromisoformat("2026-01-01T14:00:00.75+02:00"))
    assert '"startedAt":"2026-01-01T12:00:00Z"' in plan.status.model_dump_json(by_alias=True)


def test_a_long_history_stays_bounded_and_numbers_go_on() -> None:
    wanted = spec(max=1000, patience=1000, max_attempts=9)
    status, text = fresh(), "y" * 20_000
    plan = decide(wanted, status, Observed(), START)
    for index in range(40):
        for _ in range(8):
            plan = decide(wanted, plan.status, seen(plan, RunState.FAILED, error=text), at(index))
        plan = decide(wanted, plan.status, succeeded(plan, candidate=0.4), at(index))
    assert isinstance(plan.action, Submit)
    assert (plan.action.generation, plan.action.attempt) == (40, 0)
    assert len(plan.status.model_dump_json(by_alias=True)) < 65_536
    assert plan.status.generations[-2].charged_attempts == 8


def test_an_unknown_field_cannot_be_set_by_mistake() -> None:
    with pytest.raises(TypeError, match="no field passAt1"):
        replace(score(0.5), passAt1=0.6)


def test_a_gain_that_only_equals_what_is_asked_is_not_enough() -> None:
    exactly = Gain(value=0.25, low=0.125, high=0.5)
    assert not judge(PromotionSpec(rule="interval", min_improvement=0.125), exactly).promote
    assert not judge(PromotionSpec(rule="improvement", min_improvement=0.25), exactly).promote


def test_times_of_start_and_of_conditions_move_only_with_what_they_tell() -> None:
    plan = first(spec())
    plan = decide(spec(), plan.status, seen(plan), at(50))
    progressing = plan.status.condition(ConditionType.PROGRESSING)
    assert plan.status.started_at == START
    assert progressing is not None
    assert (progressing.reason, progressing.last_transition_time) == (Reason.GENERATION_IN_PROGRESS, START)
