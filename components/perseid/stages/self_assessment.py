"""METEOR's second stage: the learner answers, is judged, revises by the advice, and learns from what became right.

After every `interval` right answers it is trained on them; later questions are answered by the newest model. In the end
it learns to judge: from the verdicts on all its answers, with one answer for each question once more. A training that
costs more on dev than `tolerance` is rolled back. Its own verdicts on held-out answers are compared with the judge's,
before and after.

Writes `assessments.jsonl` (every answer and verdict), `samples.jsonl`, `dropped.jsonl` (the quarantine), `yield.json`,
`rounds/` (a trial each), `verdicts-before.jsonl`, `verdicts-after.jsonl`, `agreement.json` and `model/`, or no model
where no training stayed. Source: METEOR (arXiv 2411.11933), stage 2; methods ME4 to ME7 and ME13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from perseid.api.files import AGREEMENT, ASSESSMENTS, DROPPED, SAMPLES, VERDICTS_AFTER, VERDICTS_BEFORE, YIELD
from perseid.api.layout import JOURNAL
from perseid.api.result import StageResult
from perseid.data.jsonl import read_jsonl, write_json, write_jsonl
from perseid.data.records import Dropped, Question, TrainingSample
from perseid.engines.journal import Journal
from perseid.engines.protocol import Engine
from perseid.evaluation.scores import AnswerRecord
from perseid.meteor.agreement import AgreementChange, agreement_change
from perseid.meteor.assessment import Assessed, AssessmentSettings, Interval, assess_all
from perseid.meteor.critique import self_verdicts
from perseid.meteor.parsing import normal_form
from perseid.meteor.records import Assessment, JudgeRecord, SelfVerdictRecord
from perseid.meteor.verdicts import judging_samples, verdict_samples
from perseid.stages.context import StageContext
from perseid.stages.errors import stage_error
from perseid.stages.learner import Learner, Train
from perseid.stages.lineage import BaseModel, resolve_base_model
from perseid.stages.questions import TrainQuestions, train_questions
from perseid.stages.roles import Judges, open_judges
from perseid.stages.scoring import answers_of, question_sets, verifier
from perseid.stages.spending import open_budget, recorded_usage
from perseid.stages.training import train_on_samples
from perseid.stages.yields import count_yield, dropped_metrics
from perseid.training.job import TrainingResult


async def run(context: StageContext) -> StageResult:
    """Work through the train questions."""
    questions = train_questions(context)
    base = await resolve_base_model(context)
    dev = next(one for one in question_sets(context) if one.decides)
    held_out = {question.id: question for question in dev.items if isinstance(question, Question)}
    with Journal(context.directory / JOURNAL) as journal:
        async with (
            open_judges(context, open_budget(context)) as judges,
            Learner.opened(context, base, journal, dev, verifier(None, judges)) as learner,
        ):
            judged = judged_answers(answers_of(context, base.resolved.model_id, dev))
            before = await self_verdicts(learner.engine, list(held_out.values()), judged)
            first = learner.score.at(1).value
            assessed = await _assess(context, learner, judges, questions)
            verdicts = await _learn_to_judge(context, learner, assessed, questions)
            after = await self_verdicts(learner.engine, list(held_out.values()), judged)
            learner.engine.raise_if_dead()
            judges.raise_if_dead()
            learner.commit()
    change = _agreement(context, before, after)
    _write(context, assessed, questions.dropped, before, after, change)
    return _result(context, assessed, questions.dropped, learner, first, change, verdicts)


async def _assess(context: StageContext, learner: Learner, judges: Judges, questions: TrainQuestions) -> Assessed:
    spec = context.spec.meteor.self_assessment
    done: list[Assessment] = []

    async def retrain(interval: Interval) -> Engine:
        if len(interval.samples) >= context.spec.finetune.min_samples:
            task = f"training, round {interval.number}"
            training = _training(context, interval.samples, task, spec.learning_rate)
            await learner.attempt(training, "answers", _does_no_harm(context))
            _tell(context, done, questions)
        return learner.engine

    def on_assessed(one: Assessment) -> None:
        done.append(one)
        right = sum(1 for each in done if each.right is not None)
        context.progress.update(len(done), note=f"{right} right")

    _tell(context, done, questions)
    settings = AssessmentSettings.of(spec, context.seed)
    assessed = await assess_all(
        questions.kept, learner.engine, judges.judge, settings, retrain, on_assessed=on_assessed
    )
    failures = ("learner-failed", "judge-failed", "budget-exceeded", "no-check", "bad-check")
    failed = [one for one in assessed.assessments if one.reason in failures]
    if len(failed) == len(assessed.assessments):
        first = failed[0]
        message = f"no question could be assessed; the first, {first.id}, with {first.reason}: {first.detail}"
        raise stage_error(message, (one.reason for one in failed))
    return assessed


def _tell(context: StageContext, done: Sequence[Assessment], questions: TrainQuestions) -> None:
    context.progress.begin("answering and revising", len(questions.kept), "questions", done=len(done))


async def _learn_to_judge(
    context: StageContext, learner: Learner, assessed: Assessed, questions: TrainQuestions
) -> int:
    """Train on the verdicts, where the spec says so and there is enough to learn; returns how many there were."""
    meteor = context.spec.meteor
    if not meteor.self_assessment.learn_to_judge:
        return 0
    by_id = {question.id: question for question in questions.kept}
    verdicts = verdict_samples(assessed.assessments, by_id, seed=context.seed)
    answers = list(assessed.pool)
    if "mentor-supervised" in meteor.stages:
        # The mentor's answers come last and so stay: there is one for nearly every question.
        answers += read_jsonl(context.output("mentor-supervised", SAMPLES), TrainingSample, may_be_empty=True)
    samples = judging_samples(verdicts, answers)
    if len(samples) < context.spec.finetune.min_samples:
        return 0
    # The spec's own learning rate: judging is learned anew, where the rounds before have refined what was learned.
    training = _training(context, samples, "learning to judge", context.spec.finetune.learning_rate)
    await learner.attempt(training, "verdicts", _does_no_harm(context))
    return len(verdicts.samples)


def _training(context: StageContext, samples: Sequence[TrainingSample], task: str, learning_rate: float) -> Train:
    async def train(base: BaseModel, output: Path, work: Path) -> TrainingResult:
        return await train_on_samples(context, samples, base, output, work, task, learning_rate)

    return train


def _does_no_harm(context: StageContext) -> Callable[[float], bool]:
    return lambda gain: gain >= -context.spec.meteor.self_assessment.tolerance


def judged_answers(answers: Sequence[AnswerRecord]) -> list[JudgeRecord]:
    """Held-out answers as a judge's verdicts on them: those with a verdict, and of equal answers to a question one."""
    found: dict[tuple[str, str], JudgeRecord] = {}
    for answer in answers:
        if answer.text.strip() and not answer.truncated and answer.reason != "judge-unsure":
            record = JudgeRecord(
                id=answer.id,
                question_id=answer.problem_id,
                answer=answer.text,
                right=answer.passed,
                advice="",
                source="evaluation",
            )
            found.setdefault((answer.problem_id, normal_form(answer.text)), record)
    return list(found.values())


def _agreement(
    context: StageContext, before: Sequence[SelfVerdictRecord], after: Sequence[SelfVerdictRecord]
) -> AgreementChange:
    spec = context.spec.evaluation
    return agreement_change(before, after, resamples=spec.bootstrap, confidence=spec.confidence, seed=context.spec.seed)


def _quarantine(assessed: Assessed, dropped: Sequence[Dropped]) -> list[Dropped]:
    quarantined = [
        Dropped(id=f"{one.id}/assessed", problem_id=one.id, reason=one.reason, detail=one.detail)
        for one in assessed.quarantine
    ]
    return [*dropped, *quarantined]


def _write(
    context: StageContext,
    assessed: Assessed,
    dropped: Sequence[Dropped],
    before: Sequence[SelfVerdictRecord],
    after: Sequence[SelfVerdictRecord],
    change: AgreementChange,
) -> None:
    directory = context.directory
    quarantine = _quarantine(assessed, dropped)
    write_jsonl(directory / ASSESSMENTS, assessed.assessments)
    write_jsonl(directory / SAMPLES, assessed.pool)
    write_jsonl(directory / DROPPED, quarantine)
    write_json(directory / YIELD, count_yield(len(assessed.pool), quarantine))
    write_jsonl(directory / VERDICTS_BEFORE, before)
    write_jsonl(directory / VERDICTS_AFTER, after)
    write_json(directory / AGREEMENT, change)


def _result(
    context: StageContext,
    assessed: Assessed,
    dropped: Sequence[Dropped],
    learner: Learner,
    first: float,
    change: AgreementChange,
    verdicts: int,
) -> StageResult:
    quarantine = _quarantine(assessed, dropped)
    yields = count_yield(len(assessed.pool), quarantine)
    rights = [one for one in assessed.assessments if one.right is not None]
    counts = {
        "questions": yields.total,
        "accepted": sum(1 for one in rights if len(one.attempts) == 1),
        "revised": sum(1 for one in rights if len(one.attempts) > 1),
        "quarantined": len(quarantine),
        "verdicts": verdicts,
        "trainings": len(learner.trials),
        "rolled back": sum(1 for trial in learner.trials if not trial.stayed),
    }
    metrics = {name.replace(" ", "_"): float(count) for name, count in counts.items()}
    for moment, measured in (("before", change.before), ("after", change.after)):
        if measured.auc is not None:
            metrics[f"agreement_auc_{moment}"] = measured.auc.value
        if measured.accuracy is not None:
            metrics[f"agreement_{moment}"] = measured.accuracy.value
            # Agreement and AUC can move apart: a learner that calls nearly all wrong may have the better AUC.
            metrics[f"called_right_{moment}"] = measured.called_right / measured.answers
    return StageResult(
        stage=context.stage,
        state="done",
        counts=counts,
        metrics={
            **metrics,
            **dropped_metrics(yields),
            "dev_before": first,
            "dev_after": learner.score.at(1).value,
        },
        usage=recorded_usage(context),
    )
