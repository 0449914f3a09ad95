"""Checks of a problem pack: that its tests tell right from wrong, and that no problem leaks from one split to another.

Every check takes a `Pack` and returns its violations as sentences; an empty list is a pass. `check_pack` runs them all.
The solutions that it executes are the pack's own and trusted, so a plain subprocess with a time-out is enough here;
what a model writes belongs in `perseid.sandbox`.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from perseid.data.pack_text import STATEMENT, masked_task, plain_text, similar_pairs, task_of
from perseid.data.records import Level, Problem, Record

SPLITS = ("train", "dev", "test")

MINIMUM_SIZES: Mapping[tuple[str, Level], int] = {
    ("train", "one-line"): 85,
    ("dev", "one-line"): 45,
    ("test", "one-line"): 55,
    ("train", "easy"): 25,
    ("dev", "easy"): 15,
    ("test", "easy"): 20,
    ("train", "medium"): 15,
    ("dev", "medium"): 10,
    ("test", "medium"): 15,
}
"""Problems that the pack holds at least."""

MINIMUM_TOTAL = 200
SPLIT_SIMILARITY = 0.85
"""From this ratio on, two tasks in different splits count as near-duplicates (0 nothing in common, 1 equal)."""
BENCHMARK_SIMILARITY = 0.8
"""From this ratio on, a task counts as a near-duplicate of a benchmark's."""
TIMEOUT_SECONDS = 60.0
"""For all solutions of one split together; they take well under a second."""

# One process runs many cases: it prints one JSON line per case, so that after a time-out the first case without a line
# is the one that hangs. The cases print nothing into that stream.
_RUN_CASES = """
import contextlib, io, json, sys
for case in json.load(sys.stdin):
    error = ""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            namespace = {"__name__": "case"}
            for part in case:
                exec(part, namespace)
    except BaseException as problem:
        error = f"{type(problem).__name__}: {problem} at: {part.strip().splitlines()[-1]}"
    print(json.dumps(error), flush=True)
"""

AnyRecord = TypeVar("AnyRecord", bound=Record)


class PackError(Exception):
    """A pack file that cannot be read. The message names the file and the line."""


class WrongSolution(Record):
    """A plausible but wrong answer: at least one test of its problem must fail on it."""

    problem_id: str
    code: str


@dataclass(frozen=True, slots=True)
class Pack:
    """All problems by split, and wrong solutions to them."""

    splits: Mapping[str, tuple[Problem, ...]]
    wrong: tuple[WrongSolution, ...]

    def located(self) -> Iterator[tuple[str, Problem]]:
        """Every problem with the name of its split."""
        for split, problems in self.splits.items():
            for problem in problems:
                yield split, problem


def read_pack(directory: Path | Traversable) -> Pack:
    """Read `{train,dev,test,wrong}.jsonl`; raises PackError for a line that is no valid record."""
    splits = {split: _read_records(directory / f"{split}.jsonl", Problem) for split in SPLITS}
    return Pack(splits, _read_records(directory / "wrong.jsonl", WrongSolution))


def _read_records(path: Path | Traversable, record: type[AnyRecord]) -> tuple[AnyRecord, ...]:
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            records.append(record.model_validate_json(line))
        except ValidationError as error:
            raise PackError(f"{path}:{number}: not a {record.__name__}: {error}") from error
    return tuple(records)


def check_pack(pack: Pack, benchmarks: Mapping[str, str]) -> list[str]:
    """Run every check. `benchmarks` maps the id of each held-out benchmark task to its statement."""
    return [
        *check_sizes(pack),
        *check_form(pack),
        *check_unique(pack),
        *check_families(pack),
        *check_similarity(pack),
        *check_benchmarks(pack, benchmarks),
        *check_solutions(pack),
    ]


def check_sizes(pack: Pack) -> list[str]:
    """Each split has enough problems of each level, and at least half of all are one-line."""
    sizes = Counter((split, problem.level) for split, problem in pack.located())
    violations = [
        f"{split}: {sizes[split, level]} {level} problems, {minimum} are needed"
        for (split, level), minimum in MINIMUM_SIZES.items()
        if sizes[split, level] < minimum
    ]
    total = sizes.total()
    one_line = sum(count for (_, level), count in sizes.items() if level == "one-line")
    if total < MINIMUM_TOTAL:
        violations.append(f"{total} problems in all, {MINIMUM_TOTAL} are needed")
    if 2 * one_line < total:
        violations.append(f"{one_line} of {total} problems are one-line, at least half must be")
    return violations


def check_form(pack: Pack) -> list[str]:
    """Each problem is whole: statement in the agreed form, true signature, 4 to 6 single asserts, level and family."""
    return [f"{problem.id}: {fault}" for _, problem in pack.located() for fault in _form_faults(problem)]


def _form_faults(problem: Problem) -> Iterator[str]:
    match = STATEMENT.fullmatch(problem.statement)
    if match is None:
        yield "the statement is not of the form 'Write a function F(X) that ... . For example, F(1) returns 2.'"
    elif (
        problem.signature != f"def {match['name']}({match['parameters']}):"
        or problem.entry_point != match["name"] != ""
        or match["called"] != match["name"]
    ):
        yield "statement, example, signature and entry point do not name the same function and parameters"
    elif all(f"{match['name']}({match['arguments']})" in test for test in problem.tests):
        yield "no test differs from the statement's example"
    if not problem.id.startswith(f"{problem.level}/"):
        yield f"the id does not begin with the level {problem.level}"
    if problem.level is None or not problem.family:
        yield "level or family is missing"
    if not problem.reference.startswith(problem.signature):
        yield "the reference does not begin with the signature"
    if not 4 <= len(set(problem.tests)) == len(problem.tests) <= 6:
        yield f"{len(set(problem.tests))} different tests of {len(problem.tests)}, 4 to 6 are needed"
    for test in problem.tests:
        if _expected_value(test) is None:
            yield f"not a single assert with a literal expected value: {test}"


def check_unique(pack: Pack) -> list[str]:
    """Ids and function names occur once in all splits together."""
    ids = Counter(problem.id for _, problem in pack.located())
    names = Counter(problem.entry_point for _, problem in pack.located())
    return [f"the id {key} occurs {count} times" for key, count in ids.items() if count > 1] + [
        f"the function name {name} occurs {count} times" for name, count in names.items() if count > 1
    ]


def check_families(pack: Pack) -> list[str]:
    """No family has problems in two splits."""
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for split, problem in pack.located():
        homes[problem.family].add(split)
    return [
        f"the family {family} is in the splits {', '.join(sorted(splits))}"
        for family, splits in homes.items()
        if len(splits) > 1
    ]


def check_similarity(pack: Pack, threshold: float = SPLIT_SIMILARITY) -> list[str]:
    """No two tasks in different splits read the same once function names, parameter names and numbers are masked."""
    tasks = {split: [(problem.id, masked_task(problem)) for problem in pack.splits[split]] for split in pack.splits}
    violations = []
    for left, right in combinations(tasks, 2):
        for one, other, ratio in similar_pairs(tasks[left], tasks[right], threshold):
            violations.append(f"{one} ({left}) and {other} ({right}) are near-duplicates: similarity {ratio:.2f}")
    return violations


def check_benchmarks(pack: Pack, benchmarks: Mapping[str, str], threshold: float = BENCHMARK_SIMILARITY) -> list[str]:
    """No task reads like a benchmark's statement or one of its sentences."""
    ours = [(problem.id, plain_text(task_of(problem))) for _, problem in pack.located()]
    theirs = [
        (key, plain_text(text))
        for key, statement in benchmarks.items()
        for text in {statement, *re.split(r"(?<=[.!?])\s|\n\n", statement)}
    ]
    theirs = [(key, text) for key, text in theirs if text]
    return [
        f"{one} is a near-duplicate of {other}: similarity {ratio:.2f}"
        for one, other, ratio in similar_pairs(ours, theirs, threshold)
    ]


def check_solutions(pack: Pack, timeout_seconds: float = TIMEOUT_SECONDS) -> list[str]:
    """Each reference passes; wrong solutions, constants and parameters handed back fail; no wrong one is missing."""
    known = {problem.id for _, problem in pack.located()}
    violations = [
        f"a wrong solution is for {w.problem_id}, which is no problem" for w in pack.wrong if w.problem_id not in known
    ]
    for split, problems in pack.splits.items():
        cases, labels = [], []
        for problem in problems:
            wrong = [solution.code for solution in pack.wrong if solution.problem_id == problem.id]
            if not wrong:
                violations.append(f"{problem.id}: has no wrong solution")
            for kind, code in [
                ("reference", problem.reference),
                *(("wrong solution", code) for code in wrong),
                *(("trivial answer", code) for code in _trivial_answers(problem)),
            ]:
                labels.append((problem.id, kind, code))
                cases.append((problem.setup, code, *problem.tests))
        errors = run_cases(cases, timeout_seconds)
        if len(errors) < len(cases):
            violations.append(f"{split}: no end within {timeout_seconds} s at {' '.join(labels[len(errors)][:2])}")
        for (problem_id, kind, code), error in zip(labels, errors, strict=False):
            if kind == "reference" and error:
                violations.append(f"{problem_id}: the reference fails: {error}")
            if kind != "reference" and not error:
                violations.append(f"{problem_id}: a {kind} passes all tests: {code}")
    return violations


def run_cases(cases: Sequence[Sequence[str]], timeout_seconds: float = TIMEOUT_SECONDS) -> list[str]:
    """Execute each case, pieces of code that share a namespace, and return its error, '' for none.

    A case that does not end ends the list: it and all after it are missing.
    """
    command = [sys.executable, "-I", "-c", _RUN_CASES]
    try:
        output = subprocess.run(
            command, input=json.dumps(cases), capture_output=True, text=True, timeout=timeout_seconds, check=True
        ).stdout
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout.decode() if isinstance(expired.stdout, bytes) else expired.stdout or ""
    return [json.loads(line) for line in output.splitlines()]


def _trivial_answers(problem: Problem) -> Iterator[str]:
    parameters = problem.signature.partition("(")[2].rpartition(")")[0].split(", ")
    expected = {ast.unparse(value) for test in problem.tests if (value := _expected_value(test)) is not None}
    for answer in sorted({*parameters, *expected, "None"}):
        yield f"{problem.signature}\n    return {answer}\n"


def _expected_value(test: str) -> ast.expr | None:
    """The literal of `assert f(x) == LITERAL`, `... is LITERAL` or `abs(f(x) - LITERAL) < e`; None for another form."""
    try:
        body = ast.parse(test).body
    except SyntaxError:
        return None
    if len(body) != 1 or not isinstance(body[0], ast.Assert) or not isinstance(body[0].test, ast.Compare):
        return None
    left, value = body[0].test.left, body[0].test.comparators[0]
    if (
        isinstance(left, ast.Call)
        and left.args
        and isinstance(left.args[0], ast.BinOp)
        and ast.unparse(left.func) == "abs"
    ):
        value = left.args[0].right
    try:
        ast.literal_eval(value)
    except ValueError:
        return None
    return value
