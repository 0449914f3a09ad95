"""Training by two processes of a machine without GPUs, which talk through gloo, against training by one."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from perseid.api.training import FinetuneSpec, LoraSpec
from perseid.data.records import TrainingSample
from perseid.training.checkpoint import load_checkpoint
from perseid.training.errors import TrainingError
from perseid.training.finetune import fine_tune
from perseid.training.several import fine_tune_in_processes
from perseid.training.trainer import TrainingProgress
from perseid.training.world import World

# Slow: each training starts a launcher and two processes that import torch and transformers.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def spec(**changes: object) -> FinetuneSpec:
    fields: dict[str, object] = {"epochs": 2.0, "batch_size": 3, "max_length": 128, "checkpoint_steps": 2}
    return FinetuneSpec.model_validate(fields | changes)


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def training_processes(pid: int) -> list[int]:
    """Those that train, without their launcher: the process of the tests has other children, too."""
    found = [(one, Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0")) for one in descendants(pid)]
    return [
        one for one, words in found if b"perseid.training.several" in words and b"torch.distributed.run" not in words
    ]


# Batches of 3 on 2 processes: they differ in the samples that they get, and the last step has fewer samples than that.
@pytest.mark.parametrize(("method", "dtype"), [("lora", "bfloat16"), ("full", "float32")])
def test_two_processes_learn_what_one_learns_and_go_on_where_they_were_killed(
    samples: list[TrainingSample], base: Path, tmp_path: Path, method: str, dtype: Any
) -> None:
    how = spec(method=method, lora=LoraSpec(rank=4))
    alone: list[TrainingProgress] = []
    one = fine_tune(
        samples, base, tmp_path / "one", tmp_path / "work-1", how, seed=5, dtype=dtype, on_progress=alone.append
    )
    together: list[TrainingProgress] = []

    def killed_at_3(progress: TrainingProgress) -> None:
        together.append(progress)
        if progress.step == 3:
            _, last = training_processes(os.getpid())
            os.kill(last, signal.SIGKILL)

    arguments: Any = (World(2), samples, base, tmp_path / "two", tmp_path / "work-2", how)
    with pytest.raises(TrainingError, match="one of the 2 processes that trained has ended"):
        fine_tune_in_processes(*arguments, seed=5, dtype=dtype, on_progress=killed_at_3)
    assert not (tmp_path / "two").exists()
    (directory,) = (path for path in (tmp_path / "work-2").iterdir() if path.name.startswith("finetune-"))
    checkpoint = load_checkpoint(directory)
    assert checkpoint is not None
    assert checkpoint.step >= 2

    two = fine_tune_in_processes(*arguments, seed=5, dtype=dtype, on_progress=together.append)
    assert two is not None
    assert two.resumed_from_step == checkpoint.step
    by_step = {one.step: one for one in together}
    # The first try may have come to its next checkpoint and been killed before it told of that step.
    surely_told = {one.step for one in alone if one.step <= 3 or one.step > checkpoint.step}
    assert surely_told <= by_step.keys()
    tolerance = 1e-4 if dtype == "float32" else 2e-2
    for expected in (one for one in alone if one.step in by_step):
        found = by_step[expected.step]
        assert found.loss == pytest.approx(expected.loss, rel=tolerance), expected.step
        assert found.learning_rate == expected.learning_rate
    assert two.manifest.metrics.trained_parameters == one.manifest.metrics.trained_parameters
    ours, theirs = (load_file(result.path / "model.safetensors") for result in (two, one))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name].float(), theirs[name].float(), atol=1e-2) for name in ours)
    start = load_file(base / "model.safetensors")
    moved = sum(float((theirs[name].float() - start[name].float()).abs().sum()) for name in start)
    apart = sum(float((theirs[name].float() - ours[name].float()).abs().sum()) for name in start)
    assert apart < 0.05 * moved, "as far apart as from where they began"


def test_what_is_wrong_with_the_base_is_told_as_by_one_process(samples: list[TrainingSample], tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(TrainingError, match="holds no tokenizer that transformers can load"):
        fine_tune_in_processes(
            World(2), samples, tmp_path / "base", tmp_path / "o", tmp_path / "w", spec(), seed=1, dtype="float32",
            base_model_id="b",
        )  # fmt: skip


def test_a_killed_stage_takes_the_processes_that_train_for_it_with_it(
    samples: list[TrainingSample], base: Path, tmp_path: Path
) -> None:
    (tmp_path / "samples.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in samples))
    script = f"""
from pathlib import Path
from perseid.api.training import FinetuneSpec
from perseid.data.jsonl import read_jsonl
from perseid.data.records import TrainingSample
from perseid.training.several import fine_tune_in_processes
from perseid.training.world import World
root = Path({str(tmp_path)!r})
fine_tune_in_processes(
    World(2), read_jsonl(root / "samples.jsonl", TrainingSample), Path({str(base)!r}), root / "model", root / "work",
    FinetuneSpec.model_validate_json({spec(epochs=1000.0).model_dump_json()!r}), seed=5, dtype="float32",
    on_progress=lambda progress: print(progress.step, flush=True),
)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "components")}
    stage = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
    try:
        assert stage.stdout is not None
        assert stage.stdout.readline() == b"1\n", "it ended before its first step"
        handles = [os.pidfd_open(pid) for pid in descendants(stage.pid)]
    finally:
        stage.kill()
        stage.wait()
    assert len(handles) >= 3, "the launcher and its two processes"
    for handle in handles:
        assert select.select([handle], [], [], 60)[0], "a process has outlived the stage"
