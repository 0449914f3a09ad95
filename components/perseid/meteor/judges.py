"""Judges: who says whether an answer is right, and how it could be better.

A judge that cannot say gives None and the reason. It never guesses, and one bad row never stops the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from perseid.data.records import CodeCheck, Question
from perseid.engines.protocol import Completion, Engine
from perseid.engines.together import together
from perseid.meteor.calls import ask_structured
from perseid.meteor.checks import CheckError, CodeRunner, check_answer
from perseid.meteor.parsing import JudgedAs, parse_verdict
from perseid.meteor.prompts import JUDGE_REMINDER, judge_prompt
from perseid.meteor.records import JudgeRecord

MAX_TRIES = 3
"""Answers that a judge may give until one has the form."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says of an answer."""

    right: bool | None
    """None where it could not say."""
    advice: str
    """How a wrong answer could be better; empty for a right one."""
    source: str
    """`rule`, `program`, or `model:` and its id."""
    attempts: int
    """Answers of a model, or 1 for a rule."""
    texts: tuple[str, ...] = ()
    """The model's answers, as they came."""
    reason: str = ""
    """Why it could not say: `judge-unsure` (no answer had the form), `judge-failed`, `budget-exceeded`, `no-check`,
    `bad-check`. Empty with a verdict."""
    detail: str = ""


class Judge(Protocol):
    """Says whether an answer is right."""

    async def judge(self, question: Question, answer: str) -> Verdict:
        """The verdict on one answer. Safe to call from many coroutines."""
        ...


@dataclass(frozen=True, slots=True)
class VerifierJudge:
    """The question's own check decides. Costs nothing and is never unsure."""

    run_code: CodeRunner | None = None
    """For questions whose check runs code."""

    async def judge(self, question: Question, answer: str) -> Verdict:
        """None for a question without a check (`no-check`) or with a broken one (`bad-check`)."""
        source = "program" if isinstance(question.check, CodeCheck) else "rule"
        if question.check is None:
            detail = f"question {question.id} has no check: use a judge that is a model for such questions"
            return Verdict(None, "", source, 0, reason="no-check", detail=detail)
        try:
            verdict = await check_answer(question.check, answer, self.run_code)
        except CheckError as error:
            return Verdict(None, "", source, 1, reason="bad-check", detail=f"question {question.id}: {error}")
        return Verdict(verdict.right, verdict.advice, source, 1)


@dataclass(frozen=True, slots=True)
class ModelJudge:
    """A model decides, greedily, and is asked again where its answer has no form."""

    engine: Engine
    max_tokens: int = 512
    """Longest verdict."""
    max_tries: int = MAX_TRIES

    async def judge(self, question: Question, answer: str) -> Verdict:
        """None after `max_tries` answers without the form, or where the engine failed. Raises STOPPING_ERRORS."""
        got = await ask_structured(
            self.engine,
            judge_prompt(question, answer),
            _read,
            reminder=JUDGE_REMINDER,
            max_tokens=self.max_tokens,
            max_tries=self.max_tries,
            kind="judge",
            subject=question.id,
        )
        source = f"model:{self.engine.model_id}"
        if got.value is None:
            reason = "judge-unsure" if got.reason == "malformed" else got.reason
            return Verdict(None, "", source, got.attempts, got.texts, reason, got.detail)
        return Verdict(got.value.right, got.value.advice, source, got.attempts, got.texts)


def _read(completion: Completion) -> JudgedAs | None:
    return parse_verdict(completion.text, truncated=completion.finish_reason == "length")


async def judge_all(judge: Judge, answers: Sequence[tuple[Question, str]]) -> list[JudgeRecord]:
    """Judge several answers at once, such as those to held-out questions; records in their order.

    Ids are the question's and the answer's number among those to it: `q1/1`.
    """
    verdicts = await together(judge.judge(question, answer) for question, answer in answers)
    seen: dict[str, int] = {}
    records: list[JudgeRecord] = []
    for (question, answer), verdict in zip(answers, verdicts, strict=True):
        number = seen[question.id] = seen.get(question.id, 0) + 1
        records.append(
            JudgeRecord(
                id=f"{question.id}/{number}",
                question_id=question.id,
                answer=answer,
                right=verdict.right,
                advice=verdict.advice,
                source=verdict.source,
                texts=verdict.texts,
                reason=verdict.reason,
                detail=verdict.detail,
            )
        )
    return records
