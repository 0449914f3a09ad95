"""`perseid tree`: search trees in a terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fabricated_results import BETTER, RUN, fabricate
from fabricated_stages import PROBLEMS, write_search
from perseid.api.base import replace
from perseid.api.layout import Layout
from perseid.cli import exits
from perseid.cli.app import app
from perseid.cli.trees import FAIR, GOOD
from perseid.runner.directory import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> Path:
    status = fabricate(tmp_path, BETTER)
    RunDirectory(tmp_path).write_status(status)
    write_search(Layout(tmp_path, 0, 0))
    return tmp_path


def tree(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["tree", *map(str, arguments)])


def test_without_a_problem_all_trees_are_listed_with_what_their_answers_were_worth(run: Path) -> None:
    result = tree(run)
    assert result.exit_code == exits.OK, result.output
    assert "search trees of generation 0" in result.output, "the newest generation has none yet"
    lines = {line.split()[0]: line.split() for line in result.output.splitlines() if line.strip().startswith("family/")}
    assert len(lines) == PROBLEMS
    assert lines["family/problem-0"] == ["family/problem-0", "8", "2", "8.00", "2", "of", "4", "rounds"]
    assert "0 of 4" in " ".join(lines["family/problem-1"])
    assert f"{PROBLEMS} trees, {8 * PROBLEMS} steps; {PROBLEMS // 2} of {PROBLEMS} problems" in result.output


def test_a_tree_has_steps_visits_values_reflections_the_best_path_and_the_verdicts(run: Path) -> None:
    text = tree(run, "family/problem-2").output
    assert "Write a function f2(x)" in text
    best = [line for line in text.splitlines() if "★ Q" in line]
    assert len(best) == 2, "the best path has two steps"
    assert best[0].endswith("Q 8.07  S 8.07  N 4")
    assert "Step 0: add 2 to x." in text
    assert text.count("Return the sum, way") == 6
    assert "reflection: The sum is right so far." in text
    assert "✓ code 0 passes" in text
    assert "✗ code 0 fails: assertion: assert f2(1) == 3" in text
    assert "\x1b" not in text, "no colour without a terminal"


def test_values_are_in_colour_where_there_is_some(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    text = tree(run, "family/problem-2").output
    found = re.findall(r"\x1b\[(?:1;)?([0-9]+)m([0-9]+\.[0-9]+)", text)
    colours = {
        level: {colour for colour, value in found if level == _level(float(value))} for level in ("good", "poor")
    }
    assert colours == {"good": {"32"}, "poor": {"31"}}


def _level(value: float) -> str:
    return "good" if value >= GOOD else "poor" if value < FAIR else "fair"


def test_depth_counts_what_it_leaves_out(run: Path) -> None:
    text = tree(run, "family/problem-2", "--depth", "1").output
    assert "Step 1: add 2 to x." in text
    assert "Return the sum" not in text
    assert text.count("3 more steps below") == 2


def test_a_wrong_problem_gets_the_nearest_right_ones(run: Path) -> None:
    result = tree(run, "family/problem-111")
    assert result.exit_code == exits.MISTAKE
    assert "did you mean family/problem-11" in result.stderr
    assert "family/problem-4" in tree(run, "problem-4").stderr
    assert "without a problem, `perseid tree` lists" in tree(run, "zzz").stderr


def test_a_wrong_generation_is_told_with_those_there_are(run: Path) -> None:
    result = tree(run, "--generation", "7")
    assert result.exit_code == exits.MISTAKE
    assert "has no generation 7; it has 0, 1, counted from 0" in result.stderr
    assert "has no search trees yet (generation 1)" in tree(run, "--generation", "1").stderr


def test_trees_of_shards_that_are_not_joined_yet_are_there(run: Path) -> None:
    layout = Layout(run, 0, 0)
    layout.stage("synthesize").rename(layout.stage("synthesize-shard-00"))
    assert tree(run, "family/problem-3").exit_code == exits.OK
    assert f"{PROBLEMS} trees" in tree(run).output


def test_a_run_of_a_method_without_trees_says_so(run: Path) -> None:
    directory = RunDirectory(run)
    (run / "run.json").write_text(
        replace(RUN, spec=replace(RUN.spec, methods=["meteor"])).model_dump_json(by_alias=True)
    )
    assert directory.recorded()[0].spec.methods == ["meteor"]
    result = tree(run)
    assert result.exit_code == exits.MISTAKE
    assert "only sra-mcts keeps trees" in result.stderr


def test_what_a_model_has_written_cannot_steer_the_terminal(tmp_path: Path) -> None:
    RunDirectory(tmp_path).write_status(fabricate(tmp_path, BETTER))
    write_search(Layout(tmp_path, 0, 0), says="\x1b[2J[red]\x07")
    text = tree(tmp_path, "family/problem-2").output
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]" in text, "no markup of ours is read into a model's text"


def test_a_tree_fits_80_columns(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perseid.cli.terminal.LOG_WIDTH", 80)
    for arguments in ((run,), (run, "family/problem-2")):
        assert max(map(len, tree(*arguments).output.splitlines())) <= 80
