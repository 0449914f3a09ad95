"""A model's scores on problem sets, from the run's store where they are already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from perseid.api.layout import JOURNAL
from perseid.api.problems import ProblemSet
from perseid.data.jsonl import write_json, write_jsonl
from perseid.data.prompts import question
from perseid.data.records import Problem
from perseid.engines.journal import Journal
from perseid.engines.models import ResolvedModel
from perseid.evaluation.harness import AnswerVerdict, EvaluationProgress, evaluate
from perseid.evaluation.scores import EvaluationResult
from perseid.sandbox.pool import Sandbox
from perseid.stages.coder import judge
from perseid.stages.context import StageContext
from perseid.stages.models import StageModel, open_model

ANSWERS = "answers.jsonl"
SCORES = "scores.json"

ProblemSets = Sequence[tuple[ProblemSet, Sequence[Problem]]]


async def score_model(
    context: StageContext, model: ResolvedModel, sets: ProblemSets, name: str
) -> dict[str, EvaluationResult]:
    """Score `model` on every set, by title. The engine is started only for what the store does not have."""
    places = {one.title: _place(context, model, one, problems) for one, problems in sets}
    scores = {title: known for title, place in places.items() if (known := _known(place)) is not None}
    missing = [(one, problems) for one, problems in sets if one.title not in scores]
    if not missing:
        return scores
    with Journal(context.directory / JOURNAL) as journal:
        async with open_model(context, model, journal) as engine, Sandbox(context.spec.sandbox) as sandbox:
            for one, problems in missing:
                scores[one.title] = await _score_set(
                    context, engine, sandbox, one.title, problems, places[one.title], name
                )
    return scores


async def _score_set(
    context: StageContext,
    engine: StageModel,
    sandbox: Sandbox,
    title: str,
    problems: Sequence[Problem],
    place: Path,
    name: str,
) -> EvaluationResult:
    context.progress.begin(f"{name} on {title}", total=len(problems), unit="problems")

    def tell(progress: EvaluationProgress) -> None:
        context.progress.update(progress.done, note=f"{progress.passed} of {progress.answers} answers right")

    async def verify(problem: Problem, answer: str) -> AnswerVerdict:
        return await judge(sandbox, problem, answer)

    result, answers = await evaluate(
        engine,
        problems,
        title,
        context.spec.evaluation,
        seed=context.spec.seed,
        verify=verify,
        prompt=question,
        on_progress=tell,
    )
    engine.raise_if_dead()
    write_jsonl(place / ANSWERS, answers)
    write_json(place / SCORES, result)  # last: with it the evaluation is there
    return result


def _place(context: StageContext, model: ResolvedModel, one: ProblemSet, problems: Sequence[Problem]) -> Path:
    """Where these scores are kept: a digest of all that they depend on."""
    content = {
        "model": model.model_id,
        "set": one.title,
        "problems": [problem.model_dump(mode="json") for problem in problems],
        "evaluation": context.spec.evaluation.model_dump(mode="json"),
        "sandbox": context.spec.sandbox.model_dump(mode="json", exclude={"workers"}),
        "engine": context.spec.engine.type,
        "seed": context.spec.seed,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return context.layout.evaluations / f"{one.title}-{digest[:16]}"


def _known(place: Path) -> EvaluationResult | None:
    try:
        return EvaluationResult.model_validate_json((place / SCORES).read_bytes())
    except FileNotFoundError:
        return None
