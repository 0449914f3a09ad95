"""A run's questions: which are learned from, which only score."""

from __future__ import annotations

from dataclasses import dataclass

from perseid.api.meteor import QuestionSet
from perseid.data.question_text import normalised
from perseid.data.questions import load_questions, read_questions
from perseid.data.records import Dropped, Question
from perseid.stages.context import ANYWHERE, StageContext
from perseid.stages.errors import StageError


@dataclass(frozen=True, slots=True)
class TrainQuestions:
    """What stages learn from; kept and dropped together are the rows of the set."""

    kept: tuple[Question, ...]
    dropped: tuple[Dropped, ...]
    """`contaminated`: an evaluation set has the same question (methods ME12); or why a row is no question."""


def train_questions(context: StageContext) -> TrainQuestions:
    """The train questions without those that an evaluation set has too. Raises DataError, and StageError where none is
    left."""
    spec = context.spec.meteor.questions
    taken = {
        _identity(question): one.title for one, questions in evaluation_questions(context) for question in questions
    }
    kept: list[Question] = []
    read = read_questions(spec.train, ANYWHERE, context.spec.meteor.field)
    dropped = list(read.dropped)
    for question in read.questions:
        found = taken.get(_identity(question))
        if found is None:
            kept.append(question)
        else:
            dropped.append(Dropped(id=question.id, problem_id=question.id, reason="contaminated", detail=found))
    if not kept:
        raise StageError(
            f"every question of {spec.train.title} is in an evaluation set too, for example in {dropped[-1].detail}:"
            " give spec.meteor.questions.train other questions"
        )
    return TrainQuestions(tuple(kept), tuple(dropped))


def evaluation_questions(context: StageContext) -> list[tuple[QuestionSet, list[Question]]]:
    """Dev, which decides, and the test sets. Raises DataError."""
    spec = context.spec.meteor.questions
    return [(one, load_questions(one, ANYWHERE, context.spec.meteor.field)) for one in (spec.dev, *spec.test)]


def _identity(question: Question) -> str:
    return normalised(question.text)
