"""Which weights go when a generation has been scored, and that nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perseid.api.attempt import Attempt
from perseid.api.layout import Layout
from perseid.api.spec import EvolutionRun
from perseid.stages.context import StageContext
from perseid.stages.progress import ProgressWriter
from perseid.stages.retention import delete_superseded_models, is_superseded

KEPT = (
    "generations/000/attempts/0/finetune/model/config.json",  # what generation 2 starts from
    "generations/000/attempts/0/finetune/model/model.safetensors",
    "generations/000/attempts/0/convert/samples.jsonl",
    "generations/001/attempts/0/finetune/model/perseid-model.json",  # how it was made stays
    "generations/001/attempts/0/finetune/metrics.jsonl",
    "generations/001/attempts/0/result.json",
    "generations/002/attempts/1/finetune/model/model.safetensors",
    "generations/002/attempts/1/self-assessment/rounds/001/model/model.safetensors",
    "generations/003/attempts/0/finetune/model/model.safetensors",  # nobody's business yet
    "evaluations/dev-1/model/scores.json",
    "model/model.safetensors",
)
DELETED = (
    "generations/000/attempts/1/finetune/model/model.safetensors",
    "generations/001/attempts/0/finetune/model/model.safetensors",
    "generations/001/attempts/0/self-assessment/rounds/001/work/checkpoint-7/state.pt",
    "generations/001/attempts/0/mentor-supervised/model/tokenizer/merges.txt",
    "generations/002/attempts/0/finetune/model/model.safetensors",
    "generations/002/attempts/0/finetune/work/checkpoint.pt",
)


def context_of(root: Path, start_model: str, **spec: Any) -> StageContext:
    run = EvolutionRun.model_validate({"metadata": {"name": "tiny"}, "spec": {"retainModels": "promoted", **spec}})
    run_id = "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11"
    attempt = Attempt(run=run, run_id=run_id, generation=2, number=1, storage=str(root), start_model=start_model)
    layout = Layout.of(attempt)
    directory = layout.stage("evaluate")
    directory.mkdir(parents=True, exist_ok=True)
    return StageContext(attempt, layout, directory, ProgressWriter(directory / "progress.json", "evaluate"))


def write_all(root: Path) -> None:
    for key in (*KEPT, *DELETED):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).touch()


def left(root: Path) -> set[str]:
    files = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return {name for name in files if "/evaluate/" not in name}


def test_only_the_start_model_and_the_newest_attempt_keep_their_weights(tmp_path: Path) -> None:
    write_all(tmp_path)
    start = tmp_path / "generations/000/attempts/0/finetune/model"
    delete_superseded_models(context_of(tmp_path, str(start)))
    assert left(tmp_path) == set(KEPT)
    delete_superseded_models(context_of(tmp_path, str(start)))
    assert left(tmp_path) == set(KEPT), "a second time changes nothing"


def test_a_generation_that_starts_from_elsewhere_needs_no_earlier_model(tmp_path: Path) -> None:
    write_all(tmp_path)
    delete_superseded_models(context_of(tmp_path, "embedded:smollm2-135m-instruct"))
    assert left(tmp_path) == {key for key in KEPT if not key.startswith("generations/000/attempts/0/finetune/model/")}


def test_everything_stays_by_default(tmp_path: Path) -> None:
    write_all(tmp_path)
    delete_superseded_models(context_of(tmp_path, "embedded:x", retainModels="all"))
    assert left(tmp_path) == {*KEPT, *DELETED}


def test_a_start_model_is_known_by_its_directory_and_not_by_how_its_name_begins(tmp_path: Path) -> None:
    start = tmp_path / "generations/000/attempts/1/finetune/model"
    context = context_of(tmp_path, str(start))
    assert not is_superseded(context, "generations/000/attempts/1/finetune/model/model.safetensors")
    assert is_superseded(context, "generations/000/attempts/10/finetune/model/model.safetensors")
    assert is_superseded(context, "generations/000/attempts/1/finetune/work/model-2")


def test_what_cannot_be_deleted_is_told_of_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_all(tmp_path)

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    delete_superseded_models(context_of(tmp_path, "embedded:x"))
    assert "could not be deleted" in caplog.text


def test_weights_that_a_newer_attempt_has_linked_stay_whole(tmp_path: Path) -> None:
    old = tmp_path / "generations/002/attempts/0/finetune/model/model.safetensors"
    new = tmp_path / "generations/002/attempts/1/finetune/model/model.safetensors"
    for path in (old, new):
        path.parent.mkdir(parents=True)
    old.write_bytes(b"weights")
    new.hardlink_to(old)
    delete_superseded_models(context_of(tmp_path, "embedded:x"))
    assert not old.exists()
    assert new.read_bytes() == b"weights"
