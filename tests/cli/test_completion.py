"""What the shell offers: run directories, problems and fields."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fabricated_results import BETTER, fabricate
from fabricated_stages import PROBLEMS, write_search
from perseid.api.layout import Layout
from perseid.cli.app import app
from perseid.runner.directory import RunDirectory


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("first", "second"):
        place = tmp_path / "runs" / name
        RunDirectory(place).write_status(fabricate(place, BETTER))
        write_search(Layout(place, 0, 0))
    (tmp_path / "runs" / "no-run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs" / "second").rename(tmp_path / "elsewhere" / "second")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(*words: str) -> set[str]:
    """What bash offers for the last of the words, as the installed script asks for it."""
    environment = {
        "_PERSEID_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["perseid", *words]),
        "COMP_CWORD": str(len(words)),
    }
    result = CliRunner().invoke(app, prog_name="perseid", env=environment)
    return set(result.stdout.split())


@pytest.mark.parametrize("command", ["show", "tree", "compare", "chat", "export", "report"])
def test_run_directories_complete_in_every_command(command: str) -> None:
    assert offered(command, "") == {"runs/first"}
    assert offered(command, "else") == set()
    assert offered(command, "elsewhere/") == {"elsewhere/second"}


def test_problems_of_the_run_complete() -> None:
    assert len(offered("tree", "runs/first", "")) == PROBLEMS
    assert offered("tree", "runs/first", "family/problem-1") == {f"family/problem-{n}" for n in (1, 10, 11)}
    assert offered("tree", "runs/absent", "") == set()


def test_fields_complete_level_by_level() -> None:
    assert offered("explain", "") == {"apiVersion", "kind", "metadata", "spec"}
    assert offered("explain", "spec.syn") == {"spec.synthesis"}
    assert "spec.synthesis.search.rounds" in offered("explain", "spec.synthesis.search.r")
    assert "spec.problems.test.source" in offered("explain", "spec.problems.test.")
    assert offered("explain", "spec.nothing.") == set()


def test_commands_complete() -> None:
    assert {"show", "suspend"} <= offered("s")
