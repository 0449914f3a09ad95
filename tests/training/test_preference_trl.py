"""Value and gradient of our losses beside trl's, by its own encoding, collator and trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from perseid.data.records import PreferencePair
from perseid.training.manifest import PairObjective
from perseid.training.objective import Forwarding
from perseid.training.pair_loss import PairPreference
from perseid.training.pairs import encode_pairs
from perseid.training.reference import measure_pairs
from tiny_llama import make_model

pytestmark = pytest.mark.slow  # importing trl's trainer takes many seconds


@pytest.mark.parametrize("pairs_in_step", [1, 4])
@pytest.mark.parametrize("supervised_weight", [0.0, 0.7])
@pytest.mark.parametrize(("objective", "loss_type", "beta"), [("dpo", "sigmoid", 0.1), ("ipo", "ipo", 0.5)])
def test_a_step_has_the_loss_and_gradient_of_trls(
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    objective: str,
    loss_type: str,
    beta: float,
    supervised_weight: float,
    pairs_in_step: int,
) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    pairs = [
        PreferencePair(
            id=f"p{i}", question_id=f"q{i}", prompt=f"say {'n' * i}", chosen=f"{i} is {'x' * i}!", rejected=f"{i} no"
        )
        for i in range(pairs_in_step)
    ]
    rows = [
        {
            "prompt": tokenizer.apply_chat_template(
                [{"role": "user", "content": pair.prompt}], tokenize=False, add_generation_prompt=True
            ),
            "chosen": pair.chosen + "<|im_end|>",
            "rejected": pair.rejected + "<|im_end|>",
        }
        for pair in pairs
    ]
    weighted = supervised_weight > 0.0
    trainer = DPOTrainer(
        model=make_model(seed=2),
        ref_model=make_model(seed=1),
        args=DPOConfig(
            output_dir=str(tmp_path),
            loss_type=[loss_type, "sft"] if weighted else [loss_type],
            loss_weights=[1.0, supervised_weight] if weighted else None,
            beta=beta,
            per_device_train_batch_size=pairs_in_step,
            gradient_checkpointing=False,
            use_cpu=True,
            bf16=False,
            report_to="none",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    theirs = trainer.model
    [batch] = trainer.get_train_dataloader()
    loss = trainer.compute_loss(theirs, batch)
    loss.backward()

    encoded, dropped = encode_pairs(pairs, tokenizer, {1}, 512)
    assert dropped == []
    how = Forwarding("packed", 4096, padding=1, device=torch.device("cpu"), picks_logits=True)
    reference = measure_pairs(make_model(seed=1), encoded, "float32", how)
    ours = make_model(seed=2)
    settings = PairObjective.model_validate(
        {"type": objective, "beta": beta, "margin": None, "supervised_weight": supervised_weight}
    )
    [forward_pass] = PairPreference(settings, reference).forward_passes(encoded, encoded, 1.0, how)
    our_loss = forward_pass.loss(ours)
    our_loss.backward()

    assert float(our_loss.detach()) == pytest.approx(float(loss.detach()), rel=1e-4)
    found = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, found[name].grad, rtol=1e-3, atol=1e-4)
