"""What a user gets who writes something wrong: what, where and what to do, and nothing made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from refusals import perseid
from wrong_inputs import DATA, DIRECTORY, GOOD, MODELS, OF_FILES, RUN_FILES, Wrong

from perseid.cli import exits
from tiny_llama import make_model, write_model

TABLES = {"run file": RUN_FILES, "data": DATA, "model": MODELS}


@pytest.fixture(scope="session")
def whole_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes it on the first call only: most of the table needs none, and importing transformers takes seconds."""
    made: list[Path] = []

    def model() -> Path:
        if not made:
            made.append(write_model(tmp_path_factory.mktemp("whole") / "model", make_model()))
        return made[0]

    return model


def write(wrong: Wrong, directory: Path, whole_model: Callable[[], Path]) -> Path:
    if wrong.tiny_model:
        shutil.copytree(whole_model(), directory / "model")
    for name, content in {**GOOD, **wrong.files}.items():
        path = directory / name
        if content is None:
            path.unlink(missing_ok=True)
        elif content is DIRECTORY:
            path.mkdir()
        elif isinstance(content, str | bytes):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    file = directory / "run.yaml"
    file.write_bytes(wrong.run.encode() if isinstance(wrong.run, str) else wrong.run)
    return file


@pytest.mark.parametrize(
    ("table", "name"), [pytest.param(table, name, id=f"{table}: {name}") for table in TABLES for name in TABLES[table]]
)
def test_what_is_wrong_is_told_with_its_place_and_what_to_do_before_anything_is_made(
    table: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_model: Callable[[], Path]
) -> None:
    """The first model takes seconds: transformers is imported."""
    wrong = TABLES[table][name]
    monkeypatch.chdir(tmp_path)
    file = write(wrong, tmp_path, whole_model)
    before = sorted(tmp_path.rglob("*"))
    for command in ("validate", "run"):
        result = perseid(command, file)
        assert result.exit_code == exits.MISTAKE, result.output
        assert isinstance(result.exception, SystemExit), "something escaped"
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        if table == "run file":  # which may have many mistakes: a head, and for each a paragraph
            head, paragraph = result.stderr.strip().split("\n\n")
            assert head == f"{file} has 1 mistake:"
            assert len(paragraph.splitlines()) <= 3, "the place, what is wrong, what to do"
        else:
            assert "\n" not in result.stderr.strip(), result.stderr
        for said in wrong.says:
            assert said.replace("{dir}", str(tmp_path)) in result.stderr, result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_what_the_table_damages_is_valid_before(tmp_path: Path, whole_model: Callable[[], Path]) -> None:
    """Else everything would be refused for the same reason."""
    whole = Wrong((), OF_FILES + "  model: {ref: ./model}\n", tiny_model=True)
    result = perseid("validate", write(whole, tmp_path, whole_model))
    assert result.exit_code == exits.OK, result.output


def test_the_table_has_more_than_forty_kinds_of_wrong_input() -> None:
    assert sum(map(len, TABLES.values())) > 40
