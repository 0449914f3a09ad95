"""A run that nobody has carried through: results on disk, and a status that the brain itself has written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from perseid.api.layout import Layout
from perseid.api.result import Gain, GenerationResult, ModelRef, Score, SetResult, StageUsage, YieldCounts
from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus
from perseid.decide import Observed, ObservedRun, RunState, decide
from perseid.evaluation.scores import EvaluationResult, PassAtK, ProblemScore
from perseid.runner.directory import RunDirectory, write_atomically

RUN = EvolutionRun.model_validate(
    {
        "metadata": {"name": "fabricated"},
        "spec": {
            "model": {"ref": "org/base"},
            "problems": {"dev": {"split": "dev", "name": "dev"}, "test": [{"split": "test", "name": "held-out"}]},
            "evaluation": {"samples": 4, "bootstrap": 200},
            "generations": {"max": 2, "patience": 2},
        },
    }
)
BASE, BETTER, WORSE = [1, 1, 2, 0], [3, 3, 4, 1], [0, 1, 2, 0]
"""Right answers of four to each of four problems: 25.0, 68.75 and 18.75 percent."""


def write_scores(root: Path, title: str, model_id: str, passed: list[int]) -> float:
    """The file in which a run keeps a model's scores; returns pass@1."""
    value = sum(passed) / (4 * len(passed))
    result = EvaluationResult(
        set_name=title,
        model_id=model_id,
        n=4,
        confidence=0.95,
        pass_at=(PassAtK(k=1, value=value, low=value / 2, high=(1 + value) / 2),),
        problems=tuple(ProblemScore(problem_id=f"p{n}", n=4, passed=right) for n, right in enumerate(passed)),
        tokens=100,
        prompt_tokens=200,
        truncated=0,
        closed_code_share=1.0,
        failed_problems=0,
        seconds=1.0,
    )
    path = Layout(root, 0, 0).evaluations / f"{title}-{model_id}" / "scores.json"
    write_atomically(path, result.model_dump_json())
    return value


def score(value: float) -> Score:
    return Score(pass_at_1=value, low=value / 2, high=(1 + value) / 2, problems=4, samples=4)


def fabricate(
    root: Path,
    *generations: list[int] | None,
    fails: bool = False,
    run: EvolutionRun = RUN,
    written: Callable[[EvolutionRunStatus], None] = lambda status: None,
) -> EvolutionRunStatus:
    """A run whose generations' models scored so, or made none; the brain itself writes the status.

    `written` is given each status on the way, as a run's directory is.
    """
    status = RunDirectory(root).accept(run)
    parent, start = BASE, "base"
    for title in ("dev", "held-out"):
        write_scores(root, title, "base", BASE)
    moment = 0
    plan = decide(run.spec, status, Observed(), _at(moment))
    for passed in generations:
        current = plan.status.current
        assert current is not None
        number = current.generation
        before, after = sum(parent) / 16, 0.0 if passed is None else sum(passed) / 16
        made = None if passed is None else ModelRef(uri=f"/m/{number}", model_id=f"model{number}", generation=number)
        pair = {"parent": score(before)}
        gain = Gain(value=after - before, low=after - before - 0.01, high=after - before + 0.01)
        whole = pair if made is None else {**pair, "candidate": score(after), "gain": gain}
        for title in ("dev", "held-out"):
            if passed is not None:
                write_scores(root, title, f"model{number}", passed)
        result = GenerationResult(
            generation=number,
            attempt=current.attempt,
            run_id=current.run_id,
            candidate=made,
            parent_model_id=start,
            reason=None if made else "3 training records are fewer than finetune.minSamples (8)",
            dev=SetResult(name="dev", **whole),
            test=[SetResult(name="held-out", **whole)],
            yields=YieldCounts(total=40, kept=12, dropped={"duplicate": 8, "tests-failed": 20}),
            usage={
                "synthesize": StageUsage(
                    calls=1234, prompt_tokens=50_000, cached_tokens=25_000, completion_tokens=6000, seconds=90
                ),
                "finetune": StageUsage(seconds=30),
            },
        )
        write_atomically(Layout(root, number, current.attempt).result, result.model_dump_json(by_alias=True))
        if passed is not None and after > before:
            parent, start = passed, f"model{number}"
        moment += 60
        seen = Observed(runs={current.run_id: ObservedRun(RunState.SUCCEEDED, result=result)})
        plan = decide(run.spec, plan.status, seen, _at(moment))
        written(plan.status)
    while fails and not plan.status.phase.is_terminal:
        current = plan.status.current
        assert current is not None
        seen = Observed(runs={current.run_id: ObservedRun(RunState.FAILED, error="convert: no disk")})
        plan = decide(run.spec, plan.status, seen, _at(moment))
    return plan.status


def _at(seconds: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
