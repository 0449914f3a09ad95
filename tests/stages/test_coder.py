"""Plan to code to verdict, with scripted answers and the real sandbox."""

from __future__ import annotations

from pathlib import Path

from perseid.api.engine import SamplingSpec
from perseid.api.synthesis import SandboxSpec
from perseid.data.prompts import INSTRUCTION
from perseid.data.records import Problem
from perseid.engines.journal import Journal, read_journal
from perseid.engines.journaled import JournaledEngine
from perseid.engines.protocol import Completion
from perseid.engines.scripted import ScriptedEngine
from perseid.sandbox.pool import Sandbox
from perseid.stages.coder import Coder, judge, read_code

PROBLEM = Problem(
    id="add",
    statement="Write a function add(x, y) that returns x plus y.",
    entry_point="add",
    tests=("assert add(1, 2) == 3", "assert add(0, 0) == 0"),
)
PLAN = ("Take both numbers.", "Return their sum.")
RIGHT = "```python\ndef add(x, y):\n    return x + y\n```"
HALF_RIGHT = "```python\ndef add(x, y):\n    return x * y\n```"
ENDLESS = "```python\ndef add(x, y):\n    while True: pass\n```"


def coder(answers: list[str], sandbox: Sandbox) -> tuple[Coder, ScriptedEngine]:
    engine = ScriptedEngine(lambda request: answers)
    return Coder(engine, sandbox, SamplingSpec(temperature=0.5, max_tokens=64), len(answers), seed=3), engine


async def test_s15_the_request_for_code_shows_the_plan_verbatim_and_asks_all_answers_at_once() -> None:
    async with Sandbox(SandboxSpec()) as sandbox:
        writer, engine = coder([RIGHT, HALF_RIGHT], sandbox)
        await writer.write(PROBLEM, PLAN)
    (request,) = engine.requests
    assert "1. Take both numbers.\n2. Return their sum." in request.messages[-1].content
    assert PROBLEM.statement in request.messages[-1].content
    assert request.sampling.n == 2


async def test_s22_without_a_plan_the_request_and_its_examples_speak_of_none() -> None:
    async with Sandbox(SandboxSpec()) as sandbox:
        writer, engine = coder([RIGHT, RIGHT, RIGHT], sandbox)
        await writer.write(PROBLEM, ())
    (request,) = engine.requests
    assert request.messages[-1].content == f"{PROBLEM.statement}\n{INSTRUCTION}"
    assert not any("plan" in message.content.lower() for message in request.messages)


async def test_the_same_plan_is_the_same_request_and_another_plan_another() -> None:
    async with Sandbox(SandboxSpec()) as sandbox:
        writer, engine = coder([RIGHT], sandbox)
        for plan in (PLAN, PLAN, PLAN[:1]):
            await writer.write(PROBLEM, plan)
    first, second, third = engine.requests
    assert first == second
    assert third.sampling.seed != first.sampling.seed


async def test_s16_the_evidence_for_a_path_is_the_mean_share_of_tests_over_its_answers() -> None:
    async with Sandbox(SandboxSpec()) as sandbox:
        writer, _ = coder([RIGHT, HALF_RIGHT, "no code here"], sandbox)
        assert await writer.share_of_tests(PROBLEM, PLAN) == 0.75


async def test_no_complete_code_is_no_evidence_and_neither_is_a_problem_without_tests() -> None:
    async with Sandbox(SandboxSpec()) as sandbox:
        writer, engine = coder(["```python\ndef add(x, y):"], sandbox)
        assert await writer.share_of_tests(PROBLEM, PLAN) is None
        untested = PROBLEM.model_copy(update={"tests": ()})
        assert await writer.share_of_tests(untested, PLAN) is None
    assert len(engine.requests) == 1


async def test_s16_an_answer_that_never_ends_is_judged_wrong_and_says_why() -> None:
    async with Sandbox(SandboxSpec(wall_seconds=0.5, cpu_seconds=1)) as sandbox:
        verdict = await judge(sandbox, PROBLEM, ENDLESS)
    assert not verdict.passed
    assert verdict.reason.startswith("timeout")


async def test_a_right_answer_passes_and_one_without_code_says_so() -> None:
    async with Sandbox(SandboxSpec()) as sandbox:
        assert (await judge(sandbox, PROBLEM, RIGHT)).passed
        assert (await judge(sandbox, PROBLEM, "I cannot.")).reason == "no-code-block"


def test_s15_a_truncated_answer_has_no_code_even_where_a_block_in_it_is_closed() -> None:
    answer = Completion(text=RIGHT, tokens=64, finish_reason="length")
    assert read_code(PROBLEM, answer).code is None
    assert read_code(PROBLEM, answer).reason == "truncated"


async def test_what_the_search_has_executed_is_not_asked_again_by_conversion(tmp_path: Path) -> None:
    async with Sandbox(SandboxSpec()) as sandbox:
        inner = ScriptedEngine(lambda request: [RIGHT])
        with Journal(tmp_path / "search.jsonl") as journal:
            searched = Coder(JournaledEngine(inner, journal), sandbox, SamplingSpec(), 1, seed=3)
            await searched.share_of_tests(PROBLEM, PLAN)
        with Journal(tmp_path / "conversion.jsonl") as journal:
            engine = JournaledEngine(inner, journal, read_journal(tmp_path / "search.jsonl"))
            converting = Coder(engine, sandbox, SamplingSpec(), 1, seed=3)
            (completion,) = await converting.write(PROBLEM, PLAN)
            assert len(journal) == 0
    assert completion.text == RIGHT
    assert len(inner.requests) == 1
    assert engine.counts.usage_by_kind == {}  # it was the search's cost
