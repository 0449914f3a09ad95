"""A driver that crashes, a backend that fails and a clock that jumps, at random, with `decide` in the middle."""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache

from decide_scenarios import UID, at, fresh, result, spec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from perseid.api.base import replace
from perseid.api.reasons import GenerationPhase, Reason
from perseid.api.result import StageUsage
from perseid.api.stages import STAGES, StageName
from perseid.api.status import EvolutionRunStatus
from perseid.decide import Observed, ObservedRun, Plan, RunState, Submit, Terminate, decide, run_id_of


@lru_cache(maxsize=8)
def restored(text: str) -> EvolutionRunStatus:
    return EvolutionRunStatus.model_validate_json(text)


class DriverMachine(RuleBasedStateMachine):
    """Plays both the body, which persists and acts, and the backend, which runs what it is asked to."""

    @initialize(
        max_generations=st.integers(1, 4),
        patience=st.integers(1, 3),
        max_attempts=st.integers(1, 3),
        rule_name=st.sampled_from(["interval", "improvement"]),
        least=st.sampled_from([-0.1, 0.0, 0.1]),
        lifecycle=st.fixed_dictionaries(
            {
                "suspendPolicy": st.sampled_from(["drain", "terminate"]),
                "activeDeadlineSeconds": st.sampled_from([None, None, 500, 150_000]),
                "startDeadlineSeconds": st.sampled_from([None, None, 60]),
                "budget": st.sampled_from([{}, {}, {"gpuHours": 1.0}, {"mentorTokens": 1000}, {"mentorCost": 2.0}]),
                "failurePolicy": st.sampled_from(
                    [
                        {},
                        {"rules": [{"reasons": ["OutOfMemory"], "action": "fail"}]},
                        {"rules": [{"reasons": ["Preempted"], "action": "count"}, {"action": "ignore"}]},
                        {"rules": [{"stages": ["self-assessment"], "action": "fail"}]},
                    ]
                ),
            }
        ),
        approval=st.sampled_from(["automatic", "manual"]),
    )
    def start(
        self,
        max_generations: int,
        patience: int,
        max_attempts: int,
        rule_name: str,
        least: float,
        lifecycle: dict[str, object],
        approval: str,
    ) -> None:
        self.lifecycle = lifecycle
        self.approval = approval
        self.approved: int | None = None
        self.revived: set[str] = set()
        self.limits = {"max": max_generations, "patience": patience, "max_attempts": max_attempts}
        self.promotion = {"rule": rule_name, "minImprovement": least}
        self.suspended = False
        self.reachable = True
        self.clock = 0.0
        self.backend: dict[str, ObservedRun] = {}
        self.keys: dict[str, tuple[int, int]] = {}
        self.persisted = fresh().model_dump_json(by_alias=True)
        self.promotions: list[tuple[float, float]] = []
        self.finished: EvolutionRunStatus | None = None

    def wanted(self):  # type: ignore[no-untyped-def]
        return spec(
            self.lifecycle, **self.limits, promotion=self.promotion, suspend=self.suspended, approval=self.approval
        )

    def observed(self) -> Observed:
        if not self.reachable:
            return Observed(backend_reachable=False)
        runs = dict(self.backend)
        current = self.status.current
        if current is not None and current.run_id not in runs:
            runs[current.run_id] = ObservedRun(RunState.MISSING)
        return Observed(runs=runs, approved_generation=self.approved)

    @property
    def status(self) -> EvolutionRunStatus:
        return restored(self.persisted)

    def live(self) -> list[str]:
        return [run_id for run_id, run in self.backend.items() if run.state.is_live]

    def step(self, crash: str = "") -> Plan:
        """Observe, decide, persist, act; `crash` stops before one of the last two."""
        before, observed = self.status, self.observed()
        plan = decide(self.wanted(), before, observed, at(self.clock))
        again = decide(self.wanted(), plan.status, observed, at(self.clock))
        assert again.status == plan.status
        assert again.action in (None, plan.action)
        assert plan.action is None or again.action == plan.action
        assert EvolutionRunStatus.model_validate_json(plan.status.model_dump_json(by_alias=True)) == plan.status
        if before.phase.is_terminal:
            assert replace(plan.status, stopping=[]) == replace(before, stopping=[])
        assert len(plan.status.model_dump_json(by_alias=True)) < 64 * 1024
        assert plan.status.usage.gpu_seconds >= before.usage.gpu_seconds
        assert plan.status.usage.mentor_tokens >= before.usage.mentor_tokens
        assert plan.status.usage.cost >= before.usage.cost
        assert plan.status.suspended_seconds >= before.suspended_seconds
        if crash == "before the write":
            return plan
        self.note_promotion(before, plan.status)
        self.persisted = plan.status.model_dump_json(by_alias=True)
        if crash == "before the action":
            return plan
        self.act(plan)
        return plan

    def act(self, plan: Plan) -> None:
        match plan.action:
            case Submit() as submit:
                assert self.reachable
                assert not self.suspended
                if self.approval == "manual" and submit.generation > 0:
                    assert self.approved is not None
                    assert self.approved >= submit.generation
                budget: dict[str, float] = self.lifecycle["budget"]  # type: ignore[assignment]
                used = plan.status.usage
                assert used.gpu_seconds < budget.get("gpuHours", math.inf) * 3600
                assert used.mentor_tokens < budget.get("mentorTokens", math.inf)
                assert used.cost < budget.get("mentorCost", math.inf)
                key = (submit.generation, submit.attempt)
                assert submit.run_id == run_id_of(UID, *key)
                assert self.keys.setdefault(submit.run_id, key) == key
                assert submit.start_model == plan.status.promoted
                known = self.backend.get(submit.run_id)
                if known is None or known.state is RunState.MISSING:
                    assert not self.live(), "a second run would be alive"
                    self.backend[submit.run_id] = ObservedRun(RunState.PENDING)
            case Terminate(run_id=run_id):
                self.backend[run_id] = dataclasses.replace(
                    self.backend[run_id], state=RunState.FAILED, error="terminated"
                )

    def note_promotion(self, before: EvolutionRunStatus, after: EvolutionRunStatus) -> None:
        if after.promoted != before.promoted and before.promoted is not None:
            summary = next(
                g for g in after.generations if after.promoted and g.index == after.promoted.generation
            ).result
            assert summary is not None
            assert summary.gain is not None
            assert summary.gain_low is not None
            self.promotions.append((summary.gain, summary.gain_low))

    @rule(crash=st.sampled_from(["", "", "", "before the write", "before the action"]))
    def drive(self, crash: str) -> None:
        self.step(crash)

    @rule(seconds=st.sampled_from([1.0, 30.0, 400.0, 100_000.0, -50.0, -100_000.0]))
    def the_clock_moves(self, seconds: float) -> None:
        self.clock += seconds

    @rule()
    def the_backend_goes_or_comes(self) -> None:
        self.reachable = not self.reachable

    @rule()
    def the_user_suspends_or_resumes(self) -> None:
        self.suspended = not self.suspended

    @rule(more=st.integers(1, 5))
    def the_user_changes_the_number_of_generations(self, more: int) -> None:
        self.limits["max"] = more

    @rule(generation=st.integers(0, 4))
    def somebody_approves(self, generation: int) -> None:
        self.approved = generation

    @precondition(lambda self: self.live())
    @rule(gpu_seconds=st.sampled_from([0.0, 59.0, 61.0, 4000.0]))
    def the_run_works(self, gpu_seconds: float) -> None:
        run_id = self.live()[0]
        used = self.backend[run_id].gpu_seconds + gpu_seconds
        self.backend[run_id] = ObservedRun(RunState.RUNNING, gpu_seconds=used)

    @precondition(lambda self: self.live())
    @rule(
        candidate=st.sampled_from([None, 0.2, 0.39, 0.4, 0.41, 0.6, 0.9]),
        half_width=st.sampled_from([0.0, 0.05, 0.3]),
        fault=st.sampled_from(["", "", "", "no result", "bad result", "another run's result"]),
        paid=st.sampled_from([StageUsage(), StageUsage(cost=1.25, paid_tokens=600)]),
    )
    def the_run_succeeds(self, candidate: float | None, half_width: float, fault: str, paid: StageUsage) -> None:
        run_id = self.live()[0]
        generation, attempt = self.keys[run_id]
        made = result(generation, attempt, candidate=candidate, parent=0.4, half_width=half_width)
        made = replace(made, usage={"mentor-supervised": paid, "evaluate": StageUsage(calls=3)})
        match fault:
            case "no result":
                run = ObservedRun(RunState.SUCCEEDED)
            case "bad result":
                run = ObservedRun(RunState.SUCCEEDED, result_error="dev.candidate.passAt1: not a finite number")
            case "another run's result":
                run = ObservedRun(RunState.SUCCEEDED, result=result(generation, attempt + 1))
            case _:
                run = ObservedRun(RunState.SUCCEEDED, result=made)
        self.backend[run_id] = run

    @precondition(lambda self: self.live())
    @rule(
        reason=st.sampled_from(
            [Reason.RUN_FAILED, Reason.OUT_OF_MEMORY, Reason.INFRASTRUCTURE_FAULT, Reason.PREEMPTED]
        ),
        stage=st.sampled_from([None, *STAGES]),
    )
    def the_run_fails(self, reason: Reason, stage: StageName | None) -> None:
        self.backend[self.live()[0]] = ObservedRun(RunState.FAILED, error="boom", reason=reason, failed_stage=stage)

    @precondition(lambda self: self.live())
    @rule()
    def the_run_is_lost(self) -> None:
        self.backend[self.live()[0]] = ObservedRun(RunState.MISSING)

    @precondition(lambda self: self.backend and not self.live())
    @rule()
    def a_finished_run_comes_back_to_life(self) -> None:
        run_id = next(iter(self.backend))
        self.revived.add(run_id)
        self.backend[run_id] = ObservedRun(RunState.RUNNING)

    @invariant()
    def at_most_one_run_is_alive(self) -> None:
        assert len(self.live()) <= 1

    @invariant()
    def a_live_run_is_the_current_one_or_is_being_stopped(self) -> None:
        current = self.status.current
        known = {*self.status.stopping, *([current.run_id] if current else []), *self.revived}
        assert set(self.live()) <= known

    @invariant()
    def a_final_status_never_changes(self) -> None:
        final = replace(self.status, stopping=[])
        if self.finished is not None:
            assert final == self.finished
        elif self.status.phase.is_terminal:
            self.finished = final

    @invariant()
    def attempts_stay_within_their_limit(self) -> None:
        for generation in self.status.generations:
            assert generation.charged_attempts <= self.limits["max_attempts"]

    @invariant()
    def every_promotion_obeyed_the_rule(self) -> None:
        for gain, low in self.promotions:
            assert (low if self.promotion["rule"] == "interval" else gain) > self.promotion["minImprovement"]

    @invariant()
    def each_generation_starts_from_what_was_promoted_before_it(self) -> None:
        best = -1
        for expected, generation in enumerate(self.status.generations):
            assert generation.index == expected
            assert generation.start_model.generation == best
            if generation.phase is GenerationPhase.PROMOTED:
                best = generation.index
        if self.status.promoted is not None:
            assert self.status.promoted.generation == best

    @invariant()
    def patience_counts_the_generations_since_the_last_promotion(self) -> None:
        used = 0
        for generation in self.status.generations:
            if generation.phase is GenerationPhase.PROMOTED:
                used = 0
            elif generation.phase in (GenerationPhase.REJECTED, GenerationPhase.SKIPPED):
                used += 1
        assert self.status.patience_used == used

    def teardown(self) -> None:
        """Once the world is kind, every run comes to an end: nothing that happened has left it stuck."""
        if not hasattr(self, "backend"):
            return
        self.reachable, self.suspended, self.approved = True, False, 1000
        for _ in range(60):
            if self.status.phase.is_terminal and not self.live():
                return
            self.clock += 400.0
            self.step()
            for run_id in self.live():
                generation, attempt = self.keys[run_id]
                self.backend[run_id] = ObservedRun(RunState.SUCCEEDED, result=result(generation, attempt))
        raise AssertionError(f"the run never ended: {self.persisted}")


# Some seconds: it takes many histories to find the rare order of events.
DriverMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30)
TestDriver = DriverMachine.TestCase
