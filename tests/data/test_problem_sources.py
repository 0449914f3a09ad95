"""Problems from every source that a spec can name."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from perseid.api.problems import ProblemSet
from perseid.data.errors import DataError
from perseid.data.problems import load_problems
from perseid.data.records import Problem

HERE = Path()


def row(task_id: int, **changes: Any) -> dict[str, Any]:
    return {
        "text": "Write a function to add a list.",
        "code": "import math\r\ndef helper(x):\r\n  return x\r\ndef total(xs):\r\n  return sum(helper(x) for x in xs)",
        "task_id": task_id,
        "test_setup_code": "START = 0\r\n",
        "test_list": ["assert set([total([1, 2])]) == {3}", "assert total([]) == START"],
        "challenge_test_list": ["assert total([9]) == 9"],
    } | changes


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(json.dumps(each) for each in rows), encoding="utf-8")


def run(problem: Problem, code: str) -> None:
    exec("\n\n".join([problem.setup, code, *problem.tests]), {"__name__": "answer"})


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_pack_is_read_and_its_references_are_right(split: str) -> None:
    problems = load_problems(ProblemSet(split=split), HERE)
    assert problems
    run(problems[0], problems[0].reference)


def test_levels_and_limit_select_from_the_pack_in_order() -> None:
    everything = load_problems(ProblemSet(split="train"), HERE)
    some = load_problems(ProblemSet(split="train", levels=["easy"], limit=3), HERE)
    assert some == [problem for problem in everything if problem.level == "easy"][:3]


def test_humaneval_is_complete_and_right_with_the_function_alone() -> None:
    problems = load_problems(ProblemSet(source="humaneval"), HERE)
    assert len(problems) == 164
    by_id = {problem.id: problem for problem in problems}
    for identity in ("HumanEval/0", "HumanEval/32", "HumanEval/38"):  # an import, a helper, both in the setup
        problem = by_id[identity]
        assert problem.setup
        assert problem.signature.startswith(f"def {problem.entry_point}(")
        function = next(
            node
            for node in ast.parse(problem.reference).body
            if isinstance(node, ast.FunctionDef) and node.name == problem.entry_point
        )
        run(problem, ast.unparse(function))
        with pytest.raises(AssertionError):
            run(problem, f"def {problem.entry_point}(*_): return 'wrong'" if identity != "HumanEval/32" else
                f"def {problem.entry_point}(*_): return 1e9")  # fmt: skip
    assert all(problem.statement.count("```") == 2 for problem in problems)


def test_mbpp_rows_become_problems_that_can_be_answered(tmp_path: Path) -> None:
    write_rows(tmp_path / "m.jsonl", [row(11)])
    (problem,) = load_problems(ProblemSet(source="mbpp", path="m.jsonl"), tmp_path)
    assert problem.id == "mbpp/11"
    assert problem.entry_point == "total"
    assert problem.statement == (
        "Write a function to add a list.\n"
        "The function is called total. For example, this holds: assert set([total([1, 2])]) == {3}"
    )
    assert "\r" not in problem.reference + problem.setup
    assert len(problem.tests) == 2
    run(problem, problem.reference)


@pytest.mark.parametrize(
    ("split", "ids"), [("prompts", [10]), ("test", [11, 510]), ("validation", [511, 600]), ("train", [601, 974])]
)
def test_mbpp_has_its_customary_splits(tmp_path: Path, split: str, ids: list[int]) -> None:
    write_rows(tmp_path / "m.jsonl", [row(number) for number in (10, 11, 510, 511, 600, 601, 974)])
    problems = load_problems(ProblemSet(source="mbpp", path="m.jsonl", split=split), tmp_path)
    assert [problem.id for problem in problems] == [f"mbpp/{number}" for number in ids]


def test_a_dataset_of_the_hubs_kind_is_loaded_with_its_own_split(tmp_path: Path) -> None:
    # Some seconds on a cold start: the real library builds its cache from a local dataset.
    directory = tmp_path / "mine"
    directory.mkdir()
    sanitized = {"prompt": "Write a function to add a list.", "test_imports": ["START = 0"], "source_file": "x"}
    rows = [{key: value for key, value in row(n).items() if key not in {"text", "test_setup_code"}} for n in (3, 4)]
    write_rows(directory / "test.jsonl", [each | sanitized for each in rows])
    datasets.config.HF_DATASETS_CACHE = tmp_path / "cache"
    problems = load_problems(ProblemSet(source="hub", path="mine", split="test"), tmp_path)
    assert [problem.id for problem in problems] == ["mbpp/3", "mbpp/4"]
    run(problems[0], problems[0].reference)
    with pytest.raises(DataError, match="split dev, cannot be loaded"):
        load_problems(ProblemSet(source="hub", path="mine", split="dev"), tmp_path)


def test_a_name_that_is_no_directory_goes_to_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def load_dataset(name: str, split: str) -> list[dict[str, Any]]:
        asked.append((name, split))
        return [row(1)]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(load_problems(ProblemSet(source="hub", path="org/set", split="train"), tmp_path)) == 1
    assert asked == [("org/set", "train")]


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        ([row(1), row(1)], {}, "the id 'mbpp/1' occurs twice"),
        ([row(1)], {"split": "train"}, "no problem is left of source mbpp, split train"),
        ([row(1)], {"split": "dev"}, "no split 'dev'; choose one of prompts, test"),
        ([row(1)], {"levels": ["easy"]}, "no problem is left of source mbpp with levels easy"),
        ([row(1, test_list=[])], {}, r"m\.jsonl:1: test_list of a row"),
        ([row(1), row(2, text=" ")], {}, r"m\.jsonl:2: .* text or prompt"),
        ([row(1, code="def")], {}, r"m\.jsonl:1: the code or a test does not parse"),
        (
            [row(1, test_list=["assert other(1)"])],
            {},
            "no test calls a function that the code defines; .* helper, total",
        ),
    ],
)
def test_what_is_wrong_with_a_set_is_said(
    tmp_path: Path, rows: list[dict[str, Any]], fields: dict[str, Any], message: str
) -> None:
    write_rows(tmp_path / "m.jsonl", rows)
    with pytest.raises(DataError, match=message):
        load_problems(ProblemSet(source="mbpp", path="m.jsonl", **fields), tmp_path)


def test_a_file_of_problem_records_is_read_from_an_absolute_path_too(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": "a", "statement": "Do it."}\n', encoding="utf-8")
    for path in ("p.jsonl", str(tmp_path / "p.jsonl")):
        assert load_problems(ProblemSet(source="jsonl", path=path), tmp_path)[0].id == "a"
    with pytest.raises(DataError, match=r"q\.jsonl cannot be read"):
        load_problems(ProblemSet(source="jsonl", path="q.jsonl"), tmp_path)
