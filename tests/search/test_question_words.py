"""A search for reasoning about a question says nothing of programs, and shows no question that is evaluated on."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from perseid.api.meteor import QuestionSet
from perseid.api.search import SearchSpec
from perseid.data.questions import load_questions
from perseid.data.records import Problem
from perseid.engines.protocol import Request
from perseid.engines.scripted import ScriptedEngine
from perseid.search.build import build_search
from perseid.search.profiles import resolve
from perseid.search.question_words import QUESTIONS

PENCILS = Problem(id="q", statement="A box holds 5 pencils. How many do 3 boxes hold?")


def answer(request: Request) -> list[str]:
    if request.sampling.choices is not None:
        return [request.sampling.choices[-1]]
    if request.kind == "reflect":
        return ["Analysis: Say the result."]
    if request.kind == "chain":
        return ["Step 1: 3 times 5 is 15.\nStep 2: So they hold 15."]
    return [f"Next step: 3 times 5 is 15, way {index}." for index in range(request.sampling.n)]


@pytest.mark.parametrize("algorithm", ["mcts", "tot", "cot"])
@pytest.mark.parametrize("profile", ["recommended", "paper", "reference"])
async def test_every_prompt_of_every_search_speaks_of_a_question(algorithm: str, profile: str) -> None:
    engine = ScriptedEngine(answer)
    spec = SearchSpec.model_validate({"algorithm": algorithm, "profile": profile, "evaluator": {"type": "ladder"}})
    result = await build_search(resolve(spec), engine, words=QUESTIONS).search(PENCILS, seed=1)
    assert result.failure is None
    assert result.paths
    for request in engine.requests:
        text = "\n".join(message.content for message in request.messages)
        assert PENCILS.statement in text
        assert "program" not in text
        assert "function" not in text


def test_no_worked_example_is_a_question_of_the_pack() -> None:
    shown = "\n".join(
        message.content for part in fields(QUESTIONS) for message in getattr(QUESTIONS, part.name).examples
    )
    for split in ("train", "dev", "test"):
        for question in load_questions(QuestionSet(split=split), Path("/"), "units of measurement"):
            assert question.title not in shown
