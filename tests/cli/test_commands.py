"""The command as a user calls it, up to the point where a run would start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from perseid import __version__
from perseid.cli import exits
from perseid.cli.app import app
from perseid.runner.directory import RunDirectory

ROOT = Path(__file__).parents[2]
RUN = """\
apiVersion: perseid.dev/v1alpha1
kind: EvolutionRun
metadata:
  name: small
spec:
  engine: {type: transformers}
"""


def perseid(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_file(directory: Path, text: str = RUN) -> Path:
    path = directory / "run.yaml"
    path.write_text(text)
    return path


def problems(directory: Path, name: str, *ids: str) -> None:
    lines = [json.dumps({"id": one, "statement": f"Write {one}.", "tests": ["assert True"]}) for one in ids]
    (directory / name).write_text("\n".join(lines) + "\n")


EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_valid(name: str) -> None:
    result = perseid("validate", ROOT / "examples" / name)
    assert result.exit_code == exits.OK, result.output
    assert f"is valid: EvolutionRun {name.removesuffix('.yaml')}" in result.output


def test_every_mistake_is_told_with_its_line_and_the_nearest_right_name(tmp_path: Path) -> None:
    file = run_file(tmp_path, RUN + "  sed: 3\n  finetune: {epochs: -1}\n")
    result = perseid("validate", file)
    assert result.exit_code == exits.MISTAKE
    assert result.stdout == ""
    assert f"{file} has 2 mistakes" in result.stderr
    assert f"{file}:7:" in result.stderr
    assert f"{file}:8:" in result.stderr
    assert "seed" in result.stderr


@pytest.mark.parametrize("command", ["validate", "compile", "run"])
def test_a_missing_file_is_a_mistake_in_every_command(tmp_path: Path, command: str) -> None:
    result = perseid(command, tmp_path / "absent.yaml")
    assert result.exit_code == exits.MISTAKE
    assert "there is no such file" in result.stderr


@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_problem_in_train_and_in_an_evaluation_set_is_a_mistake(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    problems(tmp_path, "train.jsonl", "a", "b", "c")
    problems(tmp_path, "dev.jsonl", "c", "d")
    sets = "  problems:\n    train: {source: jsonl, path: train.jsonl}\n    dev: {source: jsonl, path: dev.jsonl}\n"
    result = perseid(command, run_file(tmp_path, RUN + sets))
    assert result.exit_code == exits.MISTAKE
    assert "1 problem(s) are in spec.problems.train and in the evaluation set jsonl, for example c" in result.stderr
    assert not (tmp_path / "runs").exists(), "a mistake was found after something was made"


def test_two_evaluation_sets_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    sets = "  problems: {test: [{source: pack, split: test}, {source: pack, split: test, limit: 3}]}\n"
    result = perseid("validate", run_file(tmp_path, RUN + sets))
    assert result.exit_code == exits.MISTAKE
    assert "two evaluation sets are called pack-test" in result.stderr


def test_a_missing_problem_file_is_told_by_its_path_beside_the_run_file(tmp_path: Path) -> None:
    result = perseid("validate", run_file(tmp_path, RUN + "  problems: {train: {source: jsonl, path: seeds.jsonl}}\n"))
    assert result.exit_code == exits.MISTAKE
    assert f"{tmp_path / 'seeds.jsonl'} cannot be read" in result.stderr


def test_a_model_directory_without_a_model_is_a_mistake(tmp_path: Path) -> None:
    result = perseid("validate", run_file(tmp_path, RUN + "  model: {ref: ./models/mine}\n"))
    assert result.exit_code == exits.MISTAKE
    assert f"spec.model.ref is {tmp_path / 'models' / 'mine'}, but there is no" in result.stderr


def test_an_engine_that_is_not_installed_is_told_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perseid.cli.preflight.ENGINE_PACKAGES", {"transformers": "a_package_that_nobody_has"})
    result = perseid("validate", run_file(tmp_path))
    assert result.exit_code == exits.MISTAKE
    assert "install Perseid with the extra models" in result.stderr


def test_training_on_nodes_is_valid_for_a_cluster_and_refused_by_a_laptop(tmp_path: Path) -> None:
    file = run_file(tmp_path, RUN + "  pipeline: {trainJob: {numNodes: 2}}\n")
    assert perseid("validate", file).exit_code == exits.OK
    result = perseid("run", file)
    assert result.exit_code == exits.MISTAKE
    assert (
        "spec.pipeline.trainJob spreads training over the nodes of a cluster, and this is one machine" in result.stderr
    )
    assert not (tmp_path / "runs").exists()


def test_compile_writes_the_pipeline_where_it_is_told(tmp_path: Path) -> None:
    output = tmp_path / "new" / "pipeline.yaml"
    result = perseid("compile", run_file(tmp_path), "-o", output)
    assert result.exit_code == exits.OK, result.output
    assert yaml.safe_load(output.read_text())["pipelineInfo"]["name"] == "perseid-generation-small"


def test_compile_to_a_directory_says_which_file_it_could_be(tmp_path: Path) -> None:
    result = perseid("compile", run_file(tmp_path), "-o", tmp_path)
    assert result.exit_code == exits.MISTAKE
    assert f"for example {tmp_path / 'pipeline.yaml'}" in result.stderr


def test_compile_below_a_file_is_a_mistake_and_no_traceback(tmp_path: Path) -> None:
    file = run_file(tmp_path)
    result = perseid("compile", file, "-o", file / "pipeline.yaml")
    assert result.exit_code == exits.MISTAKE
    assert "cannot write" in result.stderr


def test_a_run_whose_directory_is_in_use_is_refused(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "runs" / "small").locked():
        result = perseid("run", run_file(tmp_path), "--runs-dir", tmp_path / "runs")
    assert result.exit_code == exits.MISTAKE
    assert "in use by another command of Perseid's" in result.stderr


def test_a_suspended_run_has_its_own_exit_code_and_can_be_asked_for_json(tmp_path: Path) -> None:
    file = run_file(tmp_path, RUN + "  suspend: true\n")
    result = perseid("run", file, "--runs-dir", tmp_path / "runs", "--json")
    assert result.exit_code == exits.SUSPENDED
    summary = json.loads(result.stdout)
    assert (summary["name"], summary["phase"]) == ("small", "Suspended")
    assert "spec.suspend to false" in summary["message"]


def test_a_run_with_changed_settings_is_refused_with_the_fields(tmp_path: Path) -> None:
    suspended = RUN + "  suspend: true\n"
    perseid("run", run_file(tmp_path, suspended), "--runs-dir", tmp_path / "runs")
    result = perseid("run", run_file(tmp_path, suspended + "  seed: 5\n"), "--runs-dir", tmp_path / "runs")
    assert result.exit_code == exits.MISTAKE
    assert "spec.seed: 0 -> 5" in result.stderr


def test_quiet_prints_nothing_but_errors(tmp_path: Path) -> None:
    file = run_file(tmp_path, RUN + "  suspend: true\n")
    assert perseid("run", file, "--runs-dir", tmp_path / "runs", "--quiet").output == ""


def test_the_version_is_told() -> None:
    result = perseid("--version")
    assert (result.exit_code, result.stdout) == (0, f"perseid {__version__}\n")


def test_the_exit_codes_are_what_scripts_rely_on() -> None:
    codes = {name: value for name, value in vars(exits).items() if name.isupper()}
    assert codes == {"OK": 0, "FAILED": 1, "MISTAKE": 2, "SUSPENDED": 3, "INTERRUPTED": 130}
