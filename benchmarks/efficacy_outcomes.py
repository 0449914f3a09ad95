"""What a run of the efficacy benchmark came to, in a line of benchmarks/results/efficacy.jsonl."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from perseid.api.files import CANDIDATES, SCORES
from perseid.api.layout import EVALUATIONS, Layout, read_stage_result
from perseid.api.reasons import GenerationPhase
from perseid.api.result import GenerationResult, parse_result
from perseid.data.jsonl import read_jsonl
from perseid.data.records import Candidate
from perseid.evaluation.calibration import Observation, within_problem_ordering
from perseid.evaluation.scores import EvaluationResult
from perseid.runner.directory import RunDirectory

FILE = Path(__file__).with_name("results") / "efficacy.jsonl"

Rates = dict[str, dict[str, float]]
"""Pass rates by set and problem."""


class Ordering(BaseModel):
    """How often a score put a right answer above a wrong one of the same problem."""

    share: float | None
    pairs: int


class Outcome(BaseModel):
    """One run of an arm with a seed."""

    arm: str
    seed: int
    spec_digest: str
    tokens: int
    """Tokens that the models made for the first generation's data."""
    prompt_tokens: int
    cached_tokens: int
    answers: int
    right: int
    solved: int
    """Train problems with a right answer."""
    kept: int
    """Answers that were trained on."""
    by_plan_value: Ordering
    """Answers by the value that the search gave their plan."""
    by_likelihood: Ordering
    base: Rates
    models: list[Rates]
    """Of each generation's model, in their order; empty where a generation trained none."""
    promoted: list[bool]
    seconds: float
    """Of all stages together."""


def read_outcomes() -> list[Outcome]:
    """What is known so far."""
    return [Outcome.model_validate_json(line) for line in FILE.read_text().splitlines()] if FILE.exists() else []


def read_outcome(directory: Path, arm: str, seed: int) -> Outcome:
    """Of a run that has ended, from its directory."""
    _, status = RunDirectory(directory).recorded()
    layouts = [Layout(directory, one.index, one.attempts[-1].number) for one in status.generations]
    results = [parse_result(layout.result.read_bytes()) for layout in layouts]
    data = [read_stage_result(layouts[0].stage(stage)) for stage in ("synthesize", "convert")]
    usages = [one.usage for one in data if one is not None]
    candidates = read_jsonl(layouts[0].stage("convert") / CANDIDATES, Candidate)
    rates = _rates(directory)
    return Outcome(
        arm=arm,
        seed=seed,
        spec_digest=status.spec_digest or "",
        tokens=sum(one.completion_tokens for one in usages),
        prompt_tokens=sum(one.prompt_tokens for one in usages),
        cached_tokens=sum(one.cached_tokens for one in usages),
        answers=len(candidates),
        right=sum(one.passed is True for one in candidates),
        solved=len({one.problem_id for one in candidates if one.passed}),
        kept=results[0].yields.kept,
        by_plan_value=_ordering([Observation(one.problem_id, one.value, bool(one.passed)) for one in candidates]),
        by_likelihood=_ordering(
            [Observation(one.problem_id, one.mean_logprob, bool(one.passed)) for one in candidates]
        ),
        base=rates[str(results[0].parent_model_id)],
        models=[rates[model] if (model := _model(result)) else {} for result in results],
        promoted=[one.phase is GenerationPhase.PROMOTED for one in status.generations],
        seconds=sum(usage.seconds for result in results for usage in result.usage.values()),
    )


def _ordering(observations: list[Observation]) -> Ordering:
    share, pairs = within_problem_ordering(observations)
    return Ordering(share=share, pairs=pairs)


def _model(result: GenerationResult) -> str | None:
    return None if result.candidate is None else result.candidate.model_id


def _rates(directory: Path) -> dict[str, Rates]:
    """By model."""
    rates: dict[str, Rates] = {}
    for file in (directory / EVALUATIONS).glob(f"*/{SCORES}"):
        scores = EvaluationResult.model_validate_json(file.read_bytes())
        by_problem = {one.problem_id: one.pass_rate for one in scores.problems}
        rates.setdefault(scores.model_id, {})[scores.set_name] = by_problem
    return rates
