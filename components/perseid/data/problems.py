"""Problems from wherever a spec says: Perseid's pack, HumanEval, a file, or a dataset of the hub."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from perseid.api.problems import ProblemSet
from perseid.data import humaneval, mbpp
from perseid.data.errors import DataError
from perseid.data.jsonl import read_json_lines, read_jsonl
from perseid.data.records import Problem


def load_problems(problem_set: ProblemSet, base_dir: Path) -> list[Problem]:
    """Load a set, in its own order, cut to its levels and then to its limit. Relative paths start at `base_dir`.

    Raises DataError: a missing or broken source, ids that repeat, a selection that leaves nothing.
    """
    problems = _unselected(problem_set, base_dir)
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise DataError(f"{problem_set.title}: the id {problem.id!r} occurs twice; ids must be unique")
        seen.add(problem.id)
    if problem_set.levels is not None:
        problems = [problem for problem in problems if problem.level in problem_set.levels]
    if not problems:
        levels = f" with levels {', '.join(problem_set.levels)}" if problem_set.levels else ""
        split = f", split {problem_set.split}" if problem_set.split else ""
        raise DataError(
            f"{problem_set.title}: no problem is left of source {problem_set.source}{split}{levels}; "
            "check the split, and the levels, which only problems of the pack are sure to have"
        )
    return problems[: problem_set.limit]


def _unselected(problem_set: ProblemSet, base_dir: Path) -> list[Problem]:
    source, split = problem_set.source, problem_set.split
    if source == "pack":
        with resources.as_file(resources.files("perseid.data.pack") / f"{split}.jsonl") as path:
            return read_jsonl(path, Problem)
    if source == "humaneval":
        return humaneval.load()
    if problem_set.path is None:
        raise DataError(f"source {source} needs the field path")
    path = base_dir / problem_set.path
    if source == "jsonl":
        return read_jsonl(path, Problem)
    if source == "mbpp":
        rows = [(f"{path}:{number}", row) for number, row in read_json_lines(path)]
        return mbpp.select_split(mbpp.problems_from_rows(rows), split)
    return _from_hub(problem_set.path, path, split)


def _from_hub(name: str, path: Path, split: str | None) -> list[Problem]:
    """A dataset of the hub, or one that lies in a directory, in MBPP's shape; `split` is the dataset's own."""
    try:
        import datasets
    except ImportError as error:
        raise DataError("source hub needs the package datasets: pip install 'perseid[models]'") from error
    place = str(path) if path.is_dir() else name
    try:
        rows = list(datasets.load_dataset(place, split=split))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"the dataset {place}, split {split}, cannot be loaded: {error}; check its name, its split, the network "
            "and, for a private one, HF_TOKEN"
        ) from error
    placed = [(f"{place}[{split}], row {number}", row) for number, row in enumerate(rows)]
    return [problem for _, problem in mbpp.problems_from_rows(placed)]
