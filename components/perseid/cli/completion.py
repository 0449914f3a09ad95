"""What the shell offers when a command is being typed. Fast and silent: no file is read further than it must be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import typer

from perseid.api.files import TREES
from perseid.api.layout import GENERATIONS
from perseid.api.stages import SHARDED_STAGE
from perseid.runner.directory import RUN_FILE

RUNS = Path("runs")
"""Where `perseid run` puts runs, unless it is told otherwise."""
_PROBLEM = re.compile(rb'^\{"problem_id": ?("(?:[^"\\]|\\.)*")')
_HEAD = 2048
"""Bytes of a record in which the id of its problem ends: ids have at most 128 characters."""


def complete_run(incomplete: str) -> list[str]:
    """Directories of runs: those in `runs/`, and below what was typed."""
    typed = Path(incomplete or ".")
    parents = {RUNS, typed, typed if incomplete.endswith("/") else typed.parent}
    found = {str(path) for parent in parents for path in _runs(parent)}
    return sorted(path for path in found if path.startswith(incomplete))


def complete_problem(ctx: typer.Context, incomplete: str) -> list[str]:
    """Problems that the run in the first argument has search trees of."""
    directory = ctx.params.get("directory")
    if not isinstance(directory, Path):
        return []
    generations = sorted((directory / GENERATIONS).glob("*/attempts/*"), reverse=True)
    for attempt in generations:
        files = sorted(attempt.glob(f"{SHARDED_STAGE}*/{TREES}"))
        names = sorted({name for file in files for name in _problems(file)})
        if names:
            return [name for name in names if name.startswith(incomplete)]
    return []


def complete_field(incomplete: str) -> list[str]:
    """Fields of a run file, one level at a time."""
    from perseid.api.reference import UnknownFieldError, field_reference, parse_path

    parent, dot, _ = incomplete.rpartition(".")
    try:
        children = field_reference(parse_path(parent)).children
    except UnknownFieldError:
        return []
    return [name for name in (f"{parent}{dot}{child}" for child in children) if name.startswith(incomplete)]


def _runs(parent: Path) -> Iterator[Path]:
    try:
        children = [parent, *parent.iterdir()]
    except OSError:
        return
    yield from (child for child in children if child != Path() and (child / RUN_FILE).is_file())


def _problems(file: Path) -> Iterator[str]:
    with file.open("rb") as lines:
        for line in lines:
            found = _PROBLEM.match(line[:_HEAD])
            if found is not None:
                yield json.loads(found[1])
