from __future__ import annotations

from typing import Any

import pytest

from perseid.api.synthesis import GateSpec
from perseid.data.records import Candidate, Problem
from perseid.engines.protocol import EngineError, Request
from perseid.engines.scripted import ScriptedEngine
from perseid.search.evaluators import LadderEvaluator
from perseid.stages.answer_score import AnswerScorer

OPEN = Problem(id="open", statement="Write a function twice(x) that doubles x.")
TESTED = OPEN.model_copy(update={"id": "tested", "tests": ("assert twice(2) == 4",)})
CODE = "def twice(x):\n    return 2 * x\n"


def candidate(name: str = "open/0/0", code: str | None = CODE) -> Candidate:
    return Candidate(
        id=name,
        problem_id="open",
        plan_index=0,
        sample_index=0,
        plan=("Double it.",),
        answer="",
        code=code,
        truncated=False,
        mean_logprob=None,
    )


def scorer(engine: ScriptedEngine, **gate: Any) -> AnswerScorer:
    return AnswerScorer(LadderEvaluator(engine), GateSpec(**gate), seed=1)


async def test_s7_the_ladder_of_the_search_scores_plan_and_code_of_an_answer_without_tests() -> None:
    engine = ScriptedEngine(lambda request: ["9"], logprobs=False)
    (scored,) = await scorer(engine, without_tests="ladder").scored(OPEN, [candidate()])
    assert scored.score == 9.0
    (request,) = engine.requests
    assert request.sampling.choices is not None
    asked = request.messages[-1].content
    assert asked.index("Double it.") < asked.index("return 2 * x")


@pytest.mark.parametrize(
    ("problem", "gate"),
    [
        (TESTED, {"without_tests": "ladder"}),
        (OPEN, {"without_tests": "keep"}),
        (OPEN, {"type": "likelihood"}),
    ],
)
async def test_nothing_is_asked_where_the_gate_does_not_go_by_the_score(problem: Problem, gate: dict[str, Any]) -> None:
    engine = ScriptedEngine(lambda request: ["9"])
    assert await scorer(engine, **gate).scored(problem, [candidate()]) == [candidate()]
    assert not engine.requests


async def test_an_answer_without_code_is_not_asked_about_and_a_failed_call_is_no_score() -> None:
    def fail(request: Request) -> list[str]:
        raise EngineError("refused")

    engine = ScriptedEngine(fail)
    answers = [candidate("a", code=None), candidate("b")]
    assert await scorer(engine, type="ladder").scored(OPEN, answers) == answers
    assert len(engine.requests) == 1
