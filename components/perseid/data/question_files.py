"""Rows of questions from files and datasets, as they are: a place, and a value by column name.

Nothing is made of the rows here; `perseid.data.questions` does that.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perseid.data.errors import DataError
from perseid.data.jsonl import read_json_lines
from perseid.data.question_splits import SPLITS

_LARGEST_CELL = 2**31 - 1
"""Characters. The standard library's own limit, 131 072, is less than some questions with their logs."""
_NEEDS_MODELS = "needs the package {}: pip install 'perseid[models]'"
_SAME_SPLIT = {"dev": ("validation", "valid", "val"), "validation": ("dev",)}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source."""

    place: str
    """Where it stands, for messages: `questions.csv:12`, or `name[train], row 3` with rows from 1."""
    values: dict[str, Any]
    fault: str = ""
    """Why nothing can be made of it. Empty: nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Table:
    """All rows of a source."""

    place: str
    columns: tuple[str, ...]
    """Every column that some row has."""
    rows: tuple[Row, ...]
    own_split: bool = False
    """The rows are one split of a source that has splits of its own."""


def read_json_table(path: Path) -> Table:
    """JSON objects, one on each line. Raises DataError with the line."""
    rows = tuple(Row(f"{path}:{number}", values) for number, values in read_json_lines(path))
    return Table(str(path), tuple(dict.fromkeys(name for row in rows for name in row.values)), rows)


def read_csv_table(path: Path) -> Table:
    """Values with commas (tabs, in a file that ends in .tsv) and a first line of column names, in UTF-8.

    A row of another number of cells than the first line is kept with its fault. Raises DataError: not readable, not
    UTF-8, no column names, names twice, a quotation that never ends.
    """
    text = _decoded(path)
    with _large_cells():
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True
        )
        try:
            names = [name.strip() for name in next(reader, [])]
            _check_names(path, names)
            rows, line = [], reader.line_num + 1
            for cells in reader:
                if cells:  # not a blank line
                    fault = "" if len(cells) == len(names) else f"{len(cells)} cells, the first line has {len(names)}"
                    rows.append(Row(f"{path}:{line}", dict(zip(names, cells, strict=False)), fault))
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}:{reader.line_num}: not CSV: {error}; put cells with commas, quotation marks or line breaks "
                "in double quotation marks, and write a quotation mark in them twice"
            ) from error
    return Table(str(path), tuple(names), tuple(rows))


def read_parquet_table(path: Path) -> Table:
    """A Parquet file. Raises DataError where it is none."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError("source parquet " + _NEEDS_MODELS.format("pyarrow")) from error
    if not path.is_file():
        raise DataError(f"{path} cannot be read: it is no file; check the path")
    try:
        with parquet.ParquetFile(path) as file:
            names = tuple(file.schema_arrow.names)
            rows = tuple(_numbered(f"{path}", (row for batch in file.iter_batches() for row in batch.to_pylist())))
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read: {error}") from error
    return Table(str(path), names, rows)


def read_hub_table(name: str, path: Path, split: str | None, config: str | None = None) -> Table:
    """A dataset of the hub, or one that lies in the directory `path`.

    Of a dataset with several configurations, `config` is the one that is read; it must be said. Of one with several
    splits, `split` is the one that is read, and `dev` and `validation` are the same. A dataset with a single split has
    none of its own, unless it is asked for by a name that is not train, dev or test: all of it is read. Raises
    DataError.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError("source hub " + _NEEDS_MODELS.format("datasets")) from error
    place = source = str(path) if path.is_dir() else name
    try:
        configs = [str(each) for each in datasets.get_dataset_config_names(source)]
        part = _chosen_config(place, configs, config)
        place = place if len(configs) == 1 else f"{place}, configuration {part}"
        there = [str(each) for each in datasets.get_dataset_split_names(source, part)]
        chosen = _chosen_split(place, there, split)
        data = datasets.load_dataset(source, name=part, split=chosen)
        names = tuple(str(each) for each in data.column_names)
        rows = tuple(_numbered(f"{place}[{chosen}]", data))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"the dataset {place} cannot be loaded: {error}; check its name, the network and, for a private one, "
            "HF_TOKEN"
        ) from error
    return Table(
        f"{place}[{chosen}]", names, rows, own_split=len(there) > 1 or (split == chosen and split not in SPLITS)
    )


def _chosen_config(place: str, there: list[str], config: str | None) -> str:
    if config is None and len(there) == 1:
        return there[0]
    if config in there:
        return config
    said = f"there is no configuration {config!r}" if config else "no configuration is said"
    raise DataError(f"the dataset {place}: {said}; set config to one of {', '.join(there)}")


def _chosen_split(place: str, there: list[str], split: str | None) -> str:
    if len(there) == 1:
        return there[0]
    for each in (split, *_SAME_SPLIT.get(split or "", ())):
        if each in there:
            return each
    said = f"there is no split {split!r}" if split else "no split is said"
    raise DataError(f"the dataset {place}: {said}; its splits are {', '.join(there)}")


def _numbered(place: str, rows: Iterable[dict[str, Any]]) -> Iterator[Row]:
    for number, values in enumerate(rows, start=1):
        yield Row(f"{place}, row {number}", values)


def _decoded(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The decoder counts from behind a byte order mark.
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from error


def _check_names(path: Path, names: list[str]) -> None:
    if not any(names):
        raise DataError(f"{path} has no column names; its first line must be the names of the columns")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}:1: the column {twice[0]!r} is there twice; names must be unique")


@contextlib.contextmanager
def _large_cells() -> Iterator[None]:
    # The limit belongs to the process, so it goes back to what it was.
    before = csv.field_size_limit(_LARGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)
