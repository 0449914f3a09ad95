"""Records in files: what is written is read, and what is wrong is named with its line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perseid.data.errors import DataError
from perseid.data.jsonl import read_jsonl, write_json, write_jsonl
from perseid.data.records import Dropped, Plan, Problem

GOOD = '{"id": "a", "statement": "Do it."}'

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@settings(max_examples=50)  # every example is three fsyncs
@given(st.lists(st.builds(Dropped, id=text, problem_id=text, reason=text, detail=text), unique_by=lambda r: r.id))
def test_what_is_written_is_read(records: list[Dropped]) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "new" / "records.jsonl"
        assert write_jsonl(path, records) == len(records)
        assert read_jsonl(path, Dropped, may_be_empty=True) == records
        assert path.read_bytes().count(b"\n") == len(records)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    write_jsonl(path, [Problem(id="old", statement="x")])

    def interrupted() -> Iterator[Problem]:
        yield Problem(id="new", statement="x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, interrupted())
    assert [problem.id for problem in read_jsonl(path, Problem)] == ["old"]
    assert [file.name for file in tmp_path.iterdir()] == ["p.jsonl"]


def test_a_document_is_written_whole_and_not_with_nan(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    write_json(path, {"a": [1, "ä"]})
    assert path.read_text(encoding="utf-8") == '{\n  "a": [\n    1,\n    "ä"\n  ]\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert "ä" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{GOOD}\n\n{{oops\n".encode(), r"p\.jsonl:3: not JSON: "),
        (f'{GOOD}\n{{"id": "b"}}\n'.encode(), r"p\.jsonl:2: statement of Problem: Field required"),
        (b'{"id": "b", "statement": "x", "test": []}', r"p\.jsonl:1: test of Problem: there is no such field"),
        (b'{"id": 1, "statement": ""}', r"p\.jsonl:1: id of Problem: .*\(and 1 more\)"),
        (b"[1]", r"p\.jsonl:1: the line of Problem: "),
        (f"{GOOD}\n\n{GOOD}\n".encode(), r"p\.jsonl:3: the id 'a' is already on line 1"),
        (b"\n \n", r"p\.jsonl has no records"),
        (GOOD.encode() + b'\n{"id": "\xff"}', r"p\.jsonl:2: not UTF-8 \(byte 9\)"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_jsonl(path, Problem)


def test_a_missing_file_and_a_directory_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl cannot be read: No such file"):
        read_jsonl(tmp_path / "none.jsonl", Problem)
    with pytest.raises(DataError, match="Is a directory"):
        read_jsonl(tmp_path, Problem)


def test_records_without_an_id_may_repeat_and_line_separators_inside_strings_are_kept(tmp_path: Path) -> None:
    plans = [Plan(problem_id="a", index=0, steps=("one\u2028two\r",), value=1.0)] * 2
    write_jsonl(tmp_path / "plans.jsonl", plans)
    assert read_jsonl(tmp_path / "plans.jsonl", Plan) == plans
