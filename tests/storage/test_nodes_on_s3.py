"""The nodes of a TrainJob without Trainer: processes with its variables and a scratch directory each, and a bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3_server import free_ports
from safetensors.torch import load_file

from perseid.api.attempt import Attempt
from perseid.api.files import SAMPLES
from perseid.api.layout import RESULT, SCRATCH_DIRECTORY, Layout, StorageError
from perseid.api.result import StageResult
from perseid.api.spec import EvolutionRun
from perseid.data.jsonl import write_jsonl
from perseid.data.records import TrainingSample
from perseid.engines.models import resolve_model
from perseid.stages import calls, nodes
from perseid.stages.calls import answer_calls, calling
from perseid.stages.context import StageContext
from perseid.stages.errors import StageError
from perseid.stages.lineage import BaseModel
from perseid.stages.nodes import run_node
from perseid.stages.progress import ProgressWriter
from perseid.stages.runtime import run_stage
from perseid.storage.errors import StorageRefusedError
from perseid.storage.index import read_index
from perseid.storage.mirror import DirectoryMirror
from perseid.storage.models import RemoteModel
from perseid.storage.objects import Objects
from perseid.storage.pusher import PUSH_SECONDS
from perseid.storage.stage import StageStorage
from perseid.training.finetune import fine_tune
from perseid.training.manifest import read_manifest
from perseid.training.world import World
from tiny_llama import make_model, write_model

KEY = "generations/000/attempts/0/finetune"
PATIENCE_SECONDS = 300
SAMPLES_OF_CONVERT = [
    TrainingSample(id=f"s{i}", problem_id=f"p{i}", prompt=f"say {'n' * i} {i}", answer=f"{i} is {'x' * (3 * i % 7)}!")
    for i in range(10)
]


def attempt(root: str, base: Path | str, **spec: object) -> Attempt:
    fields = {
        "model": {"ref": str(base), "dtype": "float32"},
        "finetune": {"epochs": 60, "batchSize": 4, "maxLength": 128, "checkpointSteps": 10, "learningRate": 1e-3},
        "pipeline": {"trainJob": {"numNodes": 2}},
    } | spec
    return Attempt(
        run=EvolutionRun.model_validate({"metadata": {"name": "nodes"}, "spec": fields}),
        run_id="6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11",
        generation=0,
        number=0,
        storage=root,
        start_model=str(base),
    )


async def converted(context: StageContext) -> StageResult:
    write_jsonl(context.directory / SAMPLES, SAMPLES_OF_CONVERT)
    return StageResult(stage="convert", state="done", counts={"samples": len(SAMPLES_OF_CONVERT)})


def variables(node: int, port: int) -> dict[str, str]:
    return {
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "1",
        "PET_NODE_RANK": str(node),
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(port),
    }


def start_nodes(told: Attempt, directory: Path) -> list[subprocess.Popen[bytes]]:
    """Two machines: nothing but the bucket and a port is common to them."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "perseid.stages.nodes", "finetune", json.dumps(told.arguments())]
    own = {PUSH_SECONDS: "0.3", "OMP_NUM_THREADS": "1", "PERSEID_DIE_WITH": str(os.getpid())}
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **variables(node, port), **own, SCRATCH_DIRECTORY: str(directory / f"node-{node}")},
        )
        for node in range(2)
    ]


def until(condition: Callable[[], bool], machines: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert all(node.poll() is None for node in machines), "a node has ended"
        assert time.monotonic() < deadline
        time.sleep(0.05)  # objects can only be looked at


def stored_checkpoint(root: str) -> bool:
    found = read_index(Objects(root), KEY)
    return found is not None and any(name.endswith(".pt") for name in found[0].files)


def result(root: str) -> StageResult | None:
    found = Objects(root).read(f"{KEY}/{RESULT}")
    return None if found is None else StageResult.model_validate_json(found[0])


# Slow (40 s): four times a node and a process that trains import torch and transformers, and there are 150 steps.
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_nodes_learn_what_one_learns_though_one_of_them_is_killed_in_the_middle(root: str, tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", make_model())
    told = attempt(root, base)
    run_stage("convert", told, converted)

    machines = start_nodes(told, tmp_path / "first")
    try:
        until(lambda: stored_checkpoint(root), machines)
        machines[1].kill()
        assert machines[0].wait(PATIENCE_SECONDS) == 1, "one node alone went on"
    finally:
        for node in machines:
            node.kill()
            node.wait()
    failed = result(root)
    assert failed is not None
    assert failed.state == "failed"
    assert failed.error is not None
    assert "one of the 2 processes that trained on 2 nodes has ended" in failed.error

    machines = start_nodes(told, tmp_path / "second")
    try:
        assert [node.wait(PATIENCE_SECONDS) for node in machines] == [0, 0]
    finally:
        for node in machines:
            node.kill()
            node.wait()
    done = result(root)
    assert done is not None
    assert (done.state, done.counts) == ("done", {"samples": 10, "steps": 150})
    index = read_index(Objects(root), KEY)
    assert index is not None
    left = {name.partition("/")[0] for name in index[0].files}
    assert left == {"model", "progress.json"}, "something is left of calls and checkpoints"

    model = RemoteModel(f"{root}/{KEY}/model")
    model.fetch_settings()
    model.fetch_weights()
    manifest = read_manifest(model.path)
    assert manifest is not None
    assert manifest.metrics.steps == 150
    alone = fine_tune(
        SAMPLES_OF_CONVERT, base, tmp_path / "alone", tmp_path / "work", told.run.spec.finetune, seed=manifest.seed,
        dtype="float32",
    )  # fmt: skip
    assert (alone.manifest.data_digest, alone.manifest.config_digest) == (manifest.data_digest, manifest.config_digest)
    assert manifest.metrics.final_loss == pytest.approx(alone.manifest.metrics.final_loss, rel=0.02)
    ours, theirs, start = (load_file(path / "model.safetensors") for path in (model.path, alone.path, base))
    moved = sum(float((theirs[name] - start[name]).abs().sum()) for name in start)
    apart = sum(float((theirs[name] - ours[name]).abs().sum()) for name in start)
    assert moved > 0
    assert apart < 0.001 * moved, "further apart than rounding goes"


class Helper:
    """Another machine's look at the stage, whose trainings are only noted."""

    def __init__(self, told: Attempt, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(SCRATCH_DIRECTORY, str(scratch))
        layout = Layout.of(told)
        directory = layout.stage("finetune")
        directory.mkdir(parents=True)
        progress = ProgressWriter(directory / "progress.json", "finetune")
        self.context = StageContext(told, layout, directory, progress, StageStorage(layout, "finetune"))
        self.heard: set[str] = set()
        self.trained: list[tuple[list[TrainingSample], Path, float, dict[str, Any]]] = []
        monkeypatch.setattr(calls, "fine_tune_in_processes", self._train)

    def look(self) -> int:
        """Trainings that it was called to so far."""
        answer_calls(self.context, World(1, 2, 1, "here", 1), self.heard)
        return len(self.trained)

    def _train(self, world: World, samples: Any, base: Path, output: Path, work: Path, spec: Any, **more: Any) -> None:
        self.trained.append((samples, base, spec.learning_rate, more))


def test_another_node_is_called_once_and_gets_the_base_that_the_stage_itself_has_made(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = attempt(root, "org/name")
    options = {"seed": 5, "dtype": "float32", "base_model_id": "made"}
    helper = Helper(told, tmp_path / "node-1", monkeypatch)

    async def body(context: StageContext) -> StageResult:
        made = write_model(context.directory / "rounds" / "001" / "model", make_model())
        base = BaseModel(str(made), resolve_model(str(made)))
        assert helper.look() == 0
        with calling(context, SAMPLES_OF_CONVERT, base, told.run.spec.finetune, options):
            assert [helper.look(), helper.look()] == [1, 1], "not called, or twice for one call"
        assert helper.look() == 1
        ((samples, found, rate, more),) = helper.trained
        assert (samples, rate, more) == (SAMPLES_OF_CONVERT, 1e-3, options)
        assert found != made
        ours, theirs = (load_file(path / "model.safetensors") for path in (found, made))
        assert all((ours[name] == theirs[name]).all() for name in theirs)
        return StageResult(stage="finetune", state="done")

    monkeypatch.setenv(SCRATCH_DIRECTORY, str(tmp_path / "node-0"))
    run_stage("finetune", told, body)
    index = read_index(Objects(root), KEY)
    assert index is not None
    assert not [name for name in index[0].files if name.startswith("nodes/")]


def test_a_call_of_a_try_that_was_killed_is_not_answered(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_model(tmp_path / "base", make_model())
    told = attempt(root, base)
    helper = Helper(told, tmp_path / "node-1", monkeypatch)
    monkeypatch.setenv(SCRATCH_DIRECTORY, str(tmp_path / "node-0"))

    async def killed(context: StageContext) -> StageResult:
        with calling(context, [], BaseModel(str(base), resolve_model(str(base))), told.run.spec.finetune, {}):
            DirectoryMirror(Objects(root), KEY, tmp_path / "next").take_over()
            assert helper.look() == 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage("finetune", told, killed)


def test_another_node_waits_for_an_outage_of_the_storage_and_not_where_it_is_refused(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = attempt(root, "org/name")
    helper = Helper(told, tmp_path / "node-1", monkeypatch)
    troubles: list[Exception] = [StorageError("no answer"), StorageError("no answer"), StorageRefusedError("no key")]
    slept: list[float] = []

    def trouble(*_: object) -> None:
        raise troubles.pop(0)

    monkeypatch.setattr(nodes, "answer_calls", trouble)
    monkeypatch.setattr(nodes.time, "sleep", slept.append)
    with pytest.raises(StorageRefusedError, match="no key"):
        nodes.help_train(helper.context, World(1, 2, 1, "here", 1))
    assert len(slept) == 2


def test_other_nodes_end_when_the_stage_is_done_without_having_trained(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = attempt(root, tmp_path, finetune={"minSamples": 100, "batchSize": 4})
    run_stage("convert", told, converted)
    for node in (0, 1):
        monkeypatch.setenv(SCRATCH_DIRECTORY, str(tmp_path / f"node-{node}"))
        for name, value in variables(node, 1).items():
            monkeypatch.setenv(name, value)
        run_node("finetune", told)
    done = result(root)
    assert done is not None
    assert done.counts == {"samples": 10, "steps": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"PET_NNODES": None}, "this process is on none"),
        ({"PET_NNODES": "3"}, "this process is one of 3"),
        ({"PET_MASTER_ADDR": None}, "does not say which node of a training this is"),
        ({"PET_NPROC_PER_NODE": "auto"}, "does not say which node of a training this is"),
    ],
)
def test_a_process_that_is_on_no_node_of_its_trainjob_says_what_is_wrong(
    changes: dict[str, str | None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**variables(0, 1), **changes}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match=message):
        run_node("finetune", attempt("s3://b/r", tmp_path))


def test_nodes_that_have_only_a_directory_in_common_are_told_to_use_object_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables(1, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StageError, match="meet in object storage"):
        run_node("finetune", attempt(str(tmp_path), tmp_path))
