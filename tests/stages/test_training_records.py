from __future__ import annotations

import pytest

from perseid.api.problems import ProblemSet, ProblemsSpec
from perseid.api.synthesis import ConversionSpec
from perseid.data import humaneval
from perseid.data.prompts import INSTRUCTION, code_messages, fenced, plan_text, question
from perseid.data.records import Candidate, Problem
from perseid.stages.convert import remove_contaminated, training_samples
from perseid.stages.gate import Sorted

PROBLEM = Problem(id="p", statement="Write a function twice(x) that returns x times 2.", entry_point="twice")
CODE = "def twice(x):\n    return 2 * x\n"


def answer(
    name: str = "p/0/0", problem: str = "p", code: str = CODE, plan: tuple[str, ...] = ("Double x.",)
) -> Candidate:
    return Candidate(
        id=name,
        problem_id=problem,
        plan_index=0,
        sample_index=0,
        plan=plan,
        answer="whatever the model said around it",
        code=code,
        truncated=False,
        mean_logprob=-0.1,
    )


def test_s17_a_record_asks_in_the_evaluations_own_words_and_answers_with_plan_and_code() -> None:
    (sample,) = training_samples([answer()], {"p": PROBLEM}, ConversionSpec(), seed=0)
    assert sample.prompt == question(PROBLEM)
    assert sample.answer == "Double x.\n\n```python\ndef twice(x):\n    return 2 * x\n```"


def test_s23_without_thinking_a_record_answers_with_code_alone() -> None:
    spec = ConversionSpec(thinking=False)
    (sample,) = training_samples([answer()], {"p": PROBLEM}, spec, seed=0)
    assert sample.answer == fenced(CODE)
    assert sample.prompt == question(PROBLEM)


def test_s17_an_answer_without_a_plan_is_a_record_of_code_alone() -> None:
    (sample,) = training_samples([answer(plan=())], {"p": PROBLEM}, ConversionSpec(thinking=True), seed=0)
    assert sample.answer == fenced(CODE)


def test_s17_instructions_are_drawn_from_the_pool_by_each_answers_own_id() -> None:
    pool = ["One.", "Two.", "Three."]
    spec = ConversionSpec(instructions=pool)
    answers = [answer(f"p/0/{n}") for n in range(60)]
    samples = training_samples(answers, {"p": PROBLEM}, spec, seed=0)
    drawn = [sample.prompt.rsplit("\n", 1)[1] for sample in samples]
    assert set(drawn) == set(pool)
    assert training_samples(answers[10:11], {"p": PROBLEM}, spec, seed=0) == samples[10:11], "others change the draw"
    assert [one.prompt for one in training_samples(answers, {"p": PROBLEM}, spec, seed=1)] != [
        one.prompt for one in samples
    ]


def test_the_evaluation_prompt_is_the_statement_and_the_default_instruction() -> None:
    assert question(PROBLEM) == f"{PROBLEM.statement}\n{INSTRUCTION}"


def test_a_plan_of_one_step_stands_alone_and_a_longer_one_is_numbered() -> None:
    assert plan_text(["Double x."]) == "Double x."
    assert plan_text(["Take x.", "Double it."]) == "1. Take x.\n2. Double it."


def test_s15_the_chat_for_code_begins_the_same_for_every_problem_and_ends_with_the_plan() -> None:
    first = code_messages(PROBLEM, ["Double x."])
    second = code_messages(Problem(id="q", statement="Something else."), ["A", "B"])
    assert first[:-1] == second[:-1], "a prefix cache could not hold it"
    assert [role for role, _ in first] == ["system", *3 * ["user", "assistant"], "user"]
    assert PROBLEM.statement in first[-1][1]
    assert "Plan: Double x." in first[-1][1]


@pytest.mark.parametrize("how", ["statement", "code"])
def test_s18_an_evaluation_item_among_the_answers_is_taken_out_and_reported(how: str) -> None:
    item = humaneval.load()[0]
    leaked = Problem(id="leak", statement=item.statement if how == "statement" else "Are two numbers near?")
    code = item.reference if how == "code" else "def f():\n    return 1\n"
    result = Sorted(kept=[answer(), answer("leak/0/0", "leak", code)])
    sets = ProblemsSpec(
        train=ProblemSet(source="pack", split="train"),
        dev=ProblemSet(source="pack", split="dev", limit=1),
        test=[ProblemSet(source="humaneval", name="humaneval")],
    )
    hits = remove_contaminated(result, {"p": PROBLEM, "leak": leaked}, sets, ConversionSpec())

    assert [one.id for one in result.kept] == ["p/0/0"]
    assert {(hit.sample_id, hit.evaluation_set) for hit in hits} == {("leak/0/0", "humaneval")}
    assert item.id in {hit.problem_id for hit in hits}  # its code shares lines with another item's, too
    (dropped,) = result.dropped
    assert (dropped.id, dropped.reason) == ("leak/0/0", "contaminated")
    assert dropped.detail.endswith(f"of {item.id} in humaneval")
    assert result.yields.dropped == {"contaminated": 1}
