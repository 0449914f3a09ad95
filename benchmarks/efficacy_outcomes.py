"""What a run of the efficacy benchmark came to, in a line of benchmarks/results/efficacy.jsonl."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from pydantic import BaseModel

from perseid.api.files import CANDIDATES, SCORES
from perseid.api.layout import EVALUATIONS, Layout, read_stage_result
from perseid.api.reasons import GenerationPhase
from perseid.api.result import GenerationResult, StageUsage, parse_result
from perseid.data.jsonl import read_jsonl
from perseid.data.records import Candidate
from perseid.evaluation.calibration import Observation, within_problem_ordering
from perseid.evaluation.scores import EvaluationResult
from perseid.runner.directory import RunDirectory
from perseid.search.profiles import SearchConfig, resolve

FILE = Path(__file__).with_name("results") / "efficacy.jsonl"


class Share(BaseModel):
    """Of pairs of answers to the same problem."""

    share: float | None
    """None without pairs."""
    pairs: int


class Data(BaseModel):
    """The first generation's data: what it cost, and what came of it."""

    calls: int
    tokens: int
    """Tokens that the model made, for plans, judgements and code."""
    planning_tokens: int
    """Those of them that search made: plans, judgements, and the code by which an executing evaluator judges."""
    prompt_tokens: int
    cached_tokens: int
    answers: int
    """Answers with and without code, all of which passed the gate or did not."""
    right: int
    pass_rate: float
    """Share of a problem's answers that are right, as the mean over problems with answers: a search that ends once its
    problem is solved has most of its answers to problems that are hard."""
    distinct: int
    """Right answers, each text of a problem's code once."""
    solved: int
    """Train problems with a right answer."""
    kept: int
    """Answers that were trained on."""
    by_plan_value: Share | None
    """How often the right one of a right and a wrong answer to different plans has the plan of higher value; ties count
    half. None where the value is made of these very verdicts, which says nothing."""
    by_likelihood: Share
    """The same by the mean log-probability of the answers' tokens, whatever their plans."""
    same_plan_agree: Share
    """How often two answers to one plan are both right or both wrong..."""
    other_plan_agree: Share
    """...and two answers to different plans of a problem: as often, where the plan decides nothing."""


class Scores(BaseModel):
    """A model's, on one set."""

    rates: dict[str, float]
    """Pass rate of each problem."""
    answers: int
    cut_off: int
    """Answers that reached the limit of tokens."""


class Outcome(BaseModel):
    """One run of an arm with a seed."""

    arm: str
    seed: int
    settings: str
    """Digest of the arm's settings. Runs with others are no seeds of the same arm."""
    commit: str | None
    data: Data
    base: dict[str, Scores]
    """By set."""
    models: list[dict[str, Scores]]
    """Of each generation's model, in their order; empty where a generation trained none."""
    promoted: list[bool]
    seconds: float
    """Of all stages together."""


def read_outcomes() -> list[Outcome]:
    """What is known so far."""
    return [Outcome.model_validate_json(line) for line in FILE.read_text().splitlines()] if FILE.exists() else []


def read_outcome(directory: Path, arm: str, seed: int, settings: str, commit: str | None) -> Outcome:
    """Of a run that has ended, from its directory."""
    run, status = RunDirectory(directory).recorded()
    layouts = [Layout(directory, one.index, one.attempts[-1].number) for one in status.generations]
    results = [parse_result(layout.result.read_bytes()) for layout in layouts]
    scores = _scores(directory)
    return Outcome(
        arm=arm,
        seed=seed,
        settings=settings,
        commit=commit,
        data=_data(layouts[0], results[0], resolve(run.spec.synthesis.search)),
        base=scores[str(results[0].parent_model_id)],
        models=[scores[model] if (model := _model(result)) else {} for result in results],
        promoted=[one.phase is GenerationPhase.PROMOTED for one in status.generations],
        seconds=sum(usage.seconds for result in results for usage in result.usage.values()),
    )


def _data(layout: Layout, result: GenerationResult, search: SearchConfig) -> Data:
    stages = [read_stage_result(layout.stage(stage)) for stage in ("synthesize", "convert")]
    usages = [StageUsage() if one is None else one.usage for one in stages]
    usage = StageUsage.sum(usages)
    candidates = read_jsonl(layout.stage("convert") / CANDIDATES, Candidate)
    right = [one for one in candidates if one.passed]
    judged = [one for one in candidates if one.passed is not None]
    return Data(
        calls=usage.calls,
        tokens=usage.completion_tokens,
        planning_tokens=usages[0].completion_tokens,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        answers=len(candidates),
        right=len(right),
        pass_rate=_pass_rate(candidates),
        distinct=len({(one.problem_id, one.code) for one in right}),
        solved=len({one.problem_id for one in right}),
        kept=result.yields.kept,
        by_plan_value=None if _executes(search) else _ordering(judged, lambda one: one.value, of_plan=True),
        by_likelihood=_ordering(judged, lambda one: one.mean_logprob),
        same_plan_agree=_agreement(judged, same_plan=True),
        other_plan_agree=_agreement(judged, same_plan=False),
    )


def _pass_rate(candidates: Sequence[Candidate]) -> float:
    by_problem: dict[str, list[bool]] = defaultdict(list)
    for one in candidates:
        by_problem[one.problem_id].append(bool(one.passed))
    return fmean(map(fmean, by_problem.values())) if by_problem else 0.0


def _executes(search: SearchConfig) -> bool:
    return search.evaluator.asks("execution") and search.algorithm in ("mcts", "tot")


class _Pair(NamedTuple):
    first: Candidate
    second: Candidate

    @property
    def one_plan(self) -> bool:
        return self.first.plan_index == self.second.plan_index


def _pairs(candidates: Sequence[Candidate]) -> list[_Pair]:
    by_problem: dict[str, list[Candidate]] = defaultdict(list)
    for one in candidates:
        by_problem[one.problem_id].append(one)
    return [_Pair(*pair) for group in by_problem.values() for pair in combinations(group, 2)]


def _ordering(
    candidates: Sequence[Candidate], score: Callable[[Candidate], float | None], *, of_plan: bool = False
) -> Share:
    """`of_plan`: the score is the plan's, which its answers share."""
    share, pairs = within_problem_ordering(
        Observation(one.problem_id, score(one), bool(one.passed), f"plan {one.plan_index}" if of_plan else "")
        for one in candidates
    )
    return Share(share=share, pairs=pairs)


def _agreement(candidates: Sequence[Candidate], *, same_plan: bool) -> Share:
    return _share(
        [pair.first.passed == pair.second.passed for pair in _pairs(candidates) if pair.one_plan is same_plan]
    )


def _share(each: Sequence[float]) -> Share:
    return Share(share=sum(each) / len(each) if each else None, pairs=len(each))


def _model(result: GenerationResult) -> str | None:
    return None if result.candidate is None else result.candidate.model_id


def _scores(directory: Path) -> dict[str, dict[str, Scores]]:
    """By model and set."""
    scores: dict[str, dict[str, Scores]] = {}
    for file in (directory / EVALUATIONS).glob(f"*/{SCORES}"):
        result = EvaluationResult.model_validate_json(file.read_bytes())
        scores.setdefault(result.model_id, {})[result.set_name] = Scores(
            rates={one.problem_id: one.pass_rate for one in result.problems},
            answers=sum(one.n for one in result.problems),
            cut_off=sum(one.truncated for one in result.problems),
        )
    return scores
