"""Two generations of a tiny model, each stage on a machine of its own: all that they share is a bucket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from perseid.api.attempt import Attempt
from perseid.api.layout import PROGRESS, RESULT, SCRATCH_DIRECTORY, scratch_directory
from perseid.api.progress import Progress
from perseid.api.reasons import AttemptState, GenerationPhase, Phase
from perseid.api.result import GenerationResult, StageResult, YieldCounts, parse_result
from perseid.api.spec import EvolutionRun
from perseid.api.status import AttemptStatus, EvolutionRunStatus, GenerationStatus, ResultSummary
from perseid.data.jsonl import write_json, write_jsonl
from perseid.data.records import TrainingSample
from perseid.engines.errors import ModelAccessError, ModelIncompleteError, ModelNotFoundError
from perseid.engines.models import resolve_model
from perseid.report.summary import summarise
from perseid.stages.context import StageContext
from perseid.stages.runtime import run_stage
from perseid.storage.index import read_index
from perseid.storage.objects import Objects
from perseid.storage.pusher import PUSH_SECONDS
from perseid_operator.cli.results import ResultFiles, ResultsUnreachableError
from perseid_operator.results import ResultReader, StageFailure, StorageError
from tiny_llama import make_model, write_model

PROGRAM = Path(__file__).with_name("run_one_stage.py")
PATIENCE_SECONDS = 120
RUN_ID = "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f1{}"
UID = "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f99"


def the_run(directory: Path, epochs: int) -> EvolutionRun:
    (directory / "dev.jsonl").write_text(
        json.dumps({"id": "d", "statement": "Write d(x).", "entry_point": "d", "tests": ["assert d(1) == 1"]}) + "\n"
    )
    source = {"source": "jsonl", "path": str(directory / "dev.jsonl")}
    spec = {
        "model": {"dtype": "float32"},
        "engine": {"type": "transformers", "transformers": {"batchSize": 2}},
        "problems": {"train": source, "dev": {**source, "name": "dev"}, "test": []},
        "sandbox": {"workers": 1},
        "finetune": {"minSamples": 2, "epochs": epochs, "batchSize": 2, "checkpointSteps": 1, "lora": {"rank": 2}},
        "evaluation": {"samples": 2, "bootstrap": 100, "sampling": {"maxTokens": 16}},
    }
    return EvolutionRun.model_validate({"metadata": {"name": "tiny"}, "spec": spec})


def attempt(run: EvolutionRun, root: str, generation: int, start_model: str) -> Attempt:
    run_id = RUN_ID.format(generation)
    return Attempt(
        run=run, run_id=run_id, generation=generation, number=0, storage=root, start_model=start_model
    )  # fmt: skip


def upload_model(directory: Path, uri: str) -> None:
    """A base model that somebody has put into a bucket: Perseid's manifest is not in it."""
    model = make_model(hidden_size=16, intermediate_size=32, num_hidden_layers=1, max_position_embeddings=4096)
    objects = Objects(uri)
    for path in write_model(directory, model).iterdir():
        objects.upload(path.name, path, path.stat().st_size)
    objects.write("notes.bin", b"weights in another format, which nobody reads")


def converted(samples: int) -> Any:
    """The body of a convert stage that has kept that many records."""

    async def body(context: StageContext) -> StageResult:
        records = [
            TrainingSample(id=f"s{n}", problem_id="p", prompt=f"Write f{n}.", answer=f"def f{n}(): return {n}")
            for n in range(samples)
        ]
        write_jsonl(context.directory / "samples.jsonl", records)
        write_json(context.directory / "yield.json", YieldCounts(total=samples, kept=samples))
        return StageResult(stage="convert", state="done", counts={"kept": samples})

    return body


def pod(told: Attempt, stage: str, machine: Path) -> subprocess.Popen[bytes]:
    machine.mkdir()
    (machine / "attempt.json").write_text(told.model_dump_json(by_alias=True))
    environment = {
        **os.environ,
        SCRATCH_DIRECTORY: str(machine / "scratch"),
        "PERSEID_CACHE": str(machine / "cache"),
        PUSH_SECONDS: "0.1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen([sys.executable, str(PROGRAM), stage, str(machine / "attempt.json")], env=environment)


def train_through_a_kill(told: Attempt, root: str, tmp_path: Path) -> None:
    """SIGKILL as soon as a checkpoint is stored; another machine goes on from it."""
    key = "generations/000/attempts/0/finetune"
    killed = pod(told, "finetune", tmp_path / "killed")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        index = read_index(Objects(root), key)
        if index is not None and any(name.endswith(".pt") for name in index[0].files):
            break
        assert killed.poll() is None, "the training is over already: train for longer"
        assert time.monotonic() < deadline
        time.sleep(0.05)  # objects can only be looked at
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert Objects(root).read(f"{key}/{RESULT}") is None
    assert not list(Objects(root).list(f"{key}/model")), "the training was over already: train for longer"

    assert pod(told, "finetune", tmp_path / "next").wait(PATIENCE_SECONDS) == 0
    found = Objects(root).read(f"{key}/{PROGRESS}")
    assert found is not None
    progress = Progress.model_validate_json(found[0])
    assert progress.done_at_start > 0, "it has begun anew"
    names = {one.key.removeprefix(f"{key}/").partition("/")[0] for one in Objects(root).list(key)}
    assert names == {".perseid-index.json", PROGRESS, RESULT, "model"}, "checkpoints are left over"


def status_of(run: EvolutionRun, result: GenerationResult, start_model: str) -> EvolutionRunStatus:
    now = datetime.now(UTC)
    done = AttemptStatus(number=0, run_id=result.run_id, state=AttemptState.SUCCEEDED, submitted_at=now)
    assert result.candidate is not None
    generation = GenerationStatus(
        index=0,
        phase=GenerationPhase.PROMOTED,
        start_model=result.candidate.model_copy(update={"uri": start_model, "generation": -1}),
        candidate=result.candidate,
        result=ResultSummary(run_id=result.run_id, samples_kept=4, samples_total=4),
        attempts=[done],
        started_at=now,
    )
    return EvolutionRunStatus(uid=UID, phase=Phase.COMPLETED, generations=[generation], promoted=result.candidate)


def weights_on_this_machine() -> list[Path]:
    return list(scratch_directory().rglob("*.safetensors"))


# Slow (70 s): three processes import torch and transformers, and a tiny model is trained twice and scored twice.
@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_promoted_model_in_a_bucket_is_the_next_generations_start(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def machine(name: str) -> None:
        monkeypatch.setenv(SCRATCH_DIRECTORY, str(tmp_path / name / "scratch"))
        monkeypatch.setenv("PERSEID_CACHE", str(tmp_path / name / "cache"))

    def stage(name: str, told: Attempt, body: Any) -> StageResult:
        machine(f"{told.generation}-{name}")
        return run_stage(name, told, body)

    from perseid.stages import evaluate, finetune

    base = root.replace("/run", "/base")
    upload_model(tmp_path / "model", base)
    run = the_run(tmp_path, epochs=30)
    first = attempt(run, root, 0, base)
    await asyncio.to_thread(stage, "synthesize", first, nothing("synthesize"))
    await asyncio.to_thread(stage, "convert", first, converted(4))
    train_through_a_kill(first, root, tmp_path)
    await asyncio.to_thread(stage, "evaluate", first, evaluate.run)

    # The operator's reader, and the page's.
    reader = ResultReader()
    result = await reader.generation(root, 0, 0)
    assert isinstance(result, GenerationResult)
    assert result.candidate is not None
    assert result.candidate.uri == f"{root}/generations/000/attempts/0/finetune/model"
    assert set(result.usage) == {"synthesize", "convert", "finetune", "evaluate"}
    assert await reader.generation(root, 0, 1) is None
    files = ResultFiles(root)
    ended = files.stage_result(0, 0, "finetune")
    assert ended is not None
    assert ended.metrics["trained"] == 1.0
    with files.for_report(status_of(run, result, base)) as directory:
        summary = summarise(run, status_of(run, result, base), directory)
    assert summary.sets[0].promoted is not None
    assert summary.model == result.candidate.uri

    # The next generation trains from it, and needs its weights for nothing else: its scores are in the bucket.
    second = attempt(the_run(tmp_path, epochs=1), root, 1, result.candidate.uri)
    await asyncio.to_thread(stage, "synthesize", second, nothing("synthesize"))
    await asyncio.to_thread(stage, "convert", second, converted(4))
    await asyncio.to_thread(stage, "finetune", second, finetune.run)
    assert len(weights_on_this_machine()) == 2, "the start model's and its own"
    manifest = Objects(root).read("generations/001/attempts/0/finetune/model/perseid-model.json")
    assert manifest is not None
    made = json.loads(manifest[0])
    assert made["base_model_id"] == result.candidate.model_id
    assert made["base_ref"] == result.candidate.uri
    await asyncio.to_thread(stage, "evaluate", second, evaluate.run)
    assert [path.parent.name for path in weights_on_this_machine()] == [
        resolve_model(f"{root}/generations/001/attempts/0/finetune/model").path.name
    ], "the start model's weights were fetched although its scores are known"
    raw = Objects(root).read(f"generations/001/attempts/0/{RESULT}")
    assert raw is not None
    later = parse_result(raw[0])
    assert later.parent_model_id == result.candidate.model_id
    assert later.dev is not None
    assert result.dev is not None
    assert later.dev.parent == result.dev.candidate
    everything = b"".join(
        content[0]
        for found in Objects(root).list("")
        if not found.key.endswith((".safetensors", "tokenizer.json"))
        and (content := Objects(root).read(found.key)) is not None
    )
    assert str(tmp_path).encode() + b"/" not in everything.replace(str(tmp_path / "dev.jsonl").encode(), b"")


def nothing(stage: str) -> Any:
    async def body(context: StageContext) -> StageResult:
        return StageResult(stage=stage, state="done")

    return body


async def test_the_operators_reader_tells_failures_and_a_storage_that_refuses(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Objects(root)
    objects.write(
        "generations/000/attempts/0/convert/result.json",
        StageResult(stage="convert", state="failed", error="no plans").model_dump_json(by_alias=True).encode(),
    )
    assert await ResultReader().failure(root, 0, 0) == StageFailure("convert", "no plans")
    assert await ResultReader().failure(root, 0, 1) is None
    with pytest.raises(StorageError, match="no bucket absent"):
        await ResultReader().generation("s3://absent/x", 0, 0)
    with pytest.raises(ResultsUnreachableError, match="no bucket absent"):
        ResultFiles("s3://absent/x").read("generations/000/attempts/0/result.json")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="AWS_SECRET_ACCESS_KEY"):
        await ResultReader().generation(root, 0, 0)
    with pytest.raises(ResultsUnreachableError, match=r"AWS_SECRET_ACCESS_KEY.*--storage"):
        ResultFiles(root).read("generations/000/attempts/0/result.json")


# 5 s where nothing has imported transformers yet.
@pytest.mark.slow
def test_a_model_in_a_bucket_is_fetched_once_and_checked(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_model(tmp_path / "model", root)
    plain = resolve_model(root)
    assert plain.model_id == resolve_model(str(tmp_path / "model")).model_id
    assert not (plain.path / "notes.bin").exists()
    times = {path.name: path.stat().st_mtime_ns for path in plain.path.iterdir()}
    assert resolve_model(root) == plain
    assert {path.name: path.stat().st_mtime_ns for path in plain.path.iterdir()} == times, "fetched again"

    Objects(root).write("perseid-model.json", json.dumps({"model_id": plain.model_id}).encode())
    monkeypatch.setenv(SCRATCH_DIRECTORY, str(tmp_path / "elsewhere"))
    lazy = resolve_model(root)
    assert lazy.model_id == plain.model_id
    assert weights_on_this_machine() == []
    lazy.fetch_weights()
    assert len(weights_on_this_machine()) == 1

    Objects(root).write("config.json", b"{}")
    changed = resolve_model(root)
    with pytest.raises(ModelIncompleteError, match=r"not those that its perseid-model\.json speaks of"):
        changed.fetch_weights()
    Objects(root).delete(["config.json"])
    with pytest.raises(ModelIncompleteError, match=r"lacks config\.json"):
        resolve_model(root)
    with pytest.raises(ModelNotFoundError, match="nothing at that place"):
        resolve_model(f"{root}/absent")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ModelAccessError, match="AWS_SECRET_ACCESS_KEY"):
        resolve_model(root)
