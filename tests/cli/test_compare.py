"""`perseid compare`: two runs, or two generations of one, side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fabricated_results import BASE, BETTER, RUN, WORSE, fabricate, write_scores
from perseid.api.base import replace
from perseid.api.spec import EvolutionRun
from perseid.cli import exits
from perseid.cli.app import app
from perseid.runner.directory import RunDirectory

BEST = [4, 3, 4, 2]


def compare(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def make(place: Path, *generations: list[int], run: EvolutionRun = RUN) -> Path:
    RunDirectory(place).write_status(fabricate(place, *generations, run=run))
    return place


def other(**changes: object) -> EvolutionRun:
    spec = replace(RUN.spec, seed=7, **changes)
    return replace(RUN, metadata=replace(RUN.metadata, name="other"), spec=spec)


def test_two_runs_are_compared_on_shared_problems_with_a_paired_interval(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", BETTER), make(tmp_path / "b", BEST, run=other())
    result = compare(first, second)
    assert result.exit_code == exits.OK, result.output
    assert "A  fabricated, best model (generation 0)" in result.output
    assert "B  other, best model (generation 0)" in result.output
    told = json.loads(compare(first, second, "--json").stdout)
    assert [one["first_name"] for one in told["sets"]] == ["dev", "held-out"]
    dev = told["sets"][0]
    assert dev["first"][0] == pytest.approx(0.6875)
    assert dev["second"][0] == pytest.approx(0.8125)
    value, low, high = dev["difference"]
    assert value == pytest.approx(0.125)
    assert low <= value <= high
    assert [one["problem_id"] for one in dev["gained"]] == ["p0", "p3"]
    assert dev["lost"] == []
    assert "75% -> 100%  p0" in result.output
    assert "2 problems gained, 0 lost, 2 the same" in result.output


def test_only_settings_that_differ_are_shown(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", BETTER), make(tmp_path / "b", BETTER, run=other())
    told = json.loads(compare(first, second, "--json").stdout)
    assert [(one["path"], one["old"], one["new"]) for one in told["changes"]] == [("spec.seed", 0, 7)]
    assert told["measured_differently"] == []
    changed = other(evaluation=replace(RUN.spec.evaluation, samples=2))
    third = make(tmp_path / "c", BETTER, run=changed)
    assert "not measured alike: spec.evaluation.samples" in compare(first, third).output.replace("\n", " ")


def test_generations_of_one_run_stand_against_its_base_or_each_other(tmp_path: Path) -> None:
    place = make(tmp_path, BETTER, BEST)
    told = json.loads(compare(place, "--generation", "0", "--json").stdout)
    assert (told["first"]["which"], told["second"]["which"]) == ("base model", "model of generation 0")
    assert told["sets"][0]["first"][0] == sum(BASE) / 16
    assert told["second"]["usage"]["calls"] == 1234, "of that generation alone"
    told = json.loads(compare(place, "--generation", "1", "--against", "0", "--json").stdout)
    assert told["sets"][0]["difference"][0] == pytest.approx((sum(BEST) - sum(BETTER)) / 16)
    assert told["changes"] == []


def test_the_best_model_of_one_run_has_taken_what_its_own_generation_took(tmp_path: Path) -> None:
    place = make(tmp_path / "a", BETTER, WORSE)
    told = json.loads(compare(place, "--json").stdout)
    assert told["second"]["usage"]["calls"] == 1234, "and not that of both generations"
    assert told["first"]["usage"]["calls"] == 0


def test_a_rejected_generation_loses_problems(tmp_path: Path) -> None:
    text = compare(make(tmp_path, WORSE), "--generation", "0").output
    assert "0 problems gained, 1 lost" in text
    assert "25% ->   0%  p0" in text


def test_sets_of_other_names_are_matched_by_their_problems_and_odd_ones_do_not_count(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", BETTER), make(tmp_path / "b", BETTER, run=other())
    for scores in (second / "evaluations").glob("*/scores.json"):
        scores.unlink()
    write_scores(second, "renamed", "model0", [*BEST, 4, 4])
    told = json.loads(compare(first, second, "--json").stdout)
    assert (told["sets"][0]["second_name"], told["sets"][0]["problems"], told["sets"][0]["left_out"]) == (
        "renamed",
        4,
        2,
    )
    assert "2 problems that only one of the two was scored on do not count" in compare(first, second).output


def test_runs_without_a_common_problem_are_refused_with_what_each_was_scored_on(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", BETTER), make(tmp_path / "b", BETTER, run=other())
    for scores in (second / "evaluations").glob("*/scores.json"):
        scores.write_text(scores.read_text().replace('"problem_id":"p', '"problem_id":"q'))
    result = compare(first, second)
    assert result.exit_code == exits.MISTAKE
    assert "share no problem: fabricated was scored on dev (4), held-out (4), other was scored on" in result.stderr


def test_a_model_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    place = make(tmp_path / "a", BETTER)
    assert "no model of generation 5; those of generation 0 are there" in compare(place, "--generation", "5").stderr
    assert "--against is x; give a generation" in compare(place, "--against", "x").stderr
    begun = make(tmp_path / "b")
    result = compare(place, begun)
    assert result.exit_code == exits.MISTAKE
    assert "its first generation is not over" in result.stderr


def test_it_fits_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perseid.cli.terminal.LOG_WIDTH", 80)
    first, second = make(tmp_path / "a", BETTER), make(tmp_path / "b", BEST, run=other())
    assert max(map(len, compare(first, second).output.splitlines())) <= 80
