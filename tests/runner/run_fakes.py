"""A clock that tests set, a backend that follows a script, and results to answer with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from perseid.api.attempt import Attempt
from perseid.api.result import Gain, GenerationResult, ModelRef, Score, SetResult, YieldCounts
from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus
from perseid.decide.observed import ObservedRun, RunState
from perseid.runner.directory import RunDirectory

START = datetime(2026, 1, 1, tzinfo=UTC)


def make_run(**spec: object) -> EvolutionRun:
    return EvolutionRun.model_validate({"metadata": {"name": "fake"}, "spec": spec})


def score(value: float) -> Score:
    return Score(pass_at_1=value, low=value, high=value, problems=10, samples=4)


def result_of(
    run_id: str, generation: int, number: int, gain: float | None, root: str = "/runs/fake"
) -> GenerationResult:
    """A result whose candidate gains that much on dev; no candidate for None."""
    yields = YieldCounts(total=10, kept=9, dropped={"tests-failed": 1})
    if gain is None:
        return GenerationResult(
            generation=generation, attempt=number, run_id=run_id, candidate=None, reason="too few", yields=yields
        )
    dev = SetResult(
        name="dev",
        parent=score(0.4),
        candidate=score(0.4 + gain),
        gain=Gain(value=gain, low=gain - 0.01, high=gain + 0.01),
    )
    candidate = ModelRef(uri=f"{root}/model-{generation}", model_id=f"sha256:{generation}", generation=generation)
    return GenerationResult(
        generation=generation, attempt=number, run_id=run_id, candidate=candidate, dev=dev, yields=yields
    )


@dataclass
class ScriptedBackend:
    """Each submitted run ends, after two waits, as the script says next: a gain, None, or an error text."""

    script: list[float | str | None]
    directory: RunDirectory
    submitted: list[Attempt] = field(default_factory=list)
    on_submit: Callable[[Attempt], None] = lambda attempt: None
    waits: list[float] = field(default_factory=list)
    now: datetime = START
    _age: int = 0

    def clock(self) -> datetime:
        return self.now

    def observe(self, status: EvolutionRunStatus) -> Mapping[str, ObservedRun]:
        current = status.current
        if current is None:
            return {}
        known = [attempt for attempt in self.submitted if attempt.run_id == current.run_id]
        if not known:
            return {current.run_id: ObservedRun(RunState.MISSING)}
        if self._age < 2:
            return {current.run_id: ObservedRun(RunState.RUNNING)}
        end = self.script[len(self.submitted) - 1]
        if isinstance(end, str):
            return {current.run_id: ObservedRun(RunState.FAILED, error=end)}
        made = result_of(current.run_id, current.generation, current.attempt, end)
        return {current.run_id: ObservedRun(RunState.SUCCEEDED, result=made)}

    def submit(self, attempt: Attempt) -> None:
        self.on_submit(attempt)
        self._age = 0
        self.submitted.append(attempt)

    def terminate(self, run_id: str) -> None:
        raise AssertionError("there is nothing to terminate")

    def wait(self, seconds: float) -> None:
        self._age += 1
        self.waits.append(seconds)
        self.now += timedelta(seconds=seconds)
        assert len(self.waits) < 1000, "the loop does not come to an end"

    def close(self) -> None: ...


def status_on_disk(directory: Path) -> EvolutionRunStatus:
    return EvolutionRunStatus.model_validate_json((directory / "status.json").read_bytes())
