"""The problem pack keeps its rules, and a pack that breaks one is caught."""

from importlib.resources import files

import pytest

from perseid.data.humaneval import load_prose
from perseid.data.pack_check import (
    Pack,
    PackError,
    WrongSolution,
    check_benchmarks,
    check_families,
    check_form,
    check_similarity,
    check_sizes,
    check_solutions,
    check_unique,
    read_pack,
    run_cases,
)
from perseid.data.records import Problem


@pytest.fixture(scope="module")
def pack() -> Pack:
    return read_pack(files("perseid.data.pack"))


@pytest.fixture
def plus_three() -> Problem:
    return Problem(
        id="one-line/plus-three",
        statement="Write a function plus_three(x) that returns x plus 3. For example, plus_three(4) returns 7.",
        signature="def plus_three(x):",
        entry_point="plus_three",
        tests=tuple(f"assert plus_three({x}) == {x + 3}" for x in (4, 0, -3, 10)),
        reference="def plus_three(x):\n    return x + 3\n",
        level="one-line",
        family="add-constant",
    )


def a_pack(
    *train: Problem, test: tuple[Problem, ...] = (), wrong: str = "def plus_three(x):\n    return x + 2\n"
) -> Pack:
    everything = (*train, *test)
    return Pack(
        {"train": train, "dev": (), "test": test}, tuple(WrongSolution(problem_id=p.id, code=wrong) for p in everything)
    )


# The real pack.


def test_the_pack_has_enough_problems_of_each_level_in_each_split(pack: Pack) -> None:
    assert check_sizes(pack) == []


def test_every_problem_is_in_the_agreed_form(pack: Pack) -> None:
    assert check_form(pack) == []


def test_ids_and_function_names_are_unique_over_all_splits(pack: Pack) -> None:
    assert check_unique(pack) == []


def test_every_statement_example_is_what_the_reference_returns(pack: Pack) -> None:
    cases = []
    for _, problem in pack.located():
        call, _, value = problem.statement.partition(" For example, ")[2].removesuffix(".").rpartition(" returns ")
        cases.append((problem.reference, f"assert {call} == {value}"))
    assert run_cases(cases) == [""] * len(cases)


def test_references_pass_and_wrong_or_trivial_solutions_fail(pack: Pack) -> None:
    assert check_solutions(pack) == []


def test_no_problem_has_a_relative_in_another_split(pack: Pack) -> None:
    assert check_families(pack) == []
    assert check_similarity(pack) == []


# Takes some 3 s: two hundred thousand pairs of texts.
def test_no_problem_is_a_near_duplicate_of_human_eval(pack: Pack) -> None:
    human_eval = load_prose()
    assert len(human_eval) == 164
    assert check_benchmarks(pack, human_eval) == []


# Broken packs.


def test_a_sound_problem_breaks_no_rule_but_the_sizes(plus_three: Problem) -> None:
    sound = a_pack(plus_three)
    checks = (check_form, check_unique, check_families, check_similarity, check_solutions)
    assert [violation for check in checks for violation in check(sound)] == []
    assert "1 problems in all, 200 are needed" in check_sizes(sound)


def test_a_wrong_solution_that_passes_is_reported(plus_three: Problem) -> None:
    (violation,) = check_solutions(a_pack(plus_three, wrong="def plus_three(x):\n    return 3 + x\n"))
    assert violation.startswith("one-line/plus-three: a wrong solution passes all tests")


def test_a_reference_that_fails_is_reported_with_the_failing_test(plus_three: Problem) -> None:
    broken = plus_three.model_copy(update={"reference": "def plus_three(x):\n    return x + 3 if x else 0\n"})
    (violation,) = check_solutions(a_pack(broken))
    assert "the reference fails: AssertionError" in violation
    assert "plus_three(0) == 3" in violation


def test_tests_that_the_identity_passes_are_reported(plus_three: Problem) -> None:
    same = plus_three.model_copy(
        update={
            "tests": tuple(f"assert plus_three({x}) == {x}" for x in (1, 2, 3, 4)),
            "reference": "def plus_three(x):\n    return x\n",
        }
    )
    (violation,) = check_solutions(a_pack(same))
    assert "a trivial answer passes all tests" in violation
    assert "return x" in violation


def test_tests_that_a_constant_passes_are_reported(plus_three: Problem) -> None:
    constant = plus_three.model_copy(
        update={
            "tests": tuple(f"assert plus_three({x}) == 3" for x in (0, 0.0, "-0", "False")),
        }
    )
    (violation,) = check_solutions(a_pack(constant))
    assert "a trivial answer passes all tests" in violation
    assert "return 3" in violation


def test_a_problem_without_a_wrong_solution_is_reported(plus_three: Problem) -> None:
    lonely = Pack({"train": (plus_three,)}, ())
    assert check_solutions(lonely) == ["one-line/plus-three: has no wrong solution"]


def test_a_wrong_solution_without_a_problem_is_reported() -> None:
    stray = Pack({"train": ()}, (WrongSolution(problem_id="gone", code="pass"),))
    assert check_solutions(stray) == ["a wrong solution is for gone, which is no problem"]


# Takes the 1 s of its time-out.
def test_a_solution_that_never_ends_is_named(plus_three: Problem) -> None:
    endless = a_pack(plus_three, wrong="def plus_three(x):\n    while True:\n        pass\n")
    (violation,) = check_solutions(endless, timeout_seconds=1.0)
    assert violation == "train: no end within 1.0 s at one-line/plus-three wrong solution"


def test_what_a_solution_prints_does_not_disturb_the_verdict(plus_three: Problem) -> None:
    noisy = plus_three.model_copy(update={"reference": "def plus_three(x):\n    print(x)\n    return x + 3\n"})
    assert check_solutions(a_pack(noisy)) == []


def test_a_family_across_splits_is_reported(plus_three: Problem) -> None:
    other = plus_three.model_copy(update={"id": "one-line/other", "entry_point": "other"})
    assert check_families(a_pack(plus_three, test=(other,))) == ["the family add-constant is in the splits test, train"]


def test_a_task_that_differs_in_names_and_numbers_only_is_reported_across_splits(plus_three: Problem) -> None:
    disguised = plus_three.model_copy(
        update={
            "id": "one-line/add-nine",
            "statement": "Write a function add_nine(n) that returns n plus 9. For example, add_nine(1) returns 10.",
            "family": "something-else",
        }
    )
    (violation,) = check_similarity(a_pack(plus_three, test=(disguised,)))
    assert violation.endswith("near-duplicates: similarity 1.00")
    assert check_similarity(a_pack(plus_three, disguised)) == []


def test_a_reworded_human_eval_task_is_reported(plus_three: Problem) -> None:
    copied = plus_three.model_copy(
        update={
            "statement": "Write a function size(s) that returns the length of the given string s. "
            "For example, size('ab') returns 2.",
        }
    )
    violations = check_benchmarks(a_pack(copied), load_prose())
    assert any("HumanEval/23" in violation for violation in violations)


def test_a_repeated_id_and_a_repeated_function_name_are_reported(plus_three: Problem) -> None:
    assert check_unique(a_pack(plus_three, plus_three)) == [
        "the id one-line/plus-three occurs 2 times",
        "the function name plus_three occurs 2 times",
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"statement": "Add 3 to x."}, "the statement is not of the form"),
        ({"signature": "def plus_three(y):", "reference": "def plus_three(y):\n    return y + 3\n"}, "do not name"),
        ({"entry_point": "plus_four"}, "do not name the same function"),
        ({"level": "easy"}, "the id does not begin with the level easy"),
        ({"family": ""}, "level or family is missing"),
        ({"reference": "plus_three = lambda x: x + 3"}, "the reference does not begin with the signature"),
        ({"tests": ("assert plus_three(4) == 7",) * 4}, "1 different tests of 4"),
        ({"tests": ("assert plus_three(4) == 7",)}, "no test differs from the statement's example"),
        ({"tests": ("assert plus_three(1) == 2 + 2",)}, "not a single assert with a literal expected value"),
        ({"tests": ("print(plus_three(1))",)}, "not a single assert with a literal expected value"),
    ],
)
def test_a_malformed_problem_is_reported(plus_three: Problem, change: dict[str, object], fault: str) -> None:
    violations = check_form(a_pack(plus_three.model_copy(update=change)))
    assert any(fault in violation for violation in violations)


def test_a_line_that_is_no_record_is_named_by_file_and_number(tmp_path, plus_three: Problem) -> None:
    for name in ("train", "dev", "test", "wrong"):
        (tmp_path / f"{name}.jsonl").write_text("")
    (tmp_path / "dev.jsonl").write_text(plus_three.model_dump_json() + '\n{"id": "x"}\n')
    with pytest.raises(PackError, match=r"dev\.jsonl:2: not a Problem"):
        read_pack(tmp_path)
