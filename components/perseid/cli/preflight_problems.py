"""Mistakes in a run's problems that can be found before anything starts: what cannot be read, tested or learned."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

from perseid.api.problems import ProblemSet
from perseid.api.spec import DefinitionSpec
from perseid.data.errors import DataError
from perseid.data.problems import load_problems
from perseid.data.records import Problem
from perseid.runner.errors import RunnerError

PROBLEMS = "spec.problems"


def check_problems(spec: DefinitionSpec) -> None:
    """Raise RunnerError or DataError for problems that would stop a run or make it worthless. Paths are absolute."""
    train = _load(f"{PROBLEMS}.train", spec.problems.train)
    gate = spec.conversion.gate
    if train and gate.type == "tests" and gate.without_tests == "drop" and not any(one.tests for one in train):
        raise RunnerError(
            f"no problem of {PROBLEMS}.train has tests, so that the gate would drop every answer; give them tests, or"
            " say in spec.conversion.gate what decides instead (type: ladder, for example)"
        )
    learned = {problem.id for problem in train}
    for field, problems in (
        (f"{PROBLEMS}.dev", spec.problems.dev),
        *((f"{PROBLEMS}.test[{index}]", one) for index, one in enumerate(spec.problems.test)),
    ):
        loaded = _load(field, problems)
        shared = sorted({problem.id for problem in loaded} & learned)
        if shared:
            raise RunnerError(
                f"{len(shared)} problem(s) are in {PROBLEMS}.train and in the evaluation set {problems.title}, for"
                f" example {shared[0]}; a score on problems that were trained on says nothing: take them out of one"
            )
        if loaded and not any(problem.tests for problem in loaded):
            raise RunnerError(
                f"no problem of {field} ({problems.title}) has tests, so that every answer that runs would count as"
                " right; give the problems tests"
            )


def _load(field: str, problems: ProblemSet) -> list[Problem]:
    """The set's problems; none for a dataset of the hub: reading it would download it."""
    if problems.source == "hub":
        return []
    try:
        loaded = load_problems(problems, Path("/"))
    except DataError as error:
        raise DataError(f"{field}: {error}; put that right, or give other problems there") from error
    if problems.source == "jsonl":  # the others are known to be sound, or were parsed when they were read
        for problem in loaded:
            _check_code(f"{field}: {problems.path}, problem {problem.id!r}", problem)
    return loaded


def _check_code(where: str, problem: Problem) -> None:
    name = problem.entry_point
    if name and not name.isidentifier():
        raise DataError(f"{where}: the entry_point {name!r} is no name of a Python function; correct it")
    pieces = [("setup", problem.setup), ("reference", problem.reference)]
    pieces += [(f"tests[{index}]", test) for index, test in enumerate(problem.tests)]
    for place, code in pieces:
        fault = _fault(code)
        if fault:
            raise DataError(f"{where}: {place} is not valid Python: {fault}; correct it, or remove the problem")


def _fault(code: str) -> str:
    """Why the code is none; empty where it is some."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a user's code is not our warning
            compile(ast.parse(code), "<problem>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"{error.msg} (line {error.lineno}: {(error.text or '').strip()[:60]!r})"
    except (ValueError, RecursionError, MemoryError) as error:  # zero bytes; nested too deep
        return str(error) or "it is nested too deep"
    return ""
