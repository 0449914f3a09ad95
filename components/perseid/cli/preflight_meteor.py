"""METEOR's mistakes that can be found before anything starts: its questions, and what they must not share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from perseid.api.meteor import MeteorSpec, QuestionSet
from perseid.api.spec import DefinitionSpec
from perseid.cli.preflight_roles import check_judge, check_mentor, check_records
from perseid.data.errors import DataError
from perseid.data.question_text import normalised
from perseid.data.questions import load_questions
from perseid.data.records import Question
from perseid.meteor.checks import CheckError, require_sound
from perseid.runner.errors import RunnerError

QUESTIONS = "spec.meteor.questions"
ANYWHERE = Path("/")
"""Paths are absolute by then."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A set of questions and where the spec has it."""

    field: str
    questions: tuple[Question, ...] | None
    """None for a dataset of the hub: reading it would download it."""


def check_meteor(spec: DefinitionSpec, *, keys: bool) -> None:
    """Raise RunnerError or DataError for what would stop METEOR. Paths must be absolute; no endpoint is asked."""
    meteor = spec.meteor
    stages = spec.stages
    train = _load(meteor, f"{QUESTIONS}.train", meteor.questions.train)
    dev = _load(meteor, f"{QUESTIONS}.dev", meteor.questions.dev)
    tests = [_load(meteor, f"{QUESTIONS}.test[{index}]", one) for index, one in enumerate(meteor.questions.test)]
    for one, other in combinations((train, dev), 2):
        _check_apart(one, other)
    for one in tests:
        _check_apart(train, one)
        _check_apart(dev, one)
    if "mentor-supervised" in stages:
        check_mentor(meteor.mentor, train.field, train.questions, keys=keys)
    # The evaluation judges too, whatever stages there are.
    judged = ([train] if "self-assessment" in stages else []) + [dev, *tests]
    check_judge(meteor.judge, [(one.field, one.questions) for one in judged], keys=keys)
    check_records(meteor, mentor_speaks="mentor-supervised" in stages)


def _load(meteor: MeteorSpec, field: str, one: QuestionSet) -> Loaded:
    if one.source == "hub":
        return Loaded(field, None)
    try:
        questions = load_questions(one, ANYWHERE, meteor.field)
    except DataError as error:
        raise DataError(f"{field}: {error}; put that right, or give other questions there") from error
    for question in questions:
        if question.check is None:
            continue
        try:
            require_sound(question.check)
        except CheckError as error:
            raise DataError(f"{field}: {one.path or one.title}, question {question.id!r}: {error}") from error
    return Loaded(field, tuple(questions))


def _check_apart(one: Loaded, other: Loaded) -> None:
    """Raise RunnerError for a question, an id or a family that both have."""
    for what, key in _IDENTITIES:
        first = {key(question): question for question in one.questions or () if key(question)}
        shared = [(first[key(question)], question) for question in other.questions or () if key(question) in first]
        if shared:
            a, b = shared[0]
            example = repr(a.id) if a.id == b.id else f"{a.id!r} and {b.id!r}"
            raise RunnerError(
                f"{len(shared)} question(s) of {other.field} have {what} as one of {one.field}, for example {example};"
                " a score on what was learned from or decided by says nothing: take them out of one of the two, or give"
                " both sets the same file and the splits train, dev and test"
            )


_IDENTITIES: tuple[tuple[str, Callable[[Question], str]], ...] = (
    ("the same text", lambda question: normalised(question.text)),
    ("the same id", lambda question: question.id),
    ("the same family", lambda question: question.family),
)
