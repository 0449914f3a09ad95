"""`perseid report`: the page of a laptop run, from the files where they can be read, else from the status alone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_runs import ClusterRun
from rich.console import Console
from stand_in_api import StandInApi
from stand_in_bucket import ACCESS_KEY, StandInBucket
from typer.testing import Result

from fabricated_results import BASE, BETTER, write_scores
from perseid.api.layout import Layout
from perseid.cli import exits
from perseid.cli.tables import print_summary
from perseid.report.document import is_shown
from perseid.report.summary import summarise
from perseid_operator.cli.runs import seen_run

Perseid = Callable[..., Result]


def finished(root: Path, uri: str | None) -> ClusterRun:
    """A completed run of one generation, whose files lie in `root`; `uri` is what its spec says of that."""
    spec = {} if uri is None else {"storage": {"uri": uri}}
    run = ClusterRun(generations={"max": 1}, evaluation={"samples": 4, "bootstrap": 200}, **spec)
    run.storage = uri or str(root)
    run.observe()
    result = run.result(candidate=0.6875, parent=0.25)
    path = Layout(root, 0, 0).result
    path.parent.mkdir(parents=True)
    path.write_text(result.model_dump_json(by_alias=True))
    for title in ("pack-dev", "pack-test"):
        write_scores(root, title, "base", BASE)
        write_scores(root, title, "model-0", BETTER)
    return run.generation(candidate=0.6875, parent=0.25)


def page(run: ClusterRun, root: Path) -> str:
    """What `perseid run` prints at the end."""
    seen = seen_run(run.object())
    out = io.StringIO()
    print_summary(Console(file=out, width=240), summarise(seen.run(), seen.known_status(), root))
    return out.getvalue()


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user with the key of the bucket; returns the bucket's directory."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    return tmp_path / "bucket"


def test_where_the_files_can_be_read_the_page_is_that_of_a_laptop_run(
    api: StandInApi, perseid: Perseid, tmp_path: Path
) -> None:
    run = finished(tmp_path / "files", str(tmp_path / "files"))
    api.put(run.object())
    result = perseid("report", "small")
    assert result.exit_code == exits.OK, result.output
    expected = page(run, tmp_path / "files")
    assert "25.0 %" in expected
    assert "68.8 %" in expected
    assert result.stdout.startswith(expected)
    assert f"Made from the result files in {tmp_path / 'files'}." in result.stdout
    data = json.loads(perseid("report", "small", "--json").stdout)
    assert data["source"] == "files"
    assert data["sets"][0]["promoted"][0] == 0.6875


def test_the_place_is_found_by_the_model_or_taken_from_the_command_line(
    api: StandInApi, perseid: Perseid, tmp_path: Path
) -> None:
    api.put(finished(tmp_path / "files", None).object())
    assert f"Made from the result files in {tmp_path / 'files'}." in perseid("report", "small").stdout
    (tmp_path / "files").rename(tmp_path / "moved")
    result = perseid("report", "small", "--storage", tmp_path / "moved")
    assert f"Made from the result files in {tmp_path / 'moved'}." in result.stdout


def test_files_in_a_bucket_give_the_same_page(
    api: StandInApi, perseid: Perseid, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(reader / "runs" / "small", "s3://models/runs/small")
    api.put(run.object())
    with StandInBucket(reader) as bucket:
        monkeypatch.setenv("AWS_ENDPOINT", bucket.url)
        result = perseid("report", "small")
    assert result.exit_code == exits.OK, result.output
    assert result.stdout.startswith(page(run, reader / "runs" / "small"))
    assert "Made from the result files in s3://models/runs/small." in result.stdout


def write_stage(root: Path) -> None:
    """A stage that has made training data, with what a report shows and what it must not ask for."""
    stage = Layout(root, 0, 0).stage("convert")
    (stage / "model").mkdir(parents=True)
    (stage / "yield.json").write_text(json.dumps({"total": 5, "kept": 3, "dropped": {"tests-failed": 2}}))
    (stage / "model" / "model.safetensors").write_bytes(b"weights")


@pytest.mark.parametrize("place", ["directory", "bucket"])
def test_the_html_report_of_a_run_in_a_cluster_is_made_of_its_files(
    api: StandInApi, perseid: Perseid, reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    files = reader / "runs" / "small"
    uri = str(files) if place == "directory" else "s3://models/runs/small"
    api.put(finished(files, uri).object())
    write_stage(files)
    with StandInBucket(reader) as bucket:
        monkeypatch.setenv("AWS_ENDPOINT", bucket.url)
        result = perseid("report", "small", "-o", tmp_path / "page.html")
    assert result.exit_code == exits.OK, result.output
    html = (tmp_path / "page.html").read_text()
    assert "<h1>small</h1>" in html
    assert "convert: kept 3 of 5" in html
    assert "68.8 % [34.4, 84.4]" in html


def test_weights_and_journals_are_not_fetched_for_a_report() -> None:
    attempt = "generations/000/attempts/0"
    for shown in (
        "synthesize/trees.jsonl",
        "finetune/model/perseid-model.json",
        "self-assessment/rounds/001/trial.json",
    ):
        assert is_shown(f"{attempt}/{shown}"), shown
    for other in (
        "finetune/model/model.safetensors",
        "finetune/model/config.json",
        "finetune/work/checkpoint/state.json",
        "synthesize/journal.jsonl",
        "self-assessment/judge.jsonl",
        "synthesize/.perseid-index.json",
        "log.txt",
    ):
        assert not is_shown(f"{attempt}/{other}"), other


def test_without_files_there_is_no_html_report_and_none_is_made_of_the_status(
    api: StandInApi, perseid: Perseid, tmp_path: Path
) -> None:
    api.put(finished(tmp_path / "files", "s3://elsewhere/small").object())
    result = perseid("report", "small", "-o", tmp_path / "page.html", "--storage", tmp_path / "absent")
    assert result.exit_code == exits.MISTAKE
    assert "the report of small cannot be written" in result.stderr
    assert not (tmp_path / "page.html").exists()
    result = perseid("report", "small", "-o", tmp_path / "page.html", "--json")
    assert result.exit_code == exits.MISTAKE
    assert "give one of them" in result.stderr


def test_without_the_buckets_key_the_status_is_reported_and_the_reason_told(
    api: StandInApi, perseid: Perseid, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put(finished(reader / "runs" / "small", "s3://models/runs/small").object())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "SOMEBODYELSE")
    with StandInBucket(reader) as bucket:
        monkeypatch.setenv("AWS_ENDPOINT", bucket.url)
        result = perseid("report", "small")
    assert result.exit_code == exits.OK, result.output
    assert "Made from the object's status alone" in result.stdout
    assert "AWS_ACCESS_KEY_ID" in result.stdout
    assert "0.688" in result.stdout
    assert "+43.8 [+42.8, +44.8]" in result.stdout


def test_files_that_are_not_whole_are_not_reported_as_if_they_were(
    api: StandInApi, perseid: Perseid, tmp_path: Path
) -> None:
    api.put(finished(tmp_path / "files", str(tmp_path / "files")).object())
    Layout(tmp_path / "files", 0, 0).result.write_text('{"generation": 0')
    result = perseid("report", "small")
    assert result.exit_code == exits.OK, result.output
    assert "Made from the object's status alone" in result.stdout
    assert "result.json cannot be read" in result.stdout
    assert "Completed." in result.stdout


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("/a/directory/of/the/cluster", "not there on this machine; mount it"),
        ("ftp://elsewhere/x", "is no place that files can be read from"),
    ],
)
def test_a_place_out_of_reach_leaves_the_status_and_says_so(
    api: StandInApi, perseid: Perseid, tmp_path: Path, uri: str, reason: str
) -> None:
    api.put(finished(tmp_path, uri).object())
    result = perseid("report", "small")
    assert result.exit_code == exits.OK, result.output
    assert reason in result.stdout
    data = json.loads(perseid("report", "small", "--json").stdout)
    assert data["source"] == "status"
    assert data["generations"][0]["dev_candidate"] == 0.6875
    assert data["promoted_generation"] == 0


def test_a_run_without_any_generation_is_reported_as_it_is(api: StandInApi, perseid: Perseid) -> None:
    api.put(ClusterRun(suspend=True).observe().object())
    result = perseid("report", "small")
    assert result.exit_code == exits.OK, result.output
    assert "Suspended. Set spec.suspend to false to go on." in result.stdout


def test_a_run_that_nobody_has_taken_up_has_no_report(api: StandInApi, perseid: Perseid) -> None:
    api.put(ClusterRun(managedBy="example.com/other").object())
    result = perseid("report", "small")
    assert result.exit_code == exits.MISTAKE
    assert "has no status yet: example.com/other has not taken it up" in result.stderr


def long_run() -> ClusterRun:
    """25 generations and one under way, of which the status holds 10."""
    run = ClusterRun(generations={"max": 30, "patience": 30})
    for _ in range(25):
        run.generation(candidate=0.3, parent=0.4)
    return run


def test_generations_that_the_status_has_no_room_for_are_in_the_report(api: StandInApi, perseid: Perseid) -> None:
    run = long_run()
    api.put(run.object())
    kept = {f"generation-{one.index:05d}.json": one.model_dump_json(by_alias=True) for one in run.evicted}
    api.config_maps["lab", "small-6f2c1f3e-history-0"] = kept
    data = json.loads(perseid("report", "small", "--json").stdout)
    assert [one["index"] for one in data["generations"]] == list(range(26))
    assert "not in it" not in data["note"]


@pytest.mark.parametrize("trouble", ["absent", "forbidden", "torn"])
def test_generations_that_cannot_be_had_are_counted(api: StandInApi, perseid: Perseid, trouble: str) -> None:
    api.put(long_run().object())
    if trouble == "forbidden":
        api.forbidden.add(("get", "configmaps", "lab"))
    if trouble == "torn":
        api.config_maps["lab", "small-6f2c1f3e-history-0"] = {"generation-00000.json": "{"}
    data = json.loads(perseid("report", "small", "--json").stdout)
    assert [one["index"] for one in data["generations"]] == list(range(16, 26))
    assert "16 earlier generations are not in it" in data["note"]
    assert ("you may not get configmaps" in data["note"]) == (trouble == "forbidden")
