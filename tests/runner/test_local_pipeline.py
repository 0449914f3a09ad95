from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perseid.api.layout import PROGRESS, Layout, read_stage_result
from perseid.api.load import load_run
from perseid.api.reasons import GenerationPhase
from perseid.api.result import parse_result
from perseid.api.status import EvolutionRunStatus
from tiny_run import environment, write_run

PATIENCE_SECONDS = 120


def command(file: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "perseid.cli", "run", str(file), "--runs-dir", str(file.parent / "runs"), *options]


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


# Slow (85 s on a core that others use too): each of the stages is a process that imports torch and transformers, one
# after the other. One test, because a run is the dearest thing here, and each part needs the one before.
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_run_leaves_no_process_and_goes_on_to_its_end(tmp_path: Path) -> None:
    file = write_run(tmp_path)
    root = tmp_path / "runs" / "tiny"
    layout = Layout(root, 0, 0)

    killed = subprocess.Popen(command(file, "--quiet"), env=environment(tmp_path))
    try:
        started = layout.stage("synthesize") / PROGRESS
        while not started.exists():  # there is nothing to wait on but the file
            assert killed.poll() is None, "the run ended before its first stage began"
        handles = [os.pidfd_open(pid) for pid in descendants(killed.pid)]
    finally:
        killed.kill()
        killed.wait()
    assert len(handles) >= 3, "the worker, KFP's shell and the stage"
    for handle in handles:
        assert select.select([handle], [], [], 10)[0], "a process has outlived its run"

    first = subprocess.run(
        command(file, "--json"), env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert first.returncode == 0, first.stderr + (layout.attempt_directory / "log.txt").read_text()[-4000:]
    summary = json.loads(first.stdout)
    assert summary["phase"] == "Completed"
    assert summary["promoted_generation"] is None
    assert "<h1>tiny</h1>" in (root / "report.html").read_text()
    status = EvolutionRunStatus.model_validate_json((root / "status.json").read_bytes())
    (generation,) = status.generations
    assert generation.phase is GenerationPhase.SKIPPED
    assert [attempt.number for attempt in generation.attempts] == [0], "the kill has used up an attempt"

    result = parse_result(layout.result.read_bytes())
    assert result.yields.kept + sum(result.yields.dropped.values()) == result.yields.total
    stages = {stage: read_stage_result(layout.stage(stage)) for stage in load_run(file).spec.stages}
    assert all(one is not None and one.state == "done" for one in stages.values())
    converted = stages["convert"]
    assert converted is not None
    assert result.yields.total == converted.counts["answers"] > 0
    assert result.candidate is None
    assert "finetune.minSamples" in (result.reason or "")

    before = sorted(path for path in root.rglob("*") if path.is_file())
    again = subprocess.run(
        command(file, "--json"), env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert again.returncode == 0
    assert json.loads(again.stdout) == summary
    assert sorted(path for path in root.rglob("*") if path.is_file()) == before, "a finished run was run again"


# Slow (60 s on idle cores): each stage and each shard is a process that imports torch and transformers.
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_in_shards_is_carried_out_one_shard_after_the_other(tmp_path: Path) -> None:
    file = write_run(tmp_path)
    file.write_text(file.read_text() + "  pipeline: {shards: 2}\n")
    run = subprocess.run(
        command(file, "--json"), env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE_SECONDS * 4
    )
    layout = Layout(tmp_path / "runs" / "tiny", 0, 0)
    assert run.returncode == 0, run.stderr + (layout.attempt_directory / "log.txt").read_text()[-4000:]
    shards = [read_stage_result(layout.stage(f"synthesize-shard-0{shard}")) for shard in (0, 1)]
    joined = read_stage_result(layout.stage("synthesize"))
    assert joined is not None
    assert [shard.counts["problems"] for shard in shards if shard is not None] == [1, 1]
    assert joined.counts["problems"] == 2
    assert joined.usage.calls == sum(shard.usage.calls for shard in shards if shard is not None) > 0
    result = parse_result(layout.result.read_bytes())
    assert result.usage["synthesize"] == joined.usage


# Slow (3 s): the command and the worker import KFP.
@pytest.mark.slow
def test_sigterm_ends_a_run_in_order_with_the_interrupted_exit_code(tmp_path: Path) -> None:
    file = write_run(tmp_path)
    process = subprocess.Popen(command(file), env=environment(tmp_path), stderr=subprocess.PIPE, text=True)
    submission = Layout(tmp_path / "runs" / "tiny", 0, 0).attempt_directory / "submission.json"
    while not submission.exists():  # there is nothing to wait on but the file
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "The same command goes on from there" in errors
    assert not (submission.parent / "exit.json").exists(), "the attempt was ended for good"
