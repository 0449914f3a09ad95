"""Small builders for the tests of `decide`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from perseid.api.reasons import ConditionStatus, ConditionType, Reason
from perseid.api.result import Gain, GenerationResult, ModelRef, Score, SetResult, YieldCounts
from perseid.api.spec import EvolutionRunSpec
from perseid.api.status import EvolutionRunStatus
from perseid.decide import Observed, ObservedRun, Plan, RunState, Submit, decide, run_id_of

UID = "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11"
START = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def spec(lifecycle: Mapping[str, object] | None = None, **generations: object) -> EvolutionRunSpec:
    suspend = generations.pop("suspend", False)
    return EvolutionRunSpec.model_validate({"generations": generations, "suspend": suspend, **(lifecycle or {})})


def fresh() -> EvolutionRunStatus:
    return EvolutionRunStatus(uid=UID)


def score(value: float) -> Score:
    return Score(pass_at_1=value, low=max(0.0, value - 0.1), high=min(1.0, value + 0.1), problems=50, samples=4)


def result(
    generation: int, attempt: int = 0, *, candidate: float | None = 0.5, parent: float = 0.4, half_width: float = 0.05
) -> GenerationResult:
    """The result of an attempt whose candidate and parent have these scores on dev; no candidate for None."""
    run_id = run_id_of(UID, generation, attempt)
    if candidate is None:
        return GenerationResult(
            generation=generation,
            attempt=attempt,
            run_id=run_id,
            candidate=None,
            reason="3 training records, 8 are needed",
            dev=SetResult(name="pack-dev", parent=score(parent)),
            yields=YieldCounts(total=10, kept=3, dropped={"tests failed": 7}),
        )
    gain = candidate - parent
    return GenerationResult(
        generation=generation,
        attempt=attempt,
        run_id=run_id,
        candidate=ModelRef(
            uri=f"runs/g{generation}a{attempt}/model", model_id=f"sha256:{run_id}", generation=generation
        ),
        dev=SetResult(
            name="pack-dev",
            parent=score(parent),
            candidate=score(candidate),
            gain=Gain(value=gain, low=max(-1.0, gain - half_width), high=min(1.0, gain + half_width)),
        ),
        yields=YieldCounts(total=10, kept=9, dropped={"tests failed": 1}),
    )


def seen(plan: Plan, state: RunState = RunState.RUNNING, **fields: object) -> Observed:
    """What is seen when the plan's current run is in that state."""
    assert plan.status.current is not None
    return Observed(runs={plan.status.current.run_id: ObservedRun(state, **fields)})  # type: ignore[arg-type]


def succeeded(plan: Plan, **scores: object) -> Observed:
    current = plan.status.current
    assert current is not None
    made = result(current.generation, current.attempt, **scores)  # type: ignore[arg-type]
    return seen(plan, RunState.SUCCEEDED, result=made)


def first(wanted: EvolutionRunSpec) -> Plan:
    """The plan that submits generation 0."""
    plan = decide(wanted, fresh(), Observed(), START)
    assert isinstance(plan.action, Submit)
    return plan


def condition(status: EvolutionRunStatus, type_: ConditionType) -> tuple[ConditionStatus, Reason]:
    found = status.condition(type_)
    assert found is not None
    return found.status, found.reason


def go(wanted: EvolutionRunSpec, plan: Plan, observed: Observed, now: datetime) -> Plan:
    return decide(wanted, plan.status, observed, now)


def running(wanted: EvolutionRunSpec, seconds: float = 10) -> Plan:
    """Generation 0 under way."""
    plan = first(wanted)
    return go(wanted, plan, seen(plan), at(seconds))
