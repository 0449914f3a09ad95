from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from perseid.api.meteor import SelfEvolutionSpec
from perseid.api.training import FinetuneSpec, LoraSpec
from perseid.data.records import PreferencePair
from perseid.engines.identity import content_id
from perseid.training.errors import TrainingError
from perseid.training.finetune import fine_tune
from perseid.training.job import TrainingResult
from perseid.training.manifest import read_manifest
from perseid.training.preference import prefer
from perseid.training.trainer import TrainingProgress

pytestmark = pytest.mark.slow  # each test trains a model, if a tiny one, and one starts a process to kill

OBJECTIVES = ("dpo", "ipo", "contrastive")


@pytest.fixture
def pairs() -> list[PreferencePair]:
    return [
        PreferencePair(
            id=f"p{i}",
            question_id=f"q{i}",
            prompt=f"say {'n' * i} {i}",
            chosen=f"{i} is {'x' * (3 * i % 7)}!",
            rejected=f"no {'y' * (5 * i % 11)}{i}",
        )
        for i in range(10)
    ]


def spec(**changes: object) -> SelfEvolutionSpec:
    return SelfEvolutionSpec.model_validate({"learning_rate": 3e-3, "margin": 0.5} | changes)


def finetune(**changes: object) -> FinetuneSpec:
    fields: dict[str, object] = {"epochs": 2.0, "batch_size": 4, "max_length": 128, "checkpoint_steps": 2}
    return FinetuneSpec.model_validate(fields | changes)


def train(
    pairs: list[PreferencePair],
    base: Path,
    root: Path,
    what: SelfEvolutionSpec,
    how: FinetuneSpec,
    name: str = "model",
    **options: object,
) -> TrainingResult:
    arguments: dict[str, object] = {"seed": 5, "dtype": "float32"} | options
    return prefer(pairs, base, root / name, root / f"work-{name}", what, how, **arguments)  # type: ignore[arg-type]


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, progress: TrainingProgress) -> None:
        if progress.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_chosen_answers_become_likelier_than_the_rejected_ones(
    pairs: list[PreferencePair], base: Path, tmp_path: Path, objective: str, method: str
) -> None:
    how = finetune(method=method, epochs=6.0)
    result = train(pairs, base, tmp_path, spec(objective=objective), how)
    metrics, preference = result.manifest.metrics, result.manifest.preference
    assert preference is not None
    assert preference.after.margin > preference.before.margin
    assert preference.after.accuracy >= preference.before.accuracy
    assert preference.raised >= 0.8
    assert metrics.final_loss < metrics.first_loss
    assert (metrics.samples, preference.pairs, metrics.steps, metrics.layout) == (10, 10, 15, "packed")
    assert len(metrics.curve) == 15


def test_the_supervised_term_holds_the_chosen_answers_likelihood_up(
    pairs: list[PreferencePair], base: Path, tmp_path: Path
) -> None:
    how = finetune(method="full", epochs=6.0)
    alone = train(pairs, base, tmp_path, spec(), how, "alone").manifest.preference
    beside = train(pairs, base, tmp_path, spec(supervised_weight=1.0), how, "beside").manifest.preference
    assert alone is not None
    assert beside is not None
    assert alone.before == beside.before
    assert beside.after.chosen > max(alone.after.chosen, beside.before.chosen)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_that_was_interrupted_ends_with_the_very_weights_of_an_undisturbed_one(
    pairs: list[PreferencePair], base: Path, tmp_path: Path, objective: str, method: str
) -> None:
    # dropout: randomness must be restored too
    what, how = spec(objective=objective), finetune(method=method, lora=LoraSpec(rank=4, dropout=0.3))
    quiet: list[TrainingProgress] = []
    whole = train(pairs, base, tmp_path, what, how, "whole", on_progress=quiet.append)
    with pytest.raises(KeyboardInterrupt):
        train(pairs, base, tmp_path, what, how, "resumed", on_progress=StopAt(3))
    assert not (tmp_path / "resumed").exists()
    rest: list[TrainingProgress] = []
    resumed = train(pairs, base, tmp_path, what, how, "resumed", on_progress=rest.append)
    assert resumed.resumed_from_step == 2
    assert [p.loss for p in rest] == [p.loss for p in quiet[2:]]
    assert resumed.manifest.metrics.curve == whole.manifest.metrics.curve
    assert resumed.manifest.preference == whole.manifest.preference
    assert resumed.manifest.model_id == whole.manifest.model_id
    ours, theirs = (load_file(result.path / "model.safetensors") for result in (whole, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert list((tmp_path / "work-resumed").iterdir()) == []


# Starts a process that imports torch and transformers and is killed while it trains: seconds.
def test_a_killed_run_goes_on_with_the_reference_that_it_had_measured(
    pairs: list[PreferencePair], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(pairs, base, tmp_path, spec(), finetune(), "whole")
    (tmp_path / "pairs.jsonl").write_text("".join(pair.model_dump_json() + "\n" for pair in pairs))
    script = f"""
import os, signal
from pathlib import Path
import torch
from perseid.api.meteor import SelfEvolutionSpec
from perseid.api.training import FinetuneSpec
from perseid.data.records import PreferencePair
from perseid.training.preference import prefer
torch.set_num_threads(1)
root = Path({str(tmp_path)!r})
pairs = [PreferencePair.model_validate_json(line) for line in (root / "pairs.jsonl").read_text().splitlines()]
def killed(progress):
    if progress.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
prefer(pairs, Path({str(base)!r}), root / "model", root / "work-model",
       SelfEvolutionSpec.model_validate_json({spec().model_dump_json()!r}),
       FinetuneSpec.model_validate_json({finetune().model_dump_json()!r}), seed=5, dtype="float32", on_progress=killed)
"""
    components = str(Path(__file__).parents[2] / "components")
    process = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": components}, check=False, timeout=300
    )
    assert process.returncode == -signal.SIGKILL
    [directory] = (tmp_path / "work-model").iterdir()
    assert {path.name for path in directory.iterdir()} == {"reference.json", "step-00000002.pt"}
    (directory / "reference.tmp").write_text("half")  # as a kill while writing leaves it

    def measured_anew(*_: object) -> None:
        raise AssertionError("the reference was written again")

    monkeypatch.setattr("perseid.training.preference.save_reference", measured_anew)
    result = train(pairs, base, tmp_path, spec(), finetune())
    assert result.resumed_from_step == 2
    assert result.manifest.model_id == whole.manifest.model_id
    assert list((tmp_path / "work-model").iterdir()) == []


def test_a_broken_reference_is_named(pairs: list[PreferencePair], base: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(pairs, base, tmp_path, spec(), finetune(), on_progress=StopAt(2))
    [path] = (tmp_path / "work-model").rglob("reference.json")
    path.write_text('{"p0": [1.0')
    with pytest.raises(TrainingError, match=r"reference\.json does not hold the pairs' log-probabilities .* Delete it"):
        train(pairs, base, tmp_path, spec(), finetune())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_one_pair_in_a_step_has_a_finite_loss(
    pairs: list[PreferencePair], base: Path, tmp_path: Path, objective: str, dtype: str
) -> None:
    seen: list[TrainingProgress] = []
    what = spec(objective=objective, supervised_weight=0.1)
    result = train(pairs[:1], base, tmp_path, what, finetune(batch_size=1), dtype=dtype, on_progress=seen.append)
    assert len(seen) == 2
    # A loss or gradient that is no number stops the run; that the margin moved says that there was a gradient.
    assert result.manifest.preference is not None
    assert result.manifest.preference.after != result.manifest.preference.before


def test_the_manifest_says_what_it_was_made_of(pairs: list[PreferencePair], base: Path, tmp_path: Path) -> None:
    manifest = train(pairs, base, tmp_path, spec(objective="ipo", beta=0.3), finetune(), base_ref="org/base").manifest
    assert manifest == read_manifest(tmp_path / "model")
    assert manifest.model_id == content_id(tmp_path / "model")
    assert (manifest.base_model_id, manifest.base_ref) == (content_id(base), "org/base")
    assert manifest.spec == finetune(learning_rate=3e-3)
    assert manifest.preference is not None
    objective = manifest.preference.objective
    assert (objective.type, objective.beta, objective.margin, objective.supervised_weight) == ("ipo", 0.3, None, 0.0)


def test_a_finished_model_is_returned_at_once_and_another_one_is_not_overwritten(
    pairs: list[PreferencePair], base: Path, tmp_path: Path
) -> None:
    first = train(pairs, base, tmp_path, spec(), finetune())
    calls: list[TrainingProgress] = []
    # What does not change the weights does not ask for others: the hinge's margin, and how pairs are decoded.
    second = train(
        pairs, base, tmp_path, spec(margin=0.1, samples=4, max_turns=7), finetune(), on_progress=calls.append
    )
    assert (first.reused, second.reused, calls) == (False, True, [])
    assert second.manifest == first.manifest
    for changed in (spec(beta=0.2), spec(objective="ipo"), spec(supervised_weight=0.5), spec(learning_rate=1e-4)):
        with pytest.raises(TrainingError, match="another configuration"):
            train(pairs, base, tmp_path, changed, finetune())
    with pytest.raises(TrainingError, match="other data"):
        train(pairs[:-1], base, tmp_path, spec(), finetune())


def test_a_model_of_answers_is_not_taken_for_one_of_preferences(
    pairs: list[PreferencePair], base: Path, tmp_path: Path
) -> None:
    from perseid.data.records import TrainingSample

    samples = [TrainingSample(id=p.id, problem_id=p.question_id, prompt=p.prompt, answer=p.chosen) for p in pairs]
    result = fine_tune(samples, base, tmp_path / "model", tmp_path / "work", finetune(), seed=5, dtype="float32")
    assert result.manifest.preference is None
    with pytest.raises(TrainingError, match="another configuration"):
        train(pairs, base, tmp_path, spec(), finetune())


def test_pairs_that_cannot_be_learned_from_are_dropped_and_the_others_are_learned(
    pairs: list[PreferencePair], base: Path, tmp_path: Path
) -> None:
    equal = pairs[0].model_copy(update={"id": "equal", "rejected": pairs[0].chosen})
    long_one = pairs[1].model_copy(update={"id": "long", "rejected": "z" * 300})
    manifest = train([equal, *pairs, long_one], base, tmp_path, spec(), finetune()).manifest
    assert [(drop.id, drop.problem_id, drop.reason) for drop in manifest.dropped] == [
        ("equal", "q0", "equal-answers"),
        ("long", "q1", "too-long"),
    ]
    assert manifest.metrics.samples + len(manifest.dropped) == len(pairs) + 2
    with pytest.raises(TrainingError, match=r"none of 2 pairs can be learned from.*equal-answers.*too-long"):
        train([equal, long_one], base, tmp_path, spec(), finetune(), "none")
    with pytest.raises(TrainingError, match="none given"):
        train([], base, tmp_path, spec(), finetune(), "none")


def test_every_layout_learns_the_same(pairs: list[PreferencePair], base: Path, tmp_path: Path) -> None:
    how = {"method": "full"}
    packed = train(pairs, base, tmp_path, spec(), finetune(packing="padding-free", **how), "packed").manifest.metrics
    padded = train(pairs, base, tmp_path, spec(), finetune(packing="padded", **how), "padded").manifest.metrics
    assert (packed.layout, padded.layout) == ("packed", "padded")
    assert packed.first_loss == pytest.approx(padded.first_loss, rel=1e-4)
    assert packed.final_loss == pytest.approx(padded.final_loss, rel=1e-3)


def test_weights_that_are_not_numbers_are_found_before_the_first_step(
    pairs: list[PreferencePair], tmp_path: Path
) -> None:
    from tiny_llama import make_model, write_model

    sick = make_model()
    with torch.no_grad():
        sick.model.norm.weight[:] = float("nan")
    (tmp_path / "sick").mkdir()
    with pytest.raises(TrainingError, match=r"pair p\d: .* not finite"):
        train(pairs, write_model(tmp_path / "sick", sick), tmp_path, spec(), finetune())
    assert not list((tmp_path / "work-model").rglob("*.*"))


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_step_and_pairs(
    pairs: list[PreferencePair], base: Path, tmp_path: Path
) -> None:
    what = spec(objective="ipo", learning_rate=0.99)

    def poison(progress: TrainingProgress) -> None:
        [path] = (tmp_path / "work-model").rglob("*.pt") if progress.step == 2 else [None]
        if path is not None:
            content = torch.load(path, weights_only=True)
            content["weights"] = {name: value * float("nan") for name, value in content["weights"].items()}
            torch.save(content, path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(pairs, base, tmp_path, what, finetune(), on_progress=poison)
    with pytest.raises(TrainingError, match=r"loss of step 3 of 5 is nan \(pairs p\d, .*selfEvolution\.learningRate"):
        train(pairs, base, tmp_path, what, finetune())


def test_training_leaves_the_callers_randomness_alone(pairs: list[PreferencePair], base: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train(pairs, base, tmp_path, spec(), finetune())
    assert torch.equal(before, torch.get_rng_state())
