"""`perseid explain`: fields of the run file, in a terminal."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner, Result

from perseid.api.reference import walk
from perseid.cli import exits
from perseid.cli.app import app


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["explain", *arguments])


def test_a_field_is_shown_with_its_children() -> None:
    result = explain("spec.synthesis")
    assert result.exit_code == exits.OK, result.output
    assert "FIELD:    spec.synthesis  <mapping of fields>" in result.output
    assert "The data synthesis: search for plans." in result.output
    assert "plansPerProblem  <whole number>  default 1" in result.output
    assert "search  <mapping of fields>" in result.output


def test_a_value_is_shown_with_what_is_allowed_and_whether_it_may_change() -> None:
    text = explain("spec.seed").output
    assert "DEFAULT:  0" in text
    assert "ALLOWED:  at least 0 and below 2147483648" in text
    assert "CHANGE:   no: another value makes another run" in text
    assert "CHANGE:   while the run exists, too" in explain("spec.suspend").output
    assert "none: the field is required" in explain("metadata.name").output


def test_recursive_lists_every_field_below() -> None:
    lines = [line.split()[0] for line in explain("--recursive").output.splitlines() if line.startswith("  ")]
    assert len(lines) >= len(list(walk())) - 1


def test_a_wrong_field_gets_the_nearest_right_one() -> None:
    result = explain("spec.finetune.learningrat")
    assert result.exit_code == exits.MISTAKE
    assert "did you mean spec.finetune.learningRate?" in result.stderr


def test_it_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perseid.cli.terminal.LOG_WIDTH", 80)
    assert max(map(len, explain("spec", "--recursive").output.splitlines())) <= 80
