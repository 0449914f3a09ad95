"""Problems in MBPP's shape (arXiv 2108.07732): `text`, `code`, `task_id`, `test_list`, `test_setup_code`.

MBPP's sentence alone cannot be answered: it names no function and leaves the arguments open, and it was meant to be
shown with its tests. So the statement adds the function's name and the first test as an example. That test stays
among the tests, as it does in the paper, where the prompt shows all three. `challenge_test_list` is not used: the
customary score does not use it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perseid.data.errors import DataError
from perseid.data.records import Problem

SPLITS = {"prompts": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}
"""Customary splits: first and last task id."""


class MbppRow(BaseModel):
    """A row of MBPP, or of its sanitized edition, which names two fields differently. Other fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    task_id: int
    text: str = ""
    prompt: str = ""
    code: str
    test_list: Annotated[list[str], Field(min_length=1)]
    test_setup_code: str = ""
    test_imports: list[str] = []


def problems_from_rows(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[tuple[int, Problem]]:
    """Rows, each with the place to name in an error, as problems with their task ids. Raises DataError."""
    found = []
    for place, raw in rows:
        try:
            row = MbppRow.model_validate(raw)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{place}: {field} of a row in MBPP's shape: {first['msg']}") from error
        found.append((row.task_id, _problem(place, row)))
    return found


def select_split(problems: Iterable[tuple[int, Problem]], split: str | None) -> list[Problem]:
    """Problems of a customary split; all of them where none is named. Raises DataError for a name that is none."""
    if split is None:
        return [problem for _, problem in problems]
    if split not in SPLITS:
        raise DataError(f"mbpp has no split {split!r}; choose one of {', '.join(SPLITS)}")
    first, last = SPLITS[split]
    return [problem for task_id, problem in problems if first <= task_id <= last]


def _problem(place: str, row: MbppRow) -> Problem:
    text = _lines(row.text or row.prompt).strip()
    if not text:
        raise DataError(f"{place}: a row in MBPP's shape needs the field text or prompt")
    code, tests = _lines(row.code), tuple(_lines(test).strip() for test in row.test_list)
    name = _entry_point(place, code, tests)
    setup = [_lines(row.test_setup_code).strip(), *(_lines(line).strip() for line in row.test_imports)]
    return Problem(
        id=f"mbpp/{row.task_id}",
        statement=f"{text}\nThe function is called {name}. For example, this holds: {tests[0]}",
        entry_point=name,
        tests=tests,
        setup="\n".join(part for part in setup if part),
        reference=code,
    )


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _entry_point(place: str, code: str, tests: tuple[str, ...]) -> str:
    """The function of the code that the first test calls. A test may wrap it, as in `assert set(f(x)) == ...`."""
    try:
        defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        called = [
            node.func.id
            for test in tests
            for node in ast.walk(ast.parse(test))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{place}: the code or a test does not parse: {error}") from error
    for name in called:
        if name in defined:
            return name
    raise DataError(f"{place}: no test calls a function that the code defines; it defines {', '.join(sorted(defined))}")
