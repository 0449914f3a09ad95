"""Questions of a domain from wherever a spec says: Perseid's pack, a file, or a dataset of the hub.

Built for dumps of question-and-answer sites too: bodies in HTML become text with their code kept, and a source without
splits of its own is split so that no question crosses (`perseid.data.question_splits`).
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perseid.api.layout import is_remote
from perseid.api.meteor import QuestionColumns, QuestionSet
from perseid.data.errors import DataError
from perseid.data.jsonl import read_jsonl
from perseid.data.question_files import Row, Table, read_csv_table, read_hub_table, read_json_table, read_parquet_table
from perseid.data.question_splits import checked_split, select_split
from perseid.data.question_text import one_line, plain_text
from perseid.data.records import Dropped, Question

PACK = Path(__file__).parent / "question_pack"

NO_TITLE = "no-title"
NOT_TEXT = "not-text"
NO_ID = "no-id"
BROKEN_ROW = "broken-row"
REPEATED = "repeated"

_LONGEST_ID = 128


@dataclass(frozen=True, slots=True)
class QuestionsRead:
    """What a source gave: questions + dropped = rows, before split and limit."""

    questions: tuple[Question, ...]
    """Of the split, up to the limit."""
    dropped: tuple[Dropped, ...]
    """Rows that are no questions, of all splits; `id` is the row's place."""
    rows: int
    """Rows of the source."""


def load_questions(question_set: QuestionSet, base_dir: Path, field: str = "") -> list[Question]:
    """Load a set in its own order, cut to its split and then to its limit. Relative paths start at `base_dir`.

    `field` is the field of knowledge of questions that say none. Raises DataError: a missing or broken source, a
    missing column, ids that repeat, a selection that leaves nothing.
    """
    return list(read_questions(question_set, base_dir, field).questions)


def read_questions(question_set: QuestionSet, base_dir: Path, field: str = "") -> QuestionsRead:
    """As `load_questions`, with the rows that are no questions and why."""
    questions, dropped, rows, own_split, place = _everything(question_set, base_dir)
    if field:
        questions = [each if each.field else each.model_copy(update={"field": field}) for each in questions]
    if question_set.split is not None and not own_split:
        chosen = select_split(questions, question_set.split, place)
    else:
        chosen = questions
    if not chosen:
        raise DataError(_nothing_left(place, question_set.split, len(questions), dropped))
    return QuestionsRead(tuple(chosen[: question_set.limit]), tuple(dropped), rows)


def pack_answers_path() -> Path:
    """The recorded mentor's file of the pack: an answer to every question of its train split.

    Lines are `{"kind": "mentor-answer", "subject": <question id>, "answer": <text>}`.
    """
    return PACK / "mentor.jsonl"


def _everything(question_set: QuestionSet, base_dir: Path) -> tuple[list[Question], list[Dropped], int, bool, str]:
    """All questions of the source, what was dropped, the number of rows, whether they are a split already, a name."""
    source, split = question_set.source, question_set.split
    if source == "pack":
        questions = read_jsonl(PACK / f"{split}.jsonl", Question)
        return questions, [], len(questions), True, "the pack"
    if question_set.path is None:
        raise DataError(f"source {source} needs the field path")
    path = _file(question_set.path, base_dir)
    if source != "hub" and split is not None:
        checked_split(split, str(path))  # before a big file is read
    if source == "jsonl":
        table = read_json_table(path)
        if question_set.columns == QuestionColumns() and _are_records(table):
            questions = read_jsonl(path, Question)
            return questions, [], len(questions), False, str(path)
    elif source == "csv":
        table = read_csv_table(path)
    elif source == "parquet":
        table = read_parquet_table(path)
    else:
        table = read_hub_table(question_set.path, path, split, question_set.config)
    questions, dropped = _questions(table, question_set.columns, Path(question_set.path).stem)
    return questions, dropped, len(table.rows), table.own_split, table.place


def _file(path: str, base_dir: Path) -> Path:
    """The file of a path or a file:// URI. Raises DataError for object storage."""
    if is_remote(path):
        raise DataError(
            f"{path}: questions are read from files and from the hub, not from object storage; copy them to a file that"
            " every stage can read"
        )
    return base_dir / Path(path.removeprefix("file://")).expanduser()


def _are_records(table: Table) -> bool:
    """Lines are our own records, and a typo in one is an error, where they have what only records have, or all fit."""
    there, needed = set(table.columns), {"id", "title"}
    if needed <= there and {"check", "family"} & there:
        return True
    return there <= set(Question.model_fields) and all(needed <= row.values.keys() for row in table.rows)


def _questions(table: Table, columns: QuestionColumns, source: str) -> tuple[list[Question], list[Dropped]]:
    if not table.rows:
        raise DataError(f"{table.place} has no rows; it needs at least one question")
    _check_columns(table, columns)
    places: dict[str, str] = {}
    questions: list[Question] = []
    dropped: list[Dropped] = []
    for row in table.rows:
        made = _question(row, table, columns, source)
        if isinstance(made, Question):
            first = places.setdefault(made.id, row.place)
            if first == row.place:
                questions.append(made)
                continue
            if columns.id is not None:
                raise DataError(f"{row.place}: the id {made.id!r} is already at {first}; ids must be unique")
            made = _drop(row, REPEATED, f"the same question is at {first}")
        dropped.append(made)
    return questions, dropped


def _question(row: Row, table: Table, columns: QuestionColumns, source: str) -> Question | Dropped:
    if row.fault:
        return _drop(row, BROKEN_ROW, row.fault)
    wanted = {
        "id": columns.id,
        "title": columns.title,
        "body": columns.body or ("body" if "body" in table.columns else None),
        "field": columns.field,
        "answer": columns.answer,
    }
    cells: dict[str, str] = {}
    for name, column in wanted.items():
        cell = _cell(row.values.get(column) if column is not None else None)
        if cell is None:
            return _drop(row, NOT_TEXT, f"the column {column!r} holds {type(row.values[column or '']).__name__}")
        cells[name] = cell
    title, body = one_line(cells["title"]), plain_text(cells["body"])
    if not title:
        return _drop(row, NO_TITLE, f"the column {columns.title!r} is empty")
    identity = cells["id"].strip() if columns.id is not None else _content_id(source, title, body)
    if not identity:
        return _drop(row, NO_ID, f"the column {columns.id!r} is empty")
    try:
        return Question(
            id=identity, title=title, body=body, field=one_line(cells["field"]), answer=plain_text(cells["answer"])
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return _drop(row, BROKEN_ROW, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")


def _cell(value: Any) -> str | None:
    """A cell as text; None where it is neither text nor a number."""
    if value is None or (isinstance(value, float) and math.isnan(value)):  # Parquet's empty numbers
        return ""
    if isinstance(value, str):
        # A lone surrogate, from a broken escape in JSON, can be written to no file.
        return value.encode("utf-8", "replace").decode("utf-8")
    return str(value) if isinstance(value, int | float) else None


def _content_id(source: str, title: str, body: str) -> str:
    digest = hashlib.sha256(f"{title}\n\n{body}".encode()).hexdigest()[:16]
    return f"{source[: _LONGEST_ID - 1 - len(digest)]}-{digest}"


def _check_columns(table: Table, columns: QuestionColumns) -> None:
    for name, column in columns.model_dump().items():
        if column is None or column in table.columns:
            continue
        near = difflib.get_close_matches(column.lower(), [each.lower() for each in table.columns], cutoff=0.5)
        close = [each for each in table.columns if each.lower() in near]
        raise DataError(
            f"{table.place}: there is no column {column!r}{f', but {_quoted(close)}' if close else ''}; "
            f"set columns.{name} to one of {_quoted(table.columns)}"
        )


def _nothing_left(place: str, split: str | None, found: int, dropped: list[Dropped]) -> str:
    reasons = Counter(each.reason for each in dropped)
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    lost = f"; dropped rows: {told}, the first at {dropped[0].id} ({dropped[0].detail})" if dropped else ""
    if found and split is not None:
        return (
            f"{place}: none of {found} questions falls into the split {split}; add questions, or give the splits as "
            f"files of their own{lost}"
        )
    return f"{place}: there is no question in it{lost}"


def _drop(row: Row, reason: str, detail: str) -> Dropped:
    return Dropped(id=row.place, problem_id="", reason=reason, detail=detail)


def _quoted(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names)
