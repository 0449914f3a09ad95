from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from perseid.api.training import FinetuneSpec, LoraSpec
from perseid.data.records import TrainingSample
from perseid.engines.identity import content_id
from perseid.training.checkpoint import load_checkpoint
from perseid.training.errors import TrainingError
from perseid.training.finetune import TrainingResult, fine_tune
from perseid.training.manifest import read_manifest
from perseid.training.model import merged
from perseid.training.trainer import TrainingProgress
from tiny_llama import make_model

pytestmark = pytest.mark.slow  # each test trains a model, if a tiny one, and some start processes to kill


def spec(**changes: object) -> FinetuneSpec:
    fields: dict[str, object] = {"epochs": 2.0, "batch_size": 4, "max_length": 128, "checkpoint_steps": 2}
    return FinetuneSpec.model_validate(fields | changes)


def train(
    samples: list[TrainingSample], base: Path, root: Path, how: FinetuneSpec, name: str = "model", **options: object
) -> TrainingResult:
    arguments: dict[str, object] = {"seed": 5, "dtype": "float32"} | options
    return fine_tune(samples, base, root / name, root / f"work-{name}", how, **arguments)  # type: ignore[arg-type]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


class StopAt:
    def __init__(self, step: int) -> None:
        self.step, self.seen = step, list[TrainingProgress]()

    def __call__(self, progress: TrainingProgress) -> None:
        self.seen.append(progress)
        if progress.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_that_was_interrupted_ends_with_the_very_weights_of_an_undisturbed_one(
    samples: list[TrainingSample], base: Path, tmp_path: Path, method: str
) -> None:
    how = spec(method=method, lora=LoraSpec(rank=4, dropout=0.3))  # dropout: randomness must be restored too
    quiet: list[TrainingProgress] = []
    whole = train(samples, base, tmp_path, how, "whole", on_progress=quiet.append)
    stopped = StopAt(3)
    with pytest.raises(KeyboardInterrupt):
        train(samples, base, tmp_path, how, "resumed", on_progress=stopped)
    assert not (tmp_path / "resumed").exists()
    rest: list[TrainingProgress] = []
    resumed = train(samples, base, tmp_path, how, "resumed", on_progress=rest.append)
    assert resumed.resumed_from_step == 2
    assert [p.step for p in rest] == [3, 4, 5]
    assert [p.loss for p in rest] == [p.loss for p in quiet[2:]]
    assert resumed.manifest.metrics.curve == whole.manifest.metrics.curve
    ours, theirs = weights(whole.path), weights(resumed.path)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert whole.manifest.model_id == resumed.manifest.model_id


def test_other_seeds_give_other_weights(samples: list[TrainingSample], base: Path, tmp_path: Path) -> None:
    one = train(samples, base, tmp_path, spec(), "one", seed=1)
    two = train(samples, base, tmp_path, spec(), "two", seed=2)
    assert one.manifest.model_id != two.manifest.model_id


# Starts a process that imports torch and transformers and is killed while it trains: seconds.
def test_a_kill_leaves_a_checkpoint_to_go_on_from(samples: list[TrainingSample], base: Path, tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text("".join(s.model_dump_json() + "\n" for s in samples))
    script = f"""
import os, signal
from pathlib import Path
from perseid.api.training import FinetuneSpec
from perseid.data.records import TrainingSample
from perseid.training.finetune import fine_tune
root = Path({str(tmp_path)!r})
samples = [TrainingSample.model_validate_json(line) for line in (root / "samples.jsonl").read_text().splitlines()]
def killed(progress):
    if progress.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
fine_tune(samples, Path({str(base)!r}), root / "model", root / "work-model",
          FinetuneSpec.model_validate_json({spec().model_dump_json()!r}), seed=5, dtype="float32", on_progress=killed)
"""
    components = str(Path(__file__).parents[2] / "components")
    process = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": components}, check=False, timeout=300
    )
    assert process.returncode == -signal.SIGKILL
    [directory] = (tmp_path / "work-model").iterdir()
    checkpoint = load_checkpoint(directory)
    assert checkpoint is not None
    assert checkpoint.step == 2
    (directory / "step-00000004.tmp").write_bytes(b"half a checkpoint")  # as a kill while writing leaves it
    assert train(samples, base, tmp_path, spec()).resumed_from_step == 2


def test_only_the_newest_checkpoint_is_kept_and_none_after_the_end(
    samples: list[TrainingSample], base: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(samples, base, tmp_path, spec(checkpoint_steps=1), on_progress=StopAt(4))
    assert [p.name for p in (tmp_path / "work-model").rglob("*.*")] == ["step-00000004.pt"]
    result = train(samples, base, tmp_path, spec(checkpoint_steps=1))
    assert result.resumed_from_step == 4
    assert list((tmp_path / "work-model").iterdir()) == []


def test_a_broken_checkpoint_is_named(samples: list[TrainingSample], base: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(samples, base, tmp_path, spec(), on_progress=StopAt(2))
    [path] = (tmp_path / "work-model").rglob("*.pt")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"step-00000002\.pt cannot be read"):
        train(samples, base, tmp_path, spec())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_four_samples_are_learned_by_heart(
    samples: list[TrainingSample], base: Path, tmp_path: Path, method: str
) -> None:
    how = spec(method=method, epochs=120.0, learning_rate=1e-2 if method == "lora" else 3e-3, checkpoint_steps=50)
    result = train(samples[:4], base, tmp_path, how)
    metrics = result.manifest.metrics
    assert metrics.steps == 120
    assert metrics.final_loss < 0.2 * metrics.first_loss
    tokenizer = AutoTokenizer.from_pretrained(result.path)
    model = AutoModelForCausalLM.from_pretrained(result.path)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": samples[1].prompt}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    answer = model.generate(input_ids=prompt, max_new_tokens=40, do_sample=False)[0, prompt.shape[1] :]
    assert tokenizer.decode(answer) == samples[1].answer + "<|im_end|>"


def test_lora_trains_far_fewer_parameters_than_full(samples: list[TrainingSample], base: Path, tmp_path: Path) -> None:
    lora = train(samples, base, tmp_path, spec(lora=LoraSpec(rank=2)), "lora").manifest.metrics
    full = train(samples, base, tmp_path, spec(method="full"), "full").manifest.metrics
    assert full.trained_parameters == sum(p.numel() for p in make_model().parameters())
    assert lora.trained_parameters < 0.1 * full.trained_parameters


def test_merged_weights_answer_as_the_adapters_did() -> None:
    adapted = get_peft_model(make_model(), LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    tokens = torch.arange(2, 40)[None]
    with torch.no_grad():
        before, plain = adapted(input_ids=tokens).logits, make_model()(input_ids=tokens).logits
        after = merged(adapted)(input_ids=tokens).logits
    assert not torch.allclose(before, plain, atol=1e-2)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_output_is_a_whole_model_directory_in_the_dtype_asked_for(
    samples: list[TrainingSample], base: Path, tmp_path: Path, dtype: str, method: str
) -> None:
    result = train(samples, base, tmp_path, spec(method=method), dtype=dtype, base_ref="org/base")
    names = {path.name for path in result.path.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    assert {"tokenizer_config.json", "chat_template.jinja", "perseid-model.json"} <= names
    assert str(base) not in (result.path / "config.json").read_text()
    assert json.loads((result.path / "config.json").read_text())["dtype"] == dtype
    assert {tensor.dtype for tensor in weights(result.path).values()} == {getattr(torch, dtype)}
    assert result.manifest == read_manifest(result.path)
    assert result.manifest.model_id == content_id(result.path)
    assert (result.manifest.base_model_id, result.manifest.base_ref) == (content_id(base), "org/base")
    assert result.manifest.metrics.final_loss < result.manifest.metrics.first_loss
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_finished_model_is_returned_at_once_and_another_one_is_not_overwritten(
    samples: list[TrainingSample], base: Path, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()  # an empty directory is no obstacle
    first = train(samples, base, tmp_path, spec())
    calls: list[TrainingProgress] = []
    second = train(samples, base, tmp_path, spec(), on_progress=calls.append)
    assert (first.reused, second.reused, calls) == (False, True, [])
    assert second.manifest == first.manifest
    with pytest.raises(TrainingError, match="other data"):
        train(samples[:-1], base, tmp_path, spec())
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes").write_text("mine")
    with pytest.raises(TrainingError, match=r"not a model of Perseid"):
        train(samples, base, tmp_path, spec(), "foreign")


def test_a_long_sample_is_dropped_and_the_counts_add_up(
    samples: list[TrainingSample], base: Path, tmp_path: Path
) -> None:
    long_one = samples[0].model_copy(update={"id": "long", "answer": "x" * 500})
    manifest = train([*samples, long_one], base, tmp_path, spec()).manifest
    assert [(drop.id, drop.reason) for drop in manifest.dropped] == [("long", "too-long")]
    assert manifest.metrics.samples + len(manifest.dropped) == len(samples) + 1
    with pytest.raises(TrainingError, match="too-long"):
        train([long_one], base, tmp_path, spec(), "none")


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_step_and_samples(
    samples: list[TrainingSample], base: Path, tmp_path: Path
) -> None:
    sick = make_model()
    with torch.no_grad():
        sick.model.norm.weight[:] = float("nan")
    directory = tmp_path / "sick"
    sick.save_pretrained(directory)
    AutoTokenizer.from_pretrained(base).save_pretrained(directory)
    with pytest.raises(TrainingError, match=r"loss of step 1 of 5 is nan \(samples s\d, "):
        train(samples, directory, tmp_path, spec())
    assert not list((tmp_path / "work-model").rglob("*.pt"))


def test_padding_gives_the_weights_of_no_padding(samples: list[TrainingSample], base: Path, tmp_path: Path) -> None:
    free = train(samples, base, tmp_path, spec(packing="padding-free", method="full"), "free")
    padded = train(samples, base, tmp_path, spec(packing="padded", method="full"), "padded")
    assert (free.manifest.metrics.layout, padded.manifest.metrics.layout) == ("packed", "padded")
    assert free.manifest.metrics.first_loss == pytest.approx(padded.manifest.metrics.first_loss, rel=1e-4)
    assert free.manifest.metrics.final_loss == pytest.approx(padded.manifest.metrics.final_loss, rel=1e-3)


def test_training_leaves_the_callers_randomness_alone(
    samples: list[TrainingSample], base: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train(samples, base, tmp_path, spec())
    assert torch.equal(before, torch.get_rng_state())
