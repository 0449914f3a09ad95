"""Questions from every source that a spec can name."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from perseid.api.meteor import QuestionColumns, QuestionSet
from perseid.data.errors import DataError
from perseid.data.prompts import ANSWER_INSTRUCTION, plain_question
from perseid.data.question_splits import split_of
from perseid.data.questions import load_questions, pack_answers_path, read_questions
from perseid.data.records import NumberCheck, Question

HERE = Path()
POST = (
    "<p>Why does <code>a &lt; b</code> fail?</p>\r\n<pre><code>if a &lt; b:\n    print(a)\n</code></pre>\r\n"
    "<p>It says <em>no</em>.</p>"
)
POST_TEXT = "Why does `a < b` fail?\n\n```\nif a < b:\n    print(a)\n```\n\nIt says no."


def write_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def write_table(path: Path, rows: list[list[str]], delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


def numbered(count: int) -> list[dict[str, str]]:
    return [{"title": f"How do I sort list number {number}?", "body": POST} for number in range(count)]


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_pack_is_read_with_checks_and_field(split: str) -> None:
    questions = load_questions(QuestionSet(split=split), HERE, field="something else")
    assert questions
    assert all(each.check is not None and each.field == "units of measurement" for each in questions)


def test_the_packs_mentor_answers_every_question_of_train() -> None:
    lines = [json.loads(line) for line in pack_answers_path().read_text(encoding="utf-8").splitlines()]
    assert {line["kind"] for line in lines} == {"mentor-answer"}
    assert {line["subject"] for line in lines} == {each.id for each in load_questions(QuestionSet(split="train"), HERE)}


def test_our_own_records_keep_their_ids_checks_and_families(tmp_path: Path) -> None:
    records = [
        Question(id="a", title="How many legs has a spider?", check=NumberCheck(value=8), family="legs"),
        Question(id="b", title="How many legs has an ant?", field="insects"),
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(each.model_dump_json() for each in records), encoding="utf-8")
    read = load_questions(QuestionSet(source="jsonl", path="q.jsonl"), tmp_path, field="animals")
    assert read == [records[0].model_copy(update={"field": "animals"}), records[1]]


def test_a_typo_in_a_record_of_ours_is_an_error_with_its_line(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "q.jsonl", [{"id": "a", "title": "x", "family": "f"}, {"id": "b", "title": "y", "famly": ""}]
    )
    with pytest.raises(DataError, match=r"q\.jsonl:2: famly of Question"):
        load_questions(QuestionSet(source="jsonl", path="q.jsonl"), tmp_path)


def dump(kind: str, path: Path) -> QuestionSet:
    """The same two posts as a dump of a site, in each kind of source."""
    rows = [
        {"Id": 7, "Title": "Comparing\n two  numbers", "Body": POST, "Tags": "python", "Answer": "Use <code>.</code>"},
        {"Id": 9, "Title": "List<String> in Java", "Body": "plain: a < b", "Tags": "java", "Answer": None},
    ]
    if kind == "jsonl":
        write_lines(path / "dump.jsonl", rows)
        name = "dump.jsonl"
    elif kind in ("csv", "tsv"):
        table = [list(rows[0]), *(["" if cell is None else str(cell) for cell in row.values()] for row in rows)]
        name = f"dump.{kind}"
        write_table(path / name, table, "\t" if kind == "tsv" else ",")
    elif kind == "parquet":
        datasets.Dataset.from_list(rows).to_parquet(path / "dump.parquet")
        name = "dump.parquet"
    else:
        (path / "dump").mkdir()
        datasets.Dataset.from_list(rows).to_parquet(path / "dump" / "train.parquet")
        name = "dump"
    columns = QuestionColumns(id="Id", title="Title", body="Body", field="Tags", answer="Answer")
    source: Any = "csv" if kind == "tsv" else kind
    return QuestionSet(source=source, path=name, columns=columns)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet", "hub"])
def test_a_dump_gives_the_same_questions_from_every_source(kind: str, tmp_path: Path) -> None:
    first, second = load_questions(dump(kind, tmp_path), tmp_path)
    assert first == Question(id="7", title="Comparing two numbers", body=POST_TEXT, field="python", answer="Use `.`")
    assert second == Question(id="9", title="List<String> in Java", body="plain: a < b", field="java")


def test_ids_are_made_of_the_content_where_no_column_holds_them(tmp_path: Path) -> None:
    rows = numbered(3)
    write_lines(tmp_path / "q.jsonl", rows)
    (tmp_path / "turned").mkdir()
    write_lines(tmp_path / "turned" / "q.jsonl", [row | {"score": 3} for row in reversed(rows)])
    one = load_questions(QuestionSet(source="jsonl", path="q.jsonl"), tmp_path)
    other = load_questions(QuestionSet(source="jsonl", path="q.jsonl"), tmp_path / "turned")
    assert [each.id for each in one] == [each.id for each in reversed(other)]
    assert len({each.id for each in one}) == 3
    assert all(each.id.startswith("q-") for each in one)


def test_poisoned_rows_are_dropped_with_reasons_and_the_others_stay(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"k": "1", "title": "Good?"},
        {"k": "2", "title": "  "},
        {"k": "3", "title": None},
        {"k": "4", "title": ["a", "list"]},
        {"k": "", "title": "No id?"},
        {"k": "6" * 200, "title": "Long id?"},
        {"k": "7", "title": "Also good \ud800?"},
        {"k": "8", "title": 404},
        {"k": "9", "title": float("nan")},
    ]
    write_lines(tmp_path / "q.jsonl", rows)
    read = read_questions(QuestionSet(source="jsonl", path="q.jsonl", columns=QuestionColumns(id="k")), tmp_path)
    assert [each.id for each in read.questions] == ["1", "7", "8"]
    assert [(each.id.rpartition(":")[2], each.reason) for each in read.dropped] == [
        ("2", "no-title"), ("3", "no-title"), ("4", "not-text"), ("5", "no-id"), ("6", "broken-row"),
        ("9", "no-title"),
    ]  # fmt: skip
    assert len(read.questions) + len(read.dropped) == read.rows == len(rows)


def test_a_csv_row_with_too_many_or_too_few_cells_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text('title,body\nA?,one\nB?,two,three\nC?\n\n"D, ""d""?","x\ny"\n', encoding="utf-8")
    read = read_questions(QuestionSet(source="csv", path="q.csv"), tmp_path)
    assert [each.title for each in read.questions] == ["A?", 'D, "d"?']
    assert [each.id.rpartition(":")[2] for each in read.dropped] == ["3", "4"]


def test_a_question_that_stands_in_a_file_twice_is_read_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "q.jsonl", [*numbered(2), numbered(1)[0]])
    read = read_questions(QuestionSet(source="jsonl", path="q.jsonl"), tmp_path)
    assert len(read.questions) == 2
    assert [each.reason for each in read.dropped] == ["repeated"]
    assert "q.jsonl:1" in read.dropped[0].detail


def test_csv_from_windows_and_bodies_larger_than_the_standard_limit_are_read(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    body = "x" * 200_000
    (tmp_path / "q.csv").write_bytes(b"\xef\xbb\xbftitle,body\r\nA?," + body.encode() + b"\r\n")
    (question,) = load_questions(QuestionSet(source="csv", path="q.csv"), tmp_path)
    assert (question.title, question.body) == ("A?", body)
    assert csv.field_size_limit() == before


def test_limit_takes_the_first_and_a_split_comes_before_it(tmp_path: Path) -> None:
    write_lines(tmp_path / "q.jsonl", numbered(200))
    everything = load_questions(QuestionSet(source="jsonl", path="q.jsonl"), tmp_path)
    train = load_questions(QuestionSet(source="jsonl", path="q.jsonl", split="train"), tmp_path)
    some = load_questions(QuestionSet(source="jsonl", path="q.jsonl", split="train", limit=5), tmp_path)
    assert load_questions(QuestionSet(source="jsonl", path="q.jsonl", limit=3), tmp_path) == everything[:3]
    assert some == train[:5]
    assert 120 < len(train) < 190


def hub_dataset(path: Path, *splits: str) -> None:
    for number, split in enumerate(splits):
        rows = [{"title": f"Question {number} {index}?"} for index in range(40)]
        datasets.Dataset.from_list(rows).to_parquet(path / f"{split}.parquet")


def test_a_dataset_with_splits_is_read_by_them_and_dev_is_its_validation(tmp_path: Path) -> None:
    hub_dataset(tmp_path / "data", "train", "validation", "test")
    dev = load_questions(QuestionSet(source="hub", path="data", split="dev"), tmp_path)
    assert [each.title for each in dev] == [f"Question 1 {index}?" for index in range(40)]


def test_a_dataset_with_one_split_is_split_by_question_whatever_it_is_called(tmp_path: Path) -> None:
    hub_dataset(tmp_path / "data", "train")
    parts = [
        {each.id for each in load_questions(QuestionSet(source="hub", path="data", split=split), tmp_path)}
        for split in ("train", "dev", "test")
    ]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 40


def test_a_dataset_whose_one_split_has_a_name_of_its_own_is_read_whole_by_that_name(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    hub_dataset(tmp_path / "data", "test")
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: posts\n    path: test.parquet\n---\n"
    (tmp_path / "data" / "README.md").write_text(card, encoding="utf-8")
    assert len(load_questions(QuestionSet(source="hub", path="data", split="posts"), tmp_path)) == 40
    train = load_questions(QuestionSet(source="hub", path="data", split="train"), tmp_path)
    assert 0 < len(train) < 40


def test_rows_with_a_family_but_no_ids_are_no_records_of_ours(tmp_path: Path) -> None:
    write_lines(tmp_path / "q.jsonl", [{"title": "What does a cat eat?", "family": "Felidae"}])
    (question,) = load_questions(QuestionSet(source="jsonl", path="q.jsonl"), tmp_path)
    assert (question.title, question.family) == ("What does a cat eat?", "")


def test_a_split_that_a_dataset_lacks_is_an_error_that_names_its_splits(tmp_path: Path) -> None:
    hub_dataset(tmp_path / "data", "train", "test")
    with pytest.raises(DataError, match=r"no split 'dev'; its splits are train, test"):
        load_questions(QuestionSet(source="hub", path="data", split="dev"), tmp_path)
    with pytest.raises(DataError, match="no split is said"):
        load_questions(QuestionSet(source="hub", path="data"), tmp_path)


def hub_configurations(path: Path) -> None:
    """A dataset of two configurations, one of which has a split that the other lacks."""
    for config, splits in (("easy", ["train", "test"]), ("hard", ["train"])):
        for split in splits:
            rows = [{"title": f"{config} {split} {index}?"} for index in range(40)]
            datasets.Dataset.from_list(rows).to_parquet(path / config / f"{split}.parquet")
    card = "".join(
        f"- config_name: {config}\n  data_files:\n"
        + "".join(f"  - {{split: {split}, path: {config}/{split}.parquet}}\n" for split in splits)
        for config, splits in (("easy", ["train", "test"]), ("hard", ["train"]))
    )
    (path / "README.md").write_text(f"---\nconfigs:\n{card}---\n", encoding="utf-8")


def test_a_configuration_of_a_dataset_is_read_by_its_name_with_its_own_splits(tmp_path: Path) -> None:
    hub_configurations(tmp_path / "data")
    easy = load_questions(QuestionSet(source="hub", path="data", config="easy", split="test"), tmp_path)
    assert [each.title for each in easy] == [f"easy test {index}?" for index in range(40)]
    hard = read_questions(QuestionSet(source="hub", path="data", config="hard", split="train"), tmp_path)
    assert hard.rows == 40
    assert 0 < len(hard.questions) < 40, "a dataset with one split is split by question"
    assert all(each.title.startswith("hard train") for each in hard.questions)


@pytest.mark.parametrize(("config", "said"), [(None, "no configuration is said"), ("hrad", "no configuration 'hrad'")])
def test_a_dataset_of_several_configurations_needs_the_name_of_one(
    config: str | None, said: str, tmp_path: Path
) -> None:
    hub_configurations(tmp_path / "data")
    with pytest.raises(DataError, match=f"{said}; set config to one of easy, hard"):
        load_questions(QuestionSet(source="hub", path="data", config=config, split="train"), tmp_path)


def test_a_split_that_a_configuration_lacks_is_told_with_the_configuration(tmp_path: Path) -> None:
    hub_configurations(tmp_path / "data")
    with pytest.raises(DataError, match="data, configuration easy: there is no split 'dev'; its splits are train, tes"):
        load_questions(QuestionSet(source="hub", path="data", config="easy", split="dev"), tmp_path)


def test_a_file_uri_is_a_path_and_one_of_object_storage_is_an_error(tmp_path: Path) -> None:
    write_lines(tmp_path / "q.jsonl", numbered(2))
    assert len(load_questions(QuestionSet(source="jsonl", path=f"file://{tmp_path}/q.jsonl"), HERE)) == 2
    with pytest.raises(DataError, match=r"s3://bucket/q\.jsonl: questions are read from files and from the hub"):
        load_questions(QuestionSet(source="jsonl", path="s3://bucket/q.jsonl"), tmp_path)


BROKEN: dict[str, tuple[str, bytes, QuestionColumns, str]] = {
    "not JSON": ("q.jsonl", b'{"title": "a"}\n' * 16 + b'{"title": \n', QuestionColumns(), r"q\.jsonl:17: not JSON"),
    "not UTF-8 in JSON": ("q.jsonl", b'{"title": "a"}\n{"title": "\xff"}', QuestionColumns(), r"q\.jsonl:2: not UTF-8"),
    "not UTF-8 in CSV": ("q.csv", b"\xef\xbb\xbftitle\na\n\xe9t\xe9\n", QuestionColumns(), r"q\.csv:3: not UTF-8"),
    "no rows": ("q.csv", b"title\n", QuestionColumns(), "has no rows"),
    "no lines": ("q.jsonl", b"\n\n", QuestionColumns(), "has no records"),
    "nothing": ("q.csv", b"", QuestionColumns(), "no column names"),
    "columns twice": ("q.csv", b"title,title\na,b\n", QuestionColumns(), "'title' is there twice"),
    "open quotation": ("q.csv", b'title\n"a\nb\n', QuestionColumns(), r"q\.csv:3: not CSV"),
    "missing column": ("q.csv", b"Titel,body\na,b\n", QuestionColumns(), "'title', but 'Titel'; set columns.title"),
    "missing field": ("q.csv", b"title\na\n", QuestionColumns(field="tag"), r"no column 'tag'; set columns\.field"),
    "ids twice": ("q.csv", b"k,title\n1,a\n1,b\n", QuestionColumns(id="k"), r"q\.csv:3: the id '1' is already at .*:2"),
    "records twice": ("q.jsonl", b'{"id":"1","title":"a"}\n{"id":"1","title":"b"}', QuestionColumns(), "on line 1"),
    "all empty": ("q.csv", b"title,b\n,x\n,y\n", QuestionColumns(), r"no question in it; dropped rows: 2 no-title"),
    "no Parquet": ("q.parquet", b"PAR0", QuestionColumns(), "not a Parquet file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_say_what_is_wrong_and_where(name: str, tmp_path: Path) -> None:
    file, content, columns, message = BROKEN[name]
    (tmp_path / file).write_bytes(content)
    source: Any = file.partition(".")[2]
    with pytest.raises(DataError, match=message):
        load_questions(QuestionSet(source=source, path=file, columns=columns), tmp_path)


@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet"])
def test_a_missing_file_is_named(source: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere cannot be read"):
        load_questions(QuestionSet(source=source, path="nowhere"), tmp_path)


def test_a_split_that_nothing_falls_into_and_one_that_does_not_exist_are_errors(tmp_path: Path) -> None:
    write_lines(tmp_path / "q.jsonl", numbered(1))
    (question,) = load_questions(QuestionSet(source="jsonl", path="q.jsonl"), tmp_path)
    for split in {"train", "dev", "test"} - {split_of(question)}:
        with pytest.raises(DataError, match=f"none of 1 questions falls into the split {split}"):
            load_questions(QuestionSet(source="jsonl", path="q.jsonl", split=split), tmp_path)
    with pytest.raises(DataError, match="is split into train, dev, test"):
        load_questions(QuestionSet(source="jsonl", path="q.jsonl", split="holdout"), tmp_path)


def test_a_question_is_put_with_its_body_and_the_line_that_the_answer_ends_in() -> None:
    question = Question(id="a", title="How far?", body="To the moon.", answer="384400")
    assert plain_question(question) == f"How far?\n\nTo the moon.\n{ANSWER_INSTRUCTION}"
    assert "384400" not in plain_question(question)
