"""The learner's own verdict: how likely it calls an answer right.

Measured on held-out answers (methods ME13), and used in the third stage to choose among the learner's own answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perseid.data.records import Question
from perseid.engines.protocol import Engine, EngineError, Message, Sampling
from perseid.engines.together import together
from perseid.meteor.calls import ask, failure_reason
from perseid.meteor.parsing import right_probability
from perseid.meteor.prompts import RIGHT, WRONG, self_verdict_prompt
from perseid.meteor.records import JudgeRecord, SelfVerdictRecord

_CHOICE_TOKENS = 8
"""Room for the longer of the two words."""


@dataclass(frozen=True, slots=True)
class SelfVerdict:
    """What a model says of an answer."""

    probability: float | None
    """Of `right` against `wrong`, 0 to 1; None where it could not be had."""
    reason: str = ""
    """`learner-failed`, `budget-exceeded` or `no-probability` (the engine tells no probabilities of choices)."""


async def self_verdict(engine: Engine, question: Question, answer: str) -> SelfVerdict:
    """Ask for the learner's verdict by constrained choice. Raises STOPPING_ERRORS only."""
    messages = (Message("user", self_verdict_prompt(question, answer)),)
    sampling = Sampling(_CHOICE_TOKENS, choices=(RIGHT, WRONG))
    try:
        completion = await ask(engine, messages, sampling, kind="self-verdict", subject=question.id)
    except EngineError as error:
        return SelfVerdict(None, failure_reason(error, "learner"))
    probability = right_probability(completion)
    return SelfVerdict(probability, "" if probability is not None else "no-probability")


async def self_verdicts(
    engine: Engine, questions: Sequence[Question], judged: Sequence[JudgeRecord]
) -> list[SelfVerdictRecord]:
    """The learner's verdicts on judged answers, in their order. Answers without a judge's verdict are left out.

    Raises ValueError for an answer to a question that is not among `questions`.
    """
    by_id = {question.id: question for question in questions}
    if strange := sorted({one.question_id for one in judged} - by_id.keys()):
        raise ValueError(f"judged answers belong to unknown questions, such as {strange[:3]}: give their questions too")
    items = [(one, one.right) for one in judged if one.right is not None]
    said = await together(self_verdict(engine, by_id[one.question_id], one.answer) for one, _ in items)
    return [
        SelfVerdictRecord(
            id=one.id,
            question_id=one.question_id,
            answer=one.answer,
            model_id=engine.model_id,
            probability=verdict.probability,
            judged_right=right,
            reason=verdict.reason,
        )
        for (one, right), verdict in zip(items, said, strict=True)
    ]
