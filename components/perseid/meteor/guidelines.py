"""Stage 1's data: the learner writes a guideline, the mentor answers by it, the learner learns the mentor's answers.

What is learned is the plain question and the mentor's answer: without guideline, because there is none later on
(METEOR, arXiv 2411.11933, stage 1; methods ME1 to ME3). Every question becomes a sample or is dropped with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from perseid.api.engine import SamplingSpec
from perseid.api.meteor import MentorSupervisedSpec
from perseid.data.prompts import plain_question
from perseid.data.records import Dropped, Question, TrainingSample
from perseid.engines.protocol import Completion, Engine, EngineError, Message
from perseid.engines.sampling import sampling_of
from perseid.engines.together import together
from perseid.meteor.calls import ask, derive_seed, failure_reason, require_distinct
from perseid.meteor.parsing import is_echo, is_refusal, whole_sentences
from perseid.meteor.prompts import guideline_prompt, mentor_prompt
from perseid.meteor.records import GuidelineRecord

_GUIDELINE_SAMPLING = MentorSupervisedSpec().sampling


@dataclass(frozen=True, slots=True)
class TeachingSettings:
    """How the mentor is asked."""

    seed: int
    mentor_sampling: SamplingSpec
    guideline: bool = True
    """False: the mentor answers without one, as a control."""
    guideline_sampling: SamplingSpec = _GUIDELINE_SAMPLING


@dataclass(frozen=True, slots=True)
class Taught:
    """What became of the questions: samples and dropped together are as many as they."""

    samples: tuple[TrainingSample, ...]
    dropped: tuple[Dropped, ...]
    """Reasons: `learner-failed`, `guideline-` or `answer-` with `empty`, `truncated`, `refused` or `echo`,
    `mentor-failed`, `budget-exceeded`."""
    records: tuple[GuidelineRecord, ...]
    """One for each question, in their order."""


async def teach(questions: Sequence[Question], learner: Engine, mentor: Engine, settings: TeachingSettings) -> Taught:
    """Make stage 1's training data, of all questions at once: engines limit themselves.

    A failed call drops its question alone; STOPPING_ERRORS are raised. Raises ValueError where ids are not distinct.
    Without guidelines the learner is not asked.
    """
    require_distinct(questions)
    teacher = _Teacher(learner, mentor, settings)
    records = await together(teacher.teach(question) for question in questions)
    samples = tuple(
        TrainingSample(
            id=f"{record.id}/mentor", problem_id=record.id, prompt=plain_question(question), answer=record.answer
        )
        for question, record in zip(questions, records, strict=True)
        if not record.reason
    )
    dropped = tuple(
        Dropped(id=f"{record.id}/mentor", problem_id=record.id, reason=record.reason, detail=record.detail)
        for record in records
        if record.reason
    )
    return Taught(samples, dropped, tuple(records))


@dataclass(frozen=True, slots=True)
class _Guideline:
    text: str = ""
    cut: bool = False
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Teacher:
    learner: Engine
    mentor: Engine
    settings: TeachingSettings

    async def teach(self, question: Question) -> GuidelineRecord:
        guideline = await self._guideline(question) if self.settings.guideline else _Guideline()
        answer, reason, detail = "", guideline.reason, guideline.detail
        if not reason:
            answer, reason, detail = await self._answer(question, guideline)
        return GuidelineRecord(
            id=question.id,
            guideline=guideline.text,
            guideline_cut=guideline.cut,
            learner_id=self.learner.model_id if self.settings.guideline else "",
            mentor_id=self.mentor.model_id,
            answer=answer,
            reason=reason,
            detail=detail,
        )

    async def _guideline(self, question: Question) -> _Guideline:
        seed = derive_seed(self.settings.seed, "guideline", question.id)
        sampling = sampling_of(self.settings.guideline_sampling, n=1, seed=seed)
        messages = guideline_prompt(question)
        try:
            completion = await ask(self.learner, messages, sampling, kind="guideline", subject=question.id)
        except EngineError as error:
            return _Guideline(reason=failure_reason(error, "learner"), detail=str(error))
        text, cut = completion.text.strip(), completion.finish_reason == "length"
        guideline = _Guideline(whole_sentences(text) if cut else text, cut)
        if fault := _fault(guideline.text, messages[-1].content, question):
            fault = "truncated" if cut and fault == "empty" else fault
            return replace(guideline, reason=f"guideline-{fault}")
        return guideline

    async def _answer(self, question: Question, guideline: _Guideline) -> tuple[str, str, str]:
        """Answer, reason, detail."""
        seed = derive_seed(self.settings.seed, "mentor-answer", question.id)
        sampling = sampling_of(self.settings.mentor_sampling, n=1, seed=seed)
        asked = mentor_prompt(question, guideline.text if self.settings.guideline else None)
        try:
            completion = await ask(
                self.mentor, (Message("user", asked),), sampling, kind="mentor-answer", subject=question.id
            )
        except EngineError as error:
            return "", failure_reason(error, "mentor"), str(error)
        fault = _answer_fault(completion, asked, question)
        if not fault and guideline.text and is_echo(completion.text, guideline.text):
            fault = "echo"
        return completion.text.strip(), f"answer-{fault}" if fault else "", ""


def _answer_fault(completion: Completion, asked: str, question: Question) -> str:
    if completion.finish_reason == "length":
        return "truncated"
    return _fault(completion.text, asked, question)


def _fault(text: str, asked: str, question: Question) -> str:
    if not any(character.isalnum() for character in text):
        return "empty"
    if is_refusal(text):
        return "refused"
    return "echo" if is_echo(text, asked, question) else ""
