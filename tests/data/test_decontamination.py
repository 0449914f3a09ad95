"""Training samples that resemble evaluation problems are found, and ordinary ones are let be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.api.problems import ProblemSet
from perseid.api.synthesis import DecontaminationSpec
from perseid.data.decontaminate import Hit, decontaminate
from perseid.data.problems import load_problems
from perseid.data.records import Problem

SPEC = DecontaminationSpec()
HUMANEVAL = load_problems(ProblemSet(source="humaneval"), Path())
TRAIN = load_problems(ProblemSet(split="train"), Path())
HELD_OUT = {split: load_problems(ProblemSet(split=split), Path()) for split in ("dev", "test")}


def own(number: int) -> Problem:
    words = ("one", "two", "three", "four", "five", "six")
    name = f"plus_{words[number - 1]}"
    return Problem(
        id=name,
        statement=(
            f"Write a function {name}(x) that returns x plus {number}. For example, {name}(2) returns {number + 2}."
        ),
        reference=f"def {name}(x):\n    return x + {number}\n",
    )


def hits(statement: str, code: str, problem: Problem, spec: DecontaminationSpec = SPEC) -> list[Hit]:
    return decontaminate([("s", statement, code)], {"eval": [problem]}, spec)


DRESSES: dict[str, Callable[[Problem], tuple[str, str]]] = {
    "as it is": lambda problem: (problem.statement, ""),
    "in capitals": lambda problem: (problem.statement.upper(), ""),
    "spaced and punctuated": lambda problem: (problem.statement.replace(" ", "  ").replace(".", " ;"), ""),
    "solved": lambda problem: (problem.reference, ""),
    "with courtesies": lambda problem: ("Please help me. " + problem.statement + " Thanks!", ""),
    "as code": lambda problem: ("", problem.reference),
}


@pytest.mark.parametrize("dress", DRESSES)
def test_every_injected_humaneval_problem_is_found_however_it_is_dressed(dress: str) -> None:
    # About a second: 164 samples against 164 problems.
    samples = [(problem.id, *DRESSES[dress](problem)) for problem in HUMANEVAL]
    found = decontaminate(samples, {"humaneval": HUMANEVAL}, SPEC)
    itself = {hit.sample_id for hit in found if hit.sample_id == hit.problem_id}
    assert itself == {problem.id for problem in HUMANEVAL}
    assert {hit.evaluation_set for hit in found} == {"humaneval"}


def test_the_pack_s_own_training_problems_are_let_be() -> None:
    samples = [(problem.id, problem.statement, problem.reference) for problem in TRAIN]
    found = decontaminate(samples, {**HELD_OUT, "humaneval": HUMANEVAL}, SPEC)
    assert len({hit.sample_id for hit in found}) <= len(TRAIN) // 50, found


def test_every_held_out_problem_of_the_pack_would_be_found() -> None:
    for title, problems in HELD_OUT.items():
        samples = [(problem.id, problem.statement, "") for problem in problems]
        found = {
            hit.sample_id for hit in decontaminate(samples, {title: problems}, SPEC) if hit.sample_id == hit.problem_id
        }
        assert found == {problem.id for problem in problems}


def test_problems_that_differ_in_a_number_are_two_problems() -> None:
    assert hits(own(3).statement, own(3).reference, own(5)) == []
    assert [hit.kind for hit in hits(own(3).statement, "", own(3))] == ["same-statement"]


def test_the_same_question_under_another_name_and_example_is_the_same() -> None:
    found = hits("Write a function add(x) that returns x plus 3! For example, add(9) returns 12.", "", own(3))
    assert [(hit.kind, hit.evidence) for hit in found] == [("same-statement", "returns x plus 3")]


def test_a_slightly_reworded_statement_is_similar() -> None:
    problem = HELD_OUT["dev"][0]
    reworded = problem.statement.replace("Write a function", "Write the function")
    assert [hit.kind for hit in hits(reworded, "", problem)] in (["similar-statement"], ["statement-ngram"])
    strict = DecontaminationSpec(similarity=1.0, ngram=50)
    assert hits(reworded, "", problem, strict) == []


def test_layout_comments_and_docstrings_do_not_hide_a_code() -> None:
    code = 'def plus_three(x):\n    """Adds."""\n    return (x +\n        3)  # three\n'
    assert [hit.kind for hit in hits("Something else.", code, own(3))] == ["same-code"]


def test_words_in_a_row_count_unless_they_are_the_style_of_the_set() -> None:
    unique = "alpha beta gamma delta epsilon zeta eta theta iota kappa"
    style = "read the numbers from the list and give back in order"
    problems = [Problem(id=str(n), statement=f"{style} {chr(97 + n) * 9} {unique if n == 0 else ''}") for n in range(4)]
    found = decontaminate(
        [("s", f"{style} quite differently", ""), ("t", f"lo {unique} hi", "")], {"e": problems}, SPEC
    )
    assert [(hit.sample_id, hit.problem_id, hit.kind, hit.evidence) for hit in found] == [
        ("t", "0", "statement-ngram", unique)
    ]


words = st.lists(st.sampled_from(["sort", "list", "of", "numbers", "by", "last", "digit"]), max_size=30)


@given(words, words, st.integers(3, 12))
def test_a_hit_by_words_is_a_run_that_both_hold(left: list[str], right: list[str], ngram: int) -> None:
    spec = DecontaminationSpec(ngram=ngram, similarity=1.0)
    problem = Problem(id="p", statement=" ".join(right) or "x")
    shared = any(
        left[i : i + ngram] == right[j : j + ngram]
        for i in range(len(left) - ngram + 1)
        for j in range(len(right) - ngram + 1)
    )
    found = hits(" ".join(left), "", problem, spec)
    assert bool(found) == (shared or (left == right and len(left) >= 1 and bool(right)))


def test_code_that_does_not_parse_is_compared_by_its_words() -> None:
    problem = HUMANEVAL[0]
    assert [hit.kind for hit in hits("x", problem.reference + "\n)", problem)] == ["code-ngram"]


def test_code_that_cannot_be_written_out_again_is_compared_by_nothing_and_stops_nothing() -> None:
    code = "def f():\n    return " + " + ".join(["1"] * 3000)
    assert decontaminate([("s", "Write a function f() that returns 3000.", code)], HELD_OUT, SPEC) == []
