"""The pack of questions: right in every number, without leaks, and its checks see what is wrong."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perseid.data.question_pack_check import (
    QuestionPack,
    check_question_pack,
    expected_answer,
    read_question_pack,
    unit_named,
)
from perseid.data.questions import PACK
from perseid.data.records import NumberCheck, PatternCheck, Question

SCRIPT = Path(__file__).parents[2] / "scripts" / "write_question_pack.py"


@pytest.fixture(scope="module")
def pack() -> QuestionPack:
    return read_question_pack(PACK)


def test_the_pack_keeps_all_its_rules(pack: QuestionPack) -> None:
    assert check_question_pack(pack) == []


def test_the_script_writes_the_committed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("write_question_pack", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["write_question_pack", str(tmp_path)])
    module.main()
    for name in ("train.jsonl", "dev.jsonl", "test.jsonl", "mentor.jsonl"):
        assert (tmp_path / name).read_bytes() == (PACK / name).read_bytes()


@pytest.mark.parametrize(
    ("title", "answer"),
    [
        ("How many metres are 3 kilometres?", "3000"),
        ("Convert 4 feet to inches.", "48"),
        ("How many years are 2 centuries?", "200"),
        ("What is the symbol of the unit megahertz?", "MHz"),
        ("Is a gram larger or smaller than a kilogram?", "smaller"),
        ("What do we measure in days: mass, time or force?", "time"),
    ],
)
def test_answers_are_computed_from_the_questions_words(title: str, answer: str) -> None:
    assert expected_answer(title) == answer


@pytest.mark.parametrize(
    ("title", "message"),
    [
        ("How many metres are 3 kilograms?", "different quantities"),
        ("How many kilometres are 3 metres?", "no whole number"),
        ("How many furlongs are 3 metres?", "not known"),
        ("Why is the sky blue?", "none of the pack's forms"),
        ("What do we measure in days: mass, power or force?", "one of the options"),
    ],
)
def test_questions_without_a_computable_answer_are_refused(title: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expected_answer(title)


def test_metres_and_millimetres_are_not_confused() -> None:
    assert unit_named("millimetres").size * 1000 == unit_named("metre").size == 1
    assert unit_named("kilohertz").symbol == "kHz"


def _with(pack: QuestionPack, question: Question, **changes: Any) -> QuestionPack:
    changed = question.model_copy(update=changes)
    return replace(
        pack,
        splits={
            split: [changed if each is question else each for each in questions]
            for split, questions in pack.splits.items()
        },
    )


def test_each_kind_of_damage_is_found(pack: QuestionPack) -> None:
    train = pack.splits["train"]
    number = next(each for each in train if isinstance(each.check, NumberCheck))
    symbol = next(each for each in train if isinstance(each.check, PatternCheck))
    subject, answer = next(each for each in pack.answers if each[0] == number.id)
    others = [each for each in pack.answers if each[0] != number.id]
    damaged = {
        "the answer is '1'": _with(pack, number, answer="1"),
        "its check does not fit": _with(pack, number, check=NumberCheck(value=1)),
        "does not fit": _with(pack, symbol, check=PatternCheck(pattern=rf"\b{symbol.answer}\b")),
        "no family": _with(pack, number, family=""),
        "its family": _with(pack, number, family=pack.splits["dev"][0].family),
        "its text": _with(pack, number, title=pack.splits["dev"][0].title.replace("2", "3")),
        "the id occurs twice": _with(pack, number, id=symbol.id),
        "no answer to it": replace(pack, answers=others),
        "answers it twice": replace(pack, answers=[*pack.answers, pack.answers[0]]),
        "no question of train": replace(pack, answers=[*pack.answers, ("x", "y")]),
        "last line is": replace(pack, answers=[*others, (subject, answer + "0")]),
        "the mentor is wrong": replace(pack, answers=[*others, (subject, answer.replace(" * ", " * 1"))]),
        "1 to 3 sentences": replace(pack, answers=[*others, (subject, "So. " * 9 + answer)]),
        "fewer than 180": replace(pack, splits=dict(pack.splits) | {"train": train[:90]}),
        "of the questions; it should": replace(pack, splits=dict(pack.splits) | {"dev": []}),
    }
    for message, bad in damaged.items():
        assert any(message in violation for violation in check_question_pack(bad)), message
