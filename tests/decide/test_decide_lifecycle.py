"""What holds and ends a run from outside its generations, but for its limits."""

from __future__ import annotations

import pytest
from decide_scenarios import START, UID, at, condition, first, fresh, go, running, seen, spec, succeeded

from perseid.api.base import replace
from perseid.api.reasons import ConditionStatus, ConditionType, Phase, Reason
from perseid.api.result import ModelRef
from perseid.api.spec import EvolutionRunSpec
from perseid.api.status import EvolutionRunStatus, Snapshot
from perseid.decide import (
    CleanUp,
    DeleteObject,
    Observed,
    ObservedRun,
    PipelineState,
    Plan,
    RunState,
    StartModel,
    Submit,
    Terminate,
    clean_up,
    decide,
    run_id_of,
)


def test_suspending_by_termination_stops_the_run_and_resuming_tries_the_generation_again() -> None:
    wanted = spec({"suspendPolicy": "terminate"}, suspend=True)
    plan = running(spec({"suspendPolicy": "terminate"}))
    run_id = run_id_of(UID, 0, 0)
    plan = go(wanted, plan, seen(plan), at(20))
    assert plan.action == Terminate(run_id)
    assert condition(plan.status, ConditionType.SUSPENDED) == (ConditionStatus.FALSE, Reason.STOPPING)

    alive = Observed(runs={run_id: ObservedRun(RunState.RUNNING)})
    assert go(wanted, plan, alive, at(25)).action == Terminate(run_id), "it is told again while it is alive"
    over = Observed(runs={run_id: ObservedRun(RunState.FAILED)})
    plan = go(wanted, plan, over, at(30))
    assert plan.status.phase is Phase.SUSPENDED

    plan = go(spec(), plan, over, at(1030))
    assert isinstance(plan.action, Submit)
    assert (plan.action.generation, plan.action.attempt) == (0, 1)
    assert plan.status.generations[0].charged_attempts == 0
    assert plan.status.suspended_seconds == 1000


PAGE = "https://kubeflow.example/#/runs/details/1"


def waiting(plan: Plan, state: RunState, reason: Reason | None, message: str = "") -> Observed:
    run = ObservedRun(state, waiting=reason, waiting_message=message, url=PAGE)
    return Observed(runs={run_id_of(UID, 0, 0): run})


def progressing(plan: Plan) -> tuple[Reason, str]:
    found = plan.status.condition(ConditionType.PROGRESSING)
    assert found is not None
    return found.reason, found.message


def test_what_a_pod_waits_for_is_told_with_a_link_and_forgotten_when_it_runs() -> None:
    plan = first(spec())
    plan = go(spec(), plan, waiting(plan, RunState.PENDING, Reason.AWAITING_QUOTA, "the queue a is full"), at(10))
    reason, message = progressing(plan)
    assert reason is Reason.AWAITING_QUOTA
    assert "the queue a is full" in message
    assert message.endswith(PAGE)
    plan = go(spec(), plan, waiting(plan, RunState.PENDING, None), at(20))
    assert progressing(plan)[0] is Reason.AWAITING_PODS
    assert "queue" not in progressing(plan)[1]
    plan = go(spec(), plan, waiting(plan, RunState.RUNNING, None), at(30))
    assert progressing(plan)[0] is Reason.GENERATION_IN_PROGRESS
    plan = go(spec(), plan, waiting(plan, RunState.RUNNING, Reason.AWAITING_QUOTA, "no GPU is left"), at(40))
    assert progressing(plan)[0] is Reason.AWAITING_QUOTA, "a later stage can wait as well"
    assert "its next pod waits: no GPU is left" in progressing(plan)[1]


def test_the_page_of_a_failed_run_stands_in_every_message_about_it() -> None:
    wanted = spec({"generations": {"max": 2, "maxAttempts": 1}})
    plan = first(wanted)
    failed = Observed(runs={run_id_of(UID, 0, 0): ObservedRun(RunState.FAILED, error="no luck", url=PAGE)})
    plan = go(wanted, plan, failed, at(10))
    assert plan.status.generations[0].attempts[0].url == PAGE
    told = plan.status.condition(ConditionType.FAILED)
    assert told is not None
    assert told.message.endswith(PAGE)

    lost = ObservedRun(RunState.FAILED, reason=Reason.NODE_LOST, error="no node", url=PAGE)
    plan = go(spec(), first(spec()), Observed(runs={run_id_of(UID, 0, 0): lost}), at(10))
    reason, message = progressing(plan)
    assert reason is Reason.RETRYING
    assert message.endswith(PAGE)


def test_the_next_generation_waits_for_its_approval() -> None:
    wanted = spec(max=3, approval="manual")
    plan = first(wanted)
    plan = go(wanted, plan, succeeded(plan, candidate=0.7), at(20))
    assert plan.action is None
    told = plan.status.condition(ConditionType.PROGRESSING)
    assert told is not None
    assert (told.status, told.reason) == (ConditionStatus.FALSE, Reason.AWAITING_APPROVAL)
    assert "perseid.dev/approved-generation=1" in told.message
    later = go(wanted, plan, Observed(approved_generation=0), at(500))
    assert later.status == plan.status, "waiting changes nothing, so nothing is written"
    plan = go(wanted, plan, Observed(approved_generation=1), at(600))
    assert isinstance(plan.action, Submit)
    assert plan.action.generation == 1


def test_a_retry_within_an_approved_generation_needs_no_approval() -> None:
    wanted = spec(max=3, approval="manual")
    plan = first(wanted)
    plan = go(wanted, plan, seen(plan, RunState.FAILED, error="boom"), at(20))
    assert isinstance(plan.action, Submit)
    assert plan.action.attempt == 1


@pytest.mark.parametrize(
    ("rule", "charged", "phase"),
    [
        ({"reasons": ["OutOfMemory"], "action": "fail"}, 1, Phase.FAILED),
        ({"reasons": ["OutOfMemory"], "stages": ["finetune"], "action": "ignore"}, 0, Phase.RUNNING),
        ({"reasons": ["OutOfMemory"], "stages": ["evaluate"], "action": "ignore"}, 1, Phase.RUNNING),
        ({"stages": ["self-assessment", "finetune"], "action": "fail"}, 1, Phase.FAILED),
        ({"stages": ["self-assessment", "self-evolution"], "action": "fail"}, 1, Phase.RUNNING),
        ({"reasons": ["RunFailed"], "action": "fail"}, 1, Phase.RUNNING),
        ({"action": "ignore"}, 0, Phase.RUNNING),
    ],
)
def test_the_first_rule_that_matches_decides_what_follows_from_a_failure(
    rule: dict[str, object], charged: int, phase: Phase
) -> None:
    wanted = spec({"failurePolicy": {"rules": [rule, {"reasons": ["OutOfMemory"], "action": "count"}]}})
    plan = first(wanted)
    failed = seen(plan, RunState.FAILED, reason=Reason.OUT_OF_MEMORY, failed_stage="finetune", error="killed: 64Gi")
    plan = go(wanted, plan, failed, at(20))
    assert plan.status.generations[0].charged_attempts == charged
    assert plan.status.phase is phase
    if phase is Phase.FAILED:
        assert condition(plan.status, ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.FAILURE_POLICY)


@pytest.mark.parametrize(
    ("reason", "charged"),
    [
        (Reason.RUN_FAILED, 1),
        (Reason.OUT_OF_MEMORY, 1),
        (Reason.IMAGE_PULL_FAILED, 1),
        (Reason.DEADLINE_EXCEEDED, 1),
        (Reason.PREEMPTED, 0),
        (Reason.NODE_LOST, 0),
        (Reason.INFRASTRUCTURE_FAULT, 0),
    ],
)
def test_without_rules_only_failures_of_the_runs_own_are_charged(reason: Reason, charged: int) -> None:
    plan = first(spec())
    plan = go(spec(), plan, seen(plan, RunState.FAILED, reason=reason, error="x"), at(20))
    assert plan.status.generations[0].charged_attempts == charged


def test_a_finished_object_is_deleted_when_its_time_is_up_and_not_before_its_runs_are_gone() -> None:
    wanted = spec({"ttlSecondsAfterFinished": 60})
    plan = first(wanted)
    plan = go(wanted, plan, succeeded(plan), at(20))
    assert plan.status.phase is Phase.COMPLETED
    waiting = go(wanted, plan, Observed(), at(50))
    assert (waiting.action, waiting.requeue_after) == (None, 30.0)
    back = Observed(runs={run_id_of(UID, 0, 0): ObservedRun(RunState.RUNNING)})
    assert isinstance(go(wanted, plan, back, at(5000)).action, Terminate)
    assert go(wanted, plan, Observed(), at(80)).action == DeleteObject()
    assert go(spec(), plan, Observed(), at(10**6)).action is None, "without a limit it stays"


def test_nothing_is_submitted_before_the_pipeline_is_compiled() -> None:
    plan = decide(spec(), fresh(), Observed(pipeline=PipelineState(ready=False)), START)
    assert plan.action is None
    assert condition(plan.status, ConditionType.ACCEPTED) == (ConditionStatus.FALSE, Reason.COMPILING)
    snapshot = Snapshot(config_map="x-pipeline", pipeline_digest=f"sha256:{'0' * 64}", perseid_version="1")
    plan = go(spec(), plan, Observed(pipeline=PipelineState(snapshot=snapshot)), at(5))
    assert isinstance(plan.action, Submit)
    assert plan.status.snapshot == snapshot


def test_a_pipeline_that_does_not_compile_fails_the_run_and_says_why() -> None:
    plan = decide(spec(), fresh(), Observed(pipeline=PipelineState(ready=False, error="stages: too big")), START)
    assert condition(plan.status, ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.PIPELINE_INVALID)
    failed = plan.status.condition(ConditionType.FAILED)
    assert failed is not None
    assert "too big" in failed.message


def test_a_run_from_another_runs_best_model_waits_for_it_and_starts_from_it() -> None:
    wanted = EvolutionRunSpec.model_validate({"model": {"evolutionRun": "parent"}})
    none_yet = StartModel(None, "it has promoted none yet")
    plan = decide(wanted, fresh(), Observed(start_model=none_yet), START)
    assert plan.action is None
    accepted = plan.status.condition(ConditionType.ACCEPTED)
    assert accepted is not None
    assert accepted.reason is Reason.AWAITING_START_MODEL
    assert "parent" in accepted.message
    model = ModelRef(uri="s3://b/parent/model", model_id="abc", generation=4)
    plan = go(wanted, plan, Observed(start_model=StartModel(model)), at(60))
    assert isinstance(plan.action, Submit)
    assert plan.action.start_model.uri == model.uri
    assert plan.action.start_model.is_base
    other = StartModel(ModelRef(uri="s3://b/parent/newer", generation=5))
    later = go(wanted, plan, Observed(start_model=other), at(70))
    assert later.status.promoted == plan.status.promoted, "what a run starts from is frozen when it is accepted"


@pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.UNAUTHORIZED, Reason.RATE_LIMITED])
def test_an_outage_is_a_condition_with_its_reason_and_uses_up_nothing(reason: Reason) -> None:
    plan = running(spec())
    out = Observed(backend_reachable=False, backend_reason=reason, backend_message="no route")
    after = go(spec(), plan, out, at(3600))
    assert condition(after.status, ConditionType.BACKEND_READY) == (ConditionStatus.FALSE, reason)
    assert after.status.generations == plan.status.generations
    assert after.status.columns.reason == reason.value


def test_nothing_is_submitted_while_an_earlier_attempts_run_cannot_be_spoken_for() -> None:
    plan = first(spec())
    old = run_id_of(UID, 0, 0)
    plan = go(spec(), plan, seen(plan, RunState.FAILED, error="x"), at(10))
    lost = replace(plan.status, current=None)
    waiting = decide(spec(), lost, Observed(runs={old: ObservedRun(RunState.UNKNOWN)}), at(20))
    assert waiting.action is None
    assert waiting.requeue_after is not None


def test_generations_that_the_status_has_no_room_for_are_handed_over_to_be_kept() -> None:
    wanted = spec(max=100, patience=100)
    plan = first(wanted)
    evicted = []
    for step in range(60):
        plan = go(wanted, plan, succeeded(plan), at(10 * step))
        evicted += plan.evicted
    kept = [generation.index for generation in plan.status.generations]
    assert [generation.index for generation in evicted] + kept == list(range(61))


def test_the_columns_say_how_far_the_run_is() -> None:
    wanted = spec(max=5)
    plan = running(wanted)
    assert (plan.status.columns.generation, plan.status.columns.reason) == ("0/5", "GenerationInProgress")
    plan = go(wanted, plan, succeeded(plan, candidate=0.62), at(20))
    columns = plan.status.columns
    assert (columns.generation, columns.score, columns.best) == ("1/5", "0.620", "0.620")
    plan = go(wanted, plan, succeeded(plan, candidate=0.6, parent=0.62), at(40))
    columns = plan.status.columns
    assert (columns.generation, columns.score, columns.best) == ("2/5", "0.600", "0.620")
    assert columns.reason == "PatienceUsedUp"


def test_the_columns_keep_the_newest_run_and_its_page_when_it_is_over() -> None:
    wanted = spec(max=1)
    plan = first(wanted)
    assert (plan.status.columns.run, plan.status.columns.link) == (run_id_of(UID, 0, 0), "")
    plan = go(wanted, plan, seen(plan, RunState.RUNNING, url="https://kubeflow.example/run"), at(10))
    assert plan.status.columns.link == "https://kubeflow.example/run"
    plan = go(wanted, plan, succeeded(plan), at(20))
    assert plan.status.phase is Phase.COMPLETED
    assert plan.status.current is None
    assert (plan.status.columns.run, plan.status.columns.link) == (run_id_of(UID, 0, 0), "https://kubeflow.example/run")


def test_a_new_attempt_s_column_does_not_lead_to_the_run_before_it() -> None:
    wanted = spec(max=2, patience=5)
    plan = first(wanted)
    plan = go(wanted, plan, seen(plan, RunState.RUNNING, url="https://kubeflow.example/run"), at(10))
    plan = go(wanted, plan, succeeded(plan), at(20))
    assert isinstance(plan.action, Submit)
    assert (plan.status.columns.run, plan.status.columns.link) == (run_id_of(UID, 1, 0), "")


def test_a_deleted_object_goes_when_nothing_of_it_is_alive() -> None:
    plan = running(spec())
    run_id = run_id_of(UID, 0, 0)
    alive = Observed(runs={run_id: ObservedRun(RunState.RUNNING)})
    assert clean_up(spec(), plan.status, alive) == CleanUp(stop=Terminate(run_id))
    unclear = Observed(runs={run_id: ObservedRun(RunState.UNKNOWN)})
    assert clean_up(spec(), plan.status, unclear) == CleanUp()
    down = Observed(backend_reachable=False)
    assert clean_up(spec(), plan.status, down) == CleanUp()
    over = Observed(runs={run_id: ObservedRun(RunState.FAILED)})
    assert clean_up(spec(), plan.status, over) == CleanUp(done=True)


def test_who_has_to_wait_for_a_turn_writes_no_intent_and_looks_again() -> None:
    waiting = decide(spec(), EvolutionRunStatus(uid=UID), Observed(may_submit=False), at(0))
    assert (waiting.action, waiting.status.current, waiting.status.phase) == (None, None, Phase.RUNNING)
    assert waiting.requeue_after is not None
    begun = decide(spec(), waiting.status, Observed(), at(1))
    assert isinstance(begun.action, Submit)
    run_id = begun.action.run_id
    missing = {run_id: ObservedRun(RunState.MISSING)}
    # An intent that was left by somebody else is not acted on, and not written anew, before it is one's turn.
    held = decide(spec(), begun.status, Observed(runs=missing, may_submit=False), at(100))
    assert (held.action, held.status) == (None, begun.status)
    assert held.requeue_after is not None
    assert decide(spec(), begun.status, Observed(runs=missing), at(100)).action == begun.action


def test_a_deleted_object_that_never_began_waits_for_no_backend() -> None:
    assert clean_up(spec(), EvolutionRunStatus(uid=UID), Observed(backend_reachable=False)) == CleanUp(done=True)


def test_a_deleted_object_leaves_its_runs_alone_where_the_spec_says_so() -> None:
    plan = running(spec())
    alive = Observed(runs={run_id_of(UID, 0, 0): ObservedRun(RunState.RUNNING)})
    assert clean_up(spec({"deletePolicy": "orphan"}), plan.status, alive) == CleanUp(done=True)


def test_a_run_that_was_given_up_is_remembered_until_it_is_seen_to_have_ended_also_after_the_end() -> None:
    limits = {"activeDeadlineSeconds": 100}
    plan = first(spec(limits))
    run_id = run_id_of(UID, 0, 0)
    plan = go(spec(limits), plan, seen(plan), at(100))
    assert plan.status.phase is Phase.FAILED
    assert plan.status.stopping == [run_id]
    unseen = go(spec(limits), plan, Observed(), at(200))
    assert unseen.status.stopping == [run_id]
    over = go(spec(limits), plan, Observed(runs={run_id: ObservedRun(RunState.FAILED)}), at(300))
    assert over.status.stopping == []
    assert over.action is None


def test_nothing_is_submitted_before_a_run_that_was_given_up_has_ended() -> None:
    wanted = spec({"startDeadlineSeconds": 60})
    plan = first(wanted)
    plan = go(wanted, plan, seen(plan, RunState.PENDING), at(60))
    silent = go(wanted, plan, Observed(), at(70))
    assert silent.action is None
    assert silent.requeue_after is not None
    gone = go(wanted, plan, Observed(runs={run_id_of(UID, 0, 0): ObservedRun(RunState.MISSING)}), at(80))
    assert isinstance(gone.action, Submit)


def test_conditions_speak_of_the_newest_spec_also_after_the_end() -> None:
    plan = first(spec())
    done = succeeded(plan)
    plan = go(spec(), plan, done, at(20))
    assert plan.status.phase is Phase.COMPLETED
    edited = go(spec({"ttlSecondsAfterFinished": 9000}), plan, Observed(spec_generation=7), at(30))
    assert edited.status.observed_generation == 7
    assert {one.observed_generation for one in edited.status.conditions} == {7}
    unchanged = {one.type: one.last_transition_time for one in plan.status.conditions}
    assert {one.type: one.last_transition_time for one in edited.status.conditions} == unchanged


def test_an_intent_that_is_too_old_to_be_acted_on_is_written_anew_before_it_is() -> None:
    plan = first(spec())
    missing = seen(plan, RunState.MISSING)
    soon = go(spec(), plan, missing, at(15))
    assert soon.status.current == plan.status.current
    late = go(spec(), plan, missing, at(16))
    assert isinstance(late.action, Submit)
    assert late.status.current is not None
    assert late.status.current.intent_time == at(16)
    assert late.status.generations[0].attempts[0].submitted_at == at(16)
    in_doubt = go(spec(), plan, seen(plan, RunState.UNKNOWN), at(500))
    assert in_doubt.status.current == plan.status.current, "waiting is no intent"
