"""METEOR's first stage: the learner writes guidelines, the mentor answers by them, the learner learns the answers.

Writes `guidelines.jsonl` (every guideline and answer), `samples.jsonl`, `dropped.jsonl`, `yield.json` and `model/`, or
no model where there is too little to learn from. Source: METEOR (arXiv 2411.11933), stage 1; methods ME1 to ME3.
"""

from __future__ import annotations

import shutil

from perseid.api.files import DROPPED, GUIDELINES, SAMPLES, YIELD
from perseid.api.layout import JOURNAL
from perseid.api.result import StageResult
from perseid.data.jsonl import write_json, write_jsonl
from perseid.engines.journal import Journal
from perseid.meteor.guidelines import Taught, TeachingSettings, teach
from perseid.stages.context import StageContext
from perseid.stages.errors import stage_error
from perseid.stages.lineage import MODEL, WORK, BaseModel, resolve_base_model
from perseid.stages.models import open_model
from perseid.stages.questions import TrainQuestions, train_questions
from perseid.stages.roles import open_mentor_model
from perseid.stages.spending import open_budget, recorded_usage
from perseid.stages.training import train_on_samples
from perseid.stages.yields import count_yield, dropped_metrics


async def run(context: StageContext) -> StageResult:
    """Ask the mentor about every question, and train on what it said."""
    questions = train_questions(context)
    base = await resolve_base_model(context)
    taught = await _taught(context, questions, base)
    dropped = (*questions.dropped, *taught.dropped)
    yields = count_yield(len(taught.samples), dropped)
    write_jsonl(context.directory / GUIDELINES, taught.records)
    write_jsonl(context.directory / DROPPED, dropped)
    write_json(context.directory / YIELD, yields)
    write_jsonl(context.directory / SAMPLES, taught.samples)
    counts = {"questions": yields.total, "samples": yields.kept, "steps": 0}
    metrics: dict[str, float] = {"trained": 0.0, **dropped_metrics(yields)}
    if len(taught.samples) >= context.spec.finetune.min_samples:
        work = context.directory / WORK
        result = await train_on_samples(context, taught.samples, base, context.directory / MODEL, work)
        shutil.rmtree(work, ignore_errors=True)
        counts["steps"] = result.manifest.metrics.steps
        metrics |= {"trained": 1.0, "final_loss": result.manifest.metrics.final_loss}
    return StageResult(
        stage=context.stage,
        state="done",
        counts=counts,
        metrics={**counts, **metrics},
        usage=recorded_usage(context),
    )


async def _taught(context: StageContext, questions: TrainQuestions, base: BaseModel) -> Taught:
    meteor = context.spec.meteor
    settings = TeachingSettings(
        context.seed,
        meteor.mentor.sampling,
        guideline=meteor.mentor_supervised.guideline,
        guideline_sampling=meteor.mentor_supervised.sampling,
    )
    budget = open_budget(context)
    context.progress.begin("asking the mentor", total=len(questions.kept), unit="questions")
    with Journal(context.directory / JOURNAL) as journal:
        async with (
            open_model(context, base.resolved, journal) as learner,
            open_mentor_model(context, budget) as mentor,
        ):
            mentor.on_call = context.progress.update
            learner.on_call = lambda calls: context.progress.say(f"{calls} guidelines")
            taught = await teach(questions.kept, learner, mentor, settings)
            learner.raise_if_dead()
            mentor.raise_if_dead()
    _require_some(taught, len(questions.kept))
    return taught


def _require_some(taught: Taught, asked: int) -> None:
    """Raise StageError where nobody could be asked: another try may find them there. Or where nothing was taught before
    the budget was spent: nothing that comes after, in this generation or the next, would have more."""
    failed = [one for one in taught.dropped if one.reason in ("mentor-failed", "learner-failed", "budget-exceeded")]
    refused = any(one.reason == "budget-exceeded" for one in failed)
    if len(failed) == asked or (refused and not taught.samples):
        first = failed[0]
        message = f"no question could be taught; the first, {first.problem_id}, with {first.reason}: {first.detail}"
        raise stage_error(message, (one.reason for one in failed))
