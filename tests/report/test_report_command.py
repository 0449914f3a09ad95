"""`perseid report DIRECTORY`, as a user calls it."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fabricated_results import BETTER, RUN, fabricate
from perseid.cli import app as commands
from perseid.cli import exits
from perseid.cli.app import app
from perseid.cli.report import is_directory
from perseid.runner.directory import RunDirectory

CLI = CliRunner()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    place = tmp_path / "runs" / "fabricated"
    status = fabricate(place, BETTER)
    RunDirectory(place).accept(RUN)
    RunDirectory(place).write_status(status)
    return place


def test_the_report_is_written_into_the_run_or_where_one_says(directory: Path, tmp_path: Path) -> None:
    result = CLI.invoke(app, ["report", str(directory)])
    assert result.exit_code == exits.OK, result.output
    assert (directory / "report.html").read_text().startswith("<!doctype html>")
    assert str(directory / "report.html") in result.output
    result = CLI.invoke(app, ["report", str(directory), "-o", str(tmp_path / "new" / "page.html")])
    assert result.exit_code == exits.OK, result.output
    assert "<h1>fabricated</h1>" in (tmp_path / "new" / "page.html").read_text()


def test_a_directory_without_a_run_is_a_mistake_that_says_what_a_run_is(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        result = CLI.invoke(app, ["report", str(place)])
        assert result.exit_code == exits.MISTAKE
        assert f"{place} is no run's directory: there is no run.json in it" in result.stderr
        assert "runs/NAME" in result.stderr


def test_the_output_cannot_be_a_directory(directory: Path) -> None:
    result = CLI.invoke(app, ["report", str(directory), "-o", str(directory)])
    assert result.exit_code == exits.MISTAKE
    assert "is a directory; give the file to write" in result.stderr


def test_options_for_clusters_do_not_go_with_a_directory(directory: Path) -> None:
    result = CLI.invoke(app, ["report", str(directory), "--namespace", "x"])
    assert result.exit_code == exits.MISTAKE
    assert "the others are for clusters" in result.stderr


def test_without_the_operator_directories_are_reported_and_names_lead_to_its_extra(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "entry_points", lambda group: [EntryPoint("clusters", "absent_module:x", group)])
    alone = typer.Typer()
    alone.registered_commands += [one for one in _of_this_program() if one.callback is commands.report]
    commands.add_plugins(alone)
    assert CLI.invoke(alone, ["report", str(directory)]).exit_code == exits.OK
    result = CLI.invoke(alone, ["report", "some-name"])
    assert result.exit_code == exits.MISTAKE
    assert "perseid[operator]" in result.stderr


def _of_this_program() -> list[typer.models.CommandInfo]:
    """The commands of this program, as they are before plugins come."""
    return [typer.models.CommandInfo(name="report", callback=commands.report)]


def test_a_name_is_no_directory_unless_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_directory("mine")
    assert is_directory("runs/mine")
    assert is_directory(".")
    (tmp_path / "mine").mkdir()
    assert is_directory("mine")
