"""`perseid show`: a run at a glance, at any moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fabricated_results import BETTER, RUN, WORSE, fabricate
from fabricated_stages import write_search
from perseid.api.base import replace
from perseid.api.layout import Layout
from perseid.api.pipeline import PipelineSpec
from perseid.api.progress import Progress
from perseid.api.result import StageResult, StageUsage
from perseid.api.status import EvolutionRunStatus
from perseid.cli import exits
from perseid.cli.app import app
from perseid.data.jsonl import write_json
from perseid.report.overview import missing_generations, read_overview
from perseid.runner.directory import RunDirectory


def show(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["show", *map(str, arguments)])


def finished(place: Path, *generations: list[int] | None, fails: bool = False) -> EvolutionRunStatus:
    status = fabricate(place, *generations, fails=fails)
    RunDirectory(place).write_status(status)
    return status


def test_scores_yields_tokens_and_the_place_of_the_model_are_shown(tmp_path: Path) -> None:
    status = finished(tmp_path, BETTER, WORSE)
    write_search(Layout(tmp_path, 0, 0))
    result = show(tmp_path)
    assert result.exit_code == exits.OK, result.output
    for said in (
        "fabricated  Completed",
        "dev (decides)",
        "25.0 % [12.5, 62.5]",
        "0 promoted",
        "68.8 % [34.4, 84.4]",
        "generation 1  Rejected",
        "training data: kept 12 of 40 answers",
        "tests-failed     20",
        "/m/0 (generation 0)",
        "1,000 + 300 tokens",
        "1:15",
    ):
        assert said in result.output, said
    assert status.best_model_message.split(",")[0] in result.output


def test_a_stage_that_is_under_way_says_how_far_it_is_and_whether_somebody_drives_it(tmp_path: Path) -> None:
    finished(tmp_path)
    layout = Layout(tmp_path, 0, 0)
    done = StageResult(stage="synthesize", state="done", counts={"plans": 31}, usage=StageUsage(calls=9, seconds=61))
    write_json(layout.stage("synthesize") / "result.json", done)
    now = Progress(stage="convert", task="writing code", done=3, total=9, unit="plans", started_at=0.0, note="2 passed")
    write_json(layout.stage("convert") / "progress.json", now)
    text = show(tmp_path).output
    assert "✓ synthesize" in text
    assert "plans 31" in text
    assert "● convert" in text
    assert "writing code 3/9 plans" in text
    assert "2 passed" in text
    assert "to come" in text
    assert "No `perseid run` drives it now" in text
    with RunDirectory(tmp_path).locked():
        assert "No `perseid run` drives it now" not in show(tmp_path).output


def test_a_failed_run_says_why_in_its_stage_and_in_its_attempts(tmp_path: Path) -> None:
    finished(tmp_path, BETTER, fails=True)
    failed = StageResult(stage="convert", state="failed", error="no disk; free some")
    status = RunDirectory(tmp_path).recorded()[1]
    number = status.generations[-1].attempts[-1].number
    write_json(Layout(tmp_path, 1, number).stage("convert") / "result.json", failed)
    text = show(tmp_path).output
    assert "fabricated  Failed" in text
    assert "✗ convert" in text
    assert "no disk; free some" in text
    assert f"failed attempt {number}: " in text


def test_shards_are_counted(tmp_path: Path) -> None:
    run = replace(RUN, spec=replace(RUN.spec, pipeline=PipelineSpec(shards=3)))
    status = fabricate(tmp_path)
    for shard in range(2):
        done = StageResult(stage="synthesize", state="done")
        write_json(Layout(tmp_path, 0, 0).stage(f"synthesize-shard-{shard:02d}") / "result.json", done)
    overview = read_overview(run, status, tmp_path)
    assert overview.generations[0].stages[0].shards == (2, 3)
    assert overview.generations[0].stages[1].shards is None


def test_json_has_the_same_and_nothing_else(tmp_path: Path) -> None:
    finished(tmp_path, BETTER)
    told = json.loads(show(tmp_path, "--json").stdout)
    assert (told["phase"], told["in_use"], told["promoted_generation"]) == ("Running", False, 0)
    assert told["scores"][0]["points"][1]["value"] == pytest.approx(0.6875)
    assert told["generations"][0]["yields"] == {
        "total": 40,
        "kept": 12,
        "dropped": {"duplicate": 8, "tests-failed": 20},
    }
    assert told["generations"][1]["stages"][0]["state"] == "to come"


def test_generations_that_the_status_has_no_room_for_are_still_shown(tmp_path: Path) -> None:
    spec = replace(RUN.spec, generations=replace(RUN.spec.generations, max=14, patience=14))
    run = replace(RUN, spec=spec)
    directory = RunDirectory(tmp_path)
    status = fabricate(tmp_path, *[WORSE] * 13, run=run, written=directory.write_status)
    assert [one.index for one in status.generations] == list(range(4, 14)), "the status is no longer bounded"
    assert missing_generations(status) == [0, 1, 2, 3]
    whole = directory.whole_status(status)
    assert [one.index for one in whole.generations] == list(range(14))
    assert "generation 0  Rejected" in show(tmp_path).output
    (tmp_path / "generations" / "002" / "generation.json").unlink()
    assert "Generation 2 is not shown" in show(tmp_path).output
    page = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert page.exit_code == exits.OK, page.output
    written = (tmp_path / "report.html").read_text()
    assert "Generation 2 is not shown" in written
    assert 'href="#g0"' in written


def test_what_is_no_run_is_a_mistake_that_says_what_one_is(tmp_path: Path) -> None:
    result = show(tmp_path)
    assert result.exit_code == exits.MISTAKE
    assert "is no run's directory" in result.stderr


def test_it_fits_80_columns_and_needs_no_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(tmp_path, BETTER, WORSE)
    monkeypatch.setattr("perseid.cli.terminal.LOG_WIDTH", 80)
    lines = show(tmp_path).output.splitlines()
    assert not any("\x1b" in line for line in lines)
    # What is long because of a path or a message that the run has written is folded by the terminal.
    assert max(len(line) for line in lines if "tmp" not in line) <= 80


@pytest.mark.parametrize("command", ["show", "compare", "tree", "report"])
def test_a_broken_file_is_told_by_its_place_in_every_command(tmp_path: Path, command: str) -> None:
    finished(tmp_path, BETTER)
    write_search(Layout(tmp_path, 0, 0))
    layout = Layout(tmp_path, 0, 0)
    broken = {
        "show": layout.stage("convert") / "result.json",
        "compare": next(layout.evaluations.glob("dev-base/scores.json")),
        "tree": layout.stage("synthesize") / "trees.jsonl",
        "report": layout.stage("convert") / "candidates.jsonl",
    }[command]
    broken.write_text('{"half')
    result = CliRunner().invoke(app, [command, str(tmp_path)])
    assert result.exit_code == exits.MISTAKE, result.output
    assert str(broken) in result.stderr
    assert "cannot be read" in result.stderr
    assert "Traceback" not in result.output
