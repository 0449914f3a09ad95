"""Stage 2: the learner answers, is judged, revises by the advice, and learns from what became right.

What never becomes right goes to quarantine with all its attempts and is never trained on (METEOR, arXiv 2411.11933,
stage 2; methods ME4, ME6, ME7).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from perseid.api.engine import SamplingSpec
from perseid.api.meteor import SelfAssessmentSpec
from perseid.data.prompts import plain_question
from perseid.data.records import Question, TrainingSample
from perseid.engines.protocol import Completion, Engine, EngineError, Message
from perseid.engines.sampling import sampling_of
from perseid.engines.together import together
from perseid.meteor.calls import ask, derive_seed, failure_reason, require_distinct
from perseid.meteor.judges import Judge, Verdict
from perseid.meteor.prompts import chain_of_thought_prompt, revision_prompt
from perseid.meteor.records import Assessment, AttemptRecord

_CUT = Verdict(False, "The answer was cut off. Answer in fewer words and come to the result.", "form", 0)
_EMPTY = Verdict(False, "The answer is empty. Answer the question.", "form", 0)


@dataclass(frozen=True, slots=True)
class AssessmentSettings:
    """How questions are worked on."""

    seed: int
    max_tries: int
    """Answers to a question at most, revisions included."""
    interval: int
    """Right answers after which the learner is trained."""
    sampling: SamplingSpec
    chain_of_thought: bool = False
    """Ask for the reasoning first. What is learned is the answer to the plain question all the same."""

    def __post_init__(self) -> None:
        for name, value in (("max_tries", self.max_tries), ("interval", self.interval)):
            if value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1")

    @classmethod
    def of(cls, spec: SelfAssessmentSpec, seed: int) -> AssessmentSettings:
        """As a spec says."""
        return cls(seed, spec.max_tries, spec.interval, spec.sampling, spec.chain_of_thought)


async def assess(question: Question, learner: Engine, judge: Judge, settings: AssessmentSettings) -> Assessment:
    """Answer one question until it is right, at most `max_tries` times.

    An answer that was cut off or is empty is wrong without a judge's call. Where the judge cannot say, the question
    goes to quarantine at once with the judge's reason. Raises STOPPING_ERRORS only.
    """
    asked = chain_of_thought_prompt(question) if settings.chain_of_thought else plain_question(question)
    attempts: list[AttemptRecord] = []

    def quarantined(reason: str, detail: str = "") -> Assessment:
        return Assessment(id=question.id, prompt=asked, attempts=tuple(attempts), reason=reason, detail=detail)

    for number in range(1, settings.max_tries + 1):
        messages: tuple[Message, ...] = (Message("user", asked),)
        if attempts:
            messages = revision_prompt(asked, attempts[-1].answer, attempts[-1].advice)
        sampling = sampling_of(settings.sampling, n=1, seed=derive_seed(settings.seed, "assess", question.id, number))
        kind = "revise" if attempts else "answer"
        try:
            completion = await ask(learner, messages, sampling, kind=kind, subject=question.id)
        except EngineError as error:
            return quarantined(failure_reason(error, "learner"), str(error))
        verdict = await _judged(question, completion, judge)
        attempts.append(_attempt(question, number, completion, verdict, learner.model_id))
        if verdict.right:
            return Assessment(id=question.id, prompt=asked, attempts=tuple(attempts), reason="")
        if verdict.right is None:
            return quarantined(verdict.reason, verdict.detail)
    return quarantined("never-right")


async def _judged(question: Question, completion: Completion, judge: Judge) -> Verdict:
    if completion.finish_reason == "length":
        return _CUT
    if not any(character.isalnum() for character in completion.text):
        return _EMPTY
    return await judge.judge(question, completion.text)


def _attempt(question: Question, number: int, completion: Completion, verdict: Verdict, model_id: str) -> AttemptRecord:
    return AttemptRecord(
        id=f"{question.id}/{number}",
        question_id=question.id,
        number=number,
        answer=completion.text,
        truncated=completion.finish_reason == "length",
        model_id=model_id,
        right=verdict.right,
        advice=verdict.advice,
        source=verdict.source,
        judge_texts=verdict.texts,
        reason=verdict.reason,
        detail=verdict.detail,
    )


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of questions whose right answers the learner is to be trained on."""

    number: int
    """From 1."""
    samples: tuple[TrainingSample, ...]
    """The stretch's right answers, in the order of the questions."""
    learner: Engine
    """Who answered them."""


Retrain = Callable[[Interval], Awaitable[Engine]]
"""Trains on an interval and returns who answers from now on: a newer model, or `interval.learner` after a rollback.
Closing engines is its business. Called with the same intervals when a run is repeated."""


@dataclass(frozen=True, slots=True)
class Assessed:
    """What became of all questions."""

    assessments: tuple[Assessment, ...]
    """In the order of the questions."""
    pool: tuple[TrainingSample, ...]
    """The right answers: training data."""
    intervals: int
    """How often `retrain` was called."""
    learner: Engine
    """What the last call of `retrain` returned, or who was given."""

    @property
    def quarantine(self) -> tuple[Assessment, ...]:
        """What must not be trained on."""
        return tuple(one for one in self.assessments if one.reason)


async def assess_all(
    questions: Sequence[Question],
    learner: Engine,
    judge: Judge,
    settings: AssessmentSettings,
    retrain: Retrain,
    *,
    on_assessed: Callable[[Assessment], None] | None = None,
) -> Assessed:
    """Work through the questions in their order; after every `interval` right answers, and at the end for what is
    left, call `retrain`. Later questions are answered by the engine that it returns.

    Questions go in waves of as many as right answers are still missing: a wave can never overshoot its interval, so
    that no call is wasted and the result is the same whatever finishes first. Over a journal a repetition makes no
    call twice. `on_assessed` is called in the order of the questions, a wave at a time.
    """
    require_distinct(questions)
    assessments: list[Assessment] = []
    pool: list[TrainingSample] = []
    trained, intervals = 0, 0
    while len(assessments) < len(questions):
        missing = settings.interval - (len(pool) - trained)
        wave = questions[len(assessments) : len(assessments) + missing]
        worked_on = await together(assess(one, learner, judge, settings) for one in wave)
        for question, done in zip(wave, worked_on, strict=True):
            assessments.append(done)
            if done.right is not None:
                pool.append(_sample(question, done.right))
            if on_assessed is not None:
                on_assessed(done)
        last = len(assessments) == len(questions)
        new = pool[trained:]
        if len(new) == settings.interval or (last and new):
            intervals += 1
            learner = await retrain(Interval(intervals, tuple(new), learner))
            trained = len(pool)
    return Assessed(tuple(assessments), tuple(pool), intervals, learner)


def _sample(question: Question, attempt: AttemptRecord) -> TrainingSample:
    # The plain question, however and how often it was asked here: that is how it is asked later on.
    return TrainingSample(
        id=f"{question.id}/assessed", problem_id=question.id, prompt=plain_question(question), answer=attempt.answer
    )
