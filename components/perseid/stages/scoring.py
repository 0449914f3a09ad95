"""A model's scores on what it is measured by, from the run's store where they are already."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perseid.api.files import ANSWERS, SCORES
from perseid.api.layout import JOURNAL
from perseid.data.jsonl import read_jsonl, write_json, write_jsonl
from perseid.data.problems import load_problems
from perseid.data.prompts import plain_question, question
from perseid.data.records import Problem, Question
from perseid.engines.journal import Journal
from perseid.engines.models import ResolvedModel
from perseid.evaluation.harness import AnswerVerdict, EvaluationProgress, evaluate
from perseid.evaluation.scores import AnswerRecord, EvaluationResult
from perseid.sandbox.pool import Sandbox
from perseid.stages.coder import judge
from perseid.stages.context import ANYWHERE, StageContext
from perseid.stages.errors import stage_error
from perseid.stages.models import StageModel, open_model
from perseid.stages.questions import evaluation_questions
from perseid.stages.roles import Judges, open_judges
from perseid.stages.spending import open_budget


@dataclass(frozen=True, slots=True)
class ScoredSet:
    """A set that models are scored on. The dev sets of a run come before its test sets."""

    title: str
    items: Sequence[Problem] | Sequence[Question]
    decides: bool
    """Whether it is dev: promotions and rollbacks go by it."""
    judged_by: Mapping[str, Any]
    """What a verdict depends on, beside the item and the answer."""

    @property
    def unit(self) -> str:
        """What it is made of."""
        return "problems" if isinstance(self.items[0], Problem) else "questions"


def scored_sets(context: StageContext) -> list[ScoredSet]:
    """Dev and test of the run's methods. Raises DataError."""
    spec = context.spec
    sets: list[ScoredSet] = []
    if "sra-mcts" in spec.methods:
        sandbox = {"sandbox": spec.sandbox.model_dump(mode="json", exclude={"workers"})}
        for one in (spec.problems.dev, *spec.problems.test):
            sets.append(ScoredSet(one.title, load_problems(one, ANYWHERE), one is spec.problems.dev, sandbox))
    if "meteor" in spec.methods:
        sets += question_sets(context)
    return sorted(sets, key=lambda one: not one.decides)


def question_sets(context: StageContext) -> list[ScoredSet]:
    """Dev and test of METEOR alone. Raises DataError."""
    meteor = context.spec.meteor
    # What the judge's answers cost and how long they are waited for does not change them.
    judged_by = {"judge": meteor.judge.model_dump(mode="json", include={"type", "ref", "path", "max_tokens"})}
    if meteor.judge.openai is not None:
        judged_by["endpoint"] = meteor.judge.openai.model_dump(mode="json", include={"base_url", "model"})
    judged_by["sandbox"] = context.spec.sandbox.model_dump(mode="json", exclude={"workers"})
    return [
        ScoredSet(one.title, questions, one is meteor.questions.dev, judged_by)
        for one, questions in evaluation_questions(context)
    ]


Verify = Callable[[Any, str], Awaitable[AnswerVerdict]]


@contextlib.asynccontextmanager
async def open_verifier(context: StageContext) -> AsyncIterator[Verify]:
    """Who says whether an answer to a problem or a question is right: tests, a question's own check, or the judge."""
    async with contextlib.AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox(context.spec.sandbox))
        judges = None
        if "meteor" in context.spec.methods:
            judges = await stack.enter_async_context(open_judges(context, open_budget(context)))
        yield verifier(sandbox, judges)


def verifier(sandbox: Sandbox | None, judges: Judges | None) -> Verify:
    """The same with a sandbox and judges that are open already; each may be absent where no set needs it."""

    async def verify(item: Problem | Question, answer: str) -> AnswerVerdict:
        if isinstance(item, Problem):
            assert sandbox is not None
            return await judge(sandbox, item, answer)
        assert judges is not None
        chosen = judges.judge if item.check is None else judges.rule
        verdict = await chosen.judge(item, answer)
        if verdict.right is None and verdict.reason != "judge-unsure":
            # Answers that nobody can judge would look like wrong ones.
            why = f"({verdict.reason}): {verdict.detail}"
            raise stage_error(f"an answer to question {item.id} could not be judged {why}", [verdict.reason])
        return AnswerVerdict(passed=bool(verdict.right), reason="" if verdict.right else verdict.reason or "wrong")

    return verify


async def score_model(
    context: StageContext, model: ResolvedModel, sets: Sequence[ScoredSet], name: str
) -> dict[str, EvaluationResult]:
    """Score `model` on every set, by title. Nothing is started or opened for what the store has already."""
    known = {one.title: _known(place_of(context, model.model_id, one)) for one in sets}
    if all(known.values()):
        return {title: result for title, result in known.items() if result is not None}
    with Journal(context.directory / JOURNAL) as journal:
        async with open_verifier(context) as verify, open_model(context, model, journal) as engine:
            return await score_engine(context, engine, sets, name, verify)


async def score_engine(
    context: StageContext, engine: StageModel, sets: Sequence[ScoredSet], name: str, verify: Verify
) -> dict[str, EvaluationResult]:
    """The same for a model that is open already."""
    scores = {}
    for one in sets:
        place = place_of(context, engine.model_id, one)
        scores[one.title] = _known(place) or await _score_set(context, engine, one, place, name, verify)
    return scores


async def _score_set(
    context: StageContext, engine: StageModel, one: ScoredSet, place: Path, name: str, verify: Verify
) -> EvaluationResult:
    context.progress.begin(f"{name} on {one.title}", total=len(one.items), unit=one.unit)

    def tell(progress: EvaluationProgress) -> None:
        context.progress.update(progress.done, note=f"{progress.passed} of {progress.answers} answers right")

    result, answers = await evaluate(
        engine,
        one.items,
        one.title,
        context.spec.evaluation,
        seed=context.spec.seed,
        verify=verify,
        prompt=_prompt,
        on_progress=tell,
    )
    engine.raise_if_dead()
    write_jsonl(place / ANSWERS, answers)
    write_json(place / SCORES, result)  # last: with it the evaluation is there
    return result


def _prompt(item: Any) -> str:
    return question(item) if isinstance(item, Problem) else plain_question(item)


def place_of(context: StageContext, model_id: str, one: ScoredSet) -> Path:
    """Where these scores are kept: a digest of all that they depend on."""
    content = {
        "model": model_id,
        "set": one.title,
        one.unit: [item.model_dump(mode="json") for item in one.items],
        "evaluation": context.spec.evaluation.model_dump(mode="json"),
        **one.judged_by,
        "engine": context.spec.engine.type,
        "seed": context.spec.seed,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return context.layout.evaluations / f"{one.title}-{digest[:16]}"


async def fetch_scores(context: StageContext) -> None:
    """Bring the run's scores here, where its storage is elsewhere: what is known already is scored only once."""
    if context.storage is not None:
        await asyncio.to_thread(context.storage.fetch_evaluations)


def answers_of(context: StageContext, model_id: str, one: ScoredSet) -> list[AnswerRecord]:
    """Every answer behind a score that this stage has seen, with its verdict."""
    place = place_of(context, model_id, one)
    if context.storage is not None:
        context.storage.fetch_evaluation_file(place / ANSWERS)
    return read_jsonl(place / ANSWERS, AnswerRecord)


def _known(place: Path) -> EvaluationResult | None:
    try:
        return EvaluationResult.model_validate_json((place / SCORES).read_bytes())
    except FileNotFoundError:
        return None
