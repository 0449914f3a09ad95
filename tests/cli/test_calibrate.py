"""`perseid calibrate`: a search's scores against verdicts, before a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fabricated_stages import write_search
from perseid.api.layout import Layout
from perseid.api.load import load_run
from perseid.cli import calibrating, exits
from perseid.cli.app import app
from perseid.runner.directory import RunDirectory, absolute_paths
from perseid.runner.errors import RunnerError
from tiny_run import environment, problem, write_run

RUN = """\
apiVersion: perseid.dev/v1alpha1
kind: EvolutionRun
metadata: {name: small}
spec:
  engine: {type: transformers}
"""


def calibrate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(RUN)
    return tmp_path / "run.yaml"


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The model's part is taken by fabricated searches; the arguments it was called with, by informedness."""
    informed = ["yes"]

    def carry_out(attempt: calibrating.Attempt, problems: object, console: object) -> None:
        write_search(Layout(Path(attempt.storage), 0, 0), informed=informed == ["yes"])

    monkeypatch.setattr(calibrating, "carry_out", carry_out)
    return informed


def test_the_budget_is_said_before_and_a_dry_run_stops_there(file: Path) -> None:
    result = calibrate(file, "--problems", "3", "--dry-run")
    assert result.exit_code == exits.OK, result.output
    assert "3 problems; the model makes" in result.stderr
    assert result.stdout == ""
    assert not (file.parent / "runs").exists()


def test_figures_and_a_plain_sentence_come_out(file: Path, searched: list[str]) -> None:
    result = calibrate(file, "--problems", "12")
    assert result.exit_code == exits.OK, result.output
    assert "The search of this sample was guided by values that tell right from wrong" in result.stdout
    assert "value of a step, after backpropagation" in result.stdout
    assert "12 problems, 48 answers with a verdict, 12 of them right" in result.stdout
    told = json.loads(calibrate(file, "--problems", "12", "--json").stdout)
    value = next(one for one in told["evaluators"] if one["name"] == "step-value")
    assert value["judgement"] == "informative"
    assert value["auc"]["low"] > 0.5
    assert value["calibration"]["within_problem"] == 1.0


def test_noise_is_called_noise(file: Path, searched: list[str]) -> None:
    searched[0] = "no"
    assert "was guided by noise" in " ".join(calibrate(file).stdout.split())


def test_the_sample_is_of_distinct_problems_and_the_bound_is_of_all_of_them(file: Path) -> None:
    run = load_run(file)
    problems = calibrating.sample_problems(run, 5)
    assert len({one.id for one in problems}) == 5
    attempt = calibrating.prepare(run, problems, file.parent)
    assert calibrating.most_tokens(attempt, 5) == 5 * calibrating.most_tokens(attempt, 1) > 0


def test_the_same_file_and_number_go_on_in_the_same_place_and_others_elsewhere(file: Path) -> None:
    run = load_run(file)
    places = [
        calibrating.prepare(run, calibrating.sample_problems(run, count), file.parent).storage for count in (3, 3, 4)
    ]
    assert places[0] == places[1] != places[2]
    assert "small.calibration" in places[0]


def test_a_run_without_search_and_problems_without_tests_are_refused(file: Path) -> None:
    file.write_text(RUN + "  methods: [meteor]\n")
    result = calibrate(file)
    assert result.exit_code == exits.MISTAKE
    assert "has no search to calibrate" in result.stderr
    untested = [{**problem("a"), "tests": []}, {**problem("b"), "tests": []}]
    (file.parent / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in untested))
    file.write_text(RUN + "  problems: {train: {source: jsonl, path: train.jsonl}}\n")
    run = absolute_paths(load_run(file), file.parent)
    with pytest.raises(RunnerError, match=r"no problem of spec\.problems\.train has tests"):
        calibrating.sample_problems(run, 3)


@pytest.mark.slow  # loads a model in a process of its own
def test_a_real_model_is_calibrated_and_nothing_is_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_run(tmp_path)
    calls = tmp_path / "calls.txt"
    for name, value in {**environment(tmp_path), "PERSEID_CALL_LOG": str(calls)}.items():
        monkeypatch.setenv(name, value)
    arguments = (file, "--problems", "2", "--runs-dir", tmp_path / "runs")
    result = calibrate(*arguments)
    assert result.exit_code == exits.OK, result.output
    assert "2 problems" in result.stdout
    asked = calls.read_text().splitlines()
    assert len(asked) == len(set(asked)) > 0
    # As after a kill: what was written of the stages is gone, but for their journals.
    for stage in ("synthesize", "convert"):
        for path in (tmp_path / "runs").glob(f"tiny.calibration/*/generations/000/attempts/0/{stage}/result.json"):
            path.unlink()
    again = calibrate(*arguments)
    assert again.exit_code == exits.OK, again.output
    assert calls.read_text().splitlines() == asked


def worker(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a shell script stand in for the process that asks the model."""
    program = directory / "worker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(calibrating.sys, "executable", str(program))


def test_ctrl_c_ends_the_models_process_and_says_how_to_go_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker(file.parent, monkeypatch, "echo $$ > pid; exec sleep 600")

    def interrupted(root: Path) -> str:
        if (file.parent / "pid").exists() and (file.parent / "pid").read_text().strip():
            raise KeyboardInterrupt
        return "starting"

    monkeypatch.setattr(calibrating, "_now", interrupted)
    result = calibrate(file, "--problems", "3")
    assert result.exit_code == exits.INTERRUPTED
    assert "The same command goes on from there." in result.stderr
    assert not Path(f"/proc/{int((file.parent / 'pid').read_text())}").exists()


def test_a_process_that_ends_without_a_result_is_told_with_its_log(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker(file.parent, monkeypatch, "echo out of luck; exit 3")
    result = calibrate(file, "--problems", "3")
    assert result.exit_code == exits.MISTAKE
    assert "the calibration ended without a result" in result.stderr
    (log,) = (file.parent / "runs").glob("small.calibration/*/log.txt")
    assert "out of luck" in log.read_text()
    assert str(log) in result.stderr


def test_two_calibrations_at_once_do_not_share_a_place(file: Path) -> None:
    run = load_run(file)
    attempt = calibrating.prepare(run, calibrating.sample_problems(run, 3), Path("runs"))
    with RunDirectory(Path(attempt.storage)).locked():
        result = calibrate(file, "--problems", "3")
    assert result.exit_code == exits.MISTAKE
    assert "is in use by another" in result.stderr
