from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from perseid.data.records import TrainingSample
from perseid.training.batching import Layout, pack, pad, step_batches
from perseid.training.encode import EncodedSample, encode_samples
from perseid.training.loss import answer_logits, answer_loss, can_pick_logits, keeps_packed_samples_apart
from perseid.training.objective import AnswerLikelihood, Forwarding
from tiny_llama import make_model


@pytest.fixture
def encoded(tokenizer: PreTrainedTokenizerFast, samples: list[TrainingSample]) -> list[EncodedSample]:
    return encode_samples(samples, tokenizer, {1}, 512)[0]


@pytest.fixture(params=["sdpa", "eager"])
def model(request: pytest.FixtureRequest) -> LlamaForCausalLM:
    made = make_model()
    made.set_attn_implementation(request.param)
    return made


def expected_loss(model: LlamaForCausalLM, samples: list[EncodedSample]) -> float:
    """Token-weighted loss of the samples one by one, by the model's own loss."""
    total = 0.0
    for sample in samples:
        mean = model(input_ids=torch.tensor([sample.tokens]), labels=torch.tensor([sample.labels])).loss
        total += float(mean.detach()) * sample.answer_length
    return total


@pytest.mark.parametrize("layout", ["packed", "single", "padded"])
@pytest.mark.parametrize("picks_logits", [True, False])
@pytest.mark.parametrize("tokens_per_forward", [100, 4096])
def test_every_layout_has_the_loss_and_gradient_of_the_samples_one_by_one(
    model: LlamaForCausalLM,
    encoded: list[EncodedSample],
    layout: Layout,
    picks_logits: bool,
    tokens_per_forward: int,
) -> None:
    total = torch.zeros(())
    for batch in step_batches(encoded, layout, tokens_per_forward, padding=1):
        total = total + answer_loss(model, batch, picks_logits=picks_logits)
    total.backward()
    reference = make_model()
    for sample in encoded:
        loss = reference(input_ids=torch.tensor([sample.tokens]), labels=torch.tensor([sample.labels])).loss
        (loss * sample.answer_length).backward()
    assert float(total.detach()) == pytest.approx(expected_loss(model, encoded), rel=1e-5)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layout", ["packed", "single", "padded"])
def test_a_samples_weight_counts_in_each_of_its_tokens_and_in_what_the_step_is_divided_by(
    encoded: list[EncodedSample], layout: Layout
) -> None:
    model = make_model()
    weighted = [replace(sample, weight=float(number % 3 + 1)) for number, sample in enumerate(encoded)]
    assert len({sample.weight for sample in weighted}) > 1
    how = Forwarding(layout, 100, 1, torch.device("cpu"), picks_logits=True)
    passes = AnswerLikelihood().forward_passes(weighted, weighted, 1.0, how)
    loss = sum(float(one.loss(model).detach()) for one in passes)
    total = sum(sample.weight * expected_loss(model, [sample]) for sample in weighted)
    assert loss == pytest.approx(total / sum(sample.weight * sample.answer_length for sample in weighted), rel=1e-5)


def test_weights_that_are_all_the_same_change_nothing(encoded: list[EncodedSample]) -> None:
    model = make_model()
    how = Forwarding("packed", 100, 1, torch.device("cpu"), picks_logits=True)

    def loss(samples: list[EncodedSample]) -> float:
        passes = AnswerLikelihood().forward_passes(samples, samples, 1.0, how)
        return sum(float(one.loss(model).detach()) for one in passes)

    assert loss([replace(sample, weight=5.0) for sample in encoded]) == pytest.approx(loss(encoded), rel=1e-6)


def test_a_packed_sample_is_blind_to_the_one_before_it(model: LlamaForCausalLM, encoded: list[EncodedSample]) -> None:
    for before, sample in pairwise(encoded):
        packed = answer_logits(model, pack([before, sample]), picks_logits=True)[before.answer_length :]
        alone = answer_logits(model, pack([sample]), picks_logits=True)
        torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)


def test_the_check_of_packing_tells_models_that_leak(encoded: list[EncodedSample]) -> None:
    model = make_model()
    device = torch.device("cpu")
    assert can_pick_logits(model)
    assert keeps_packed_samples_apart(model, encoded, device, picks_logits=True)

    class Leaky(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, **inputs: object) -> object:
            return model(input_ids=input_ids, logits_to_keep=inputs["logits_to_keep"])

    assert not keeps_packed_samples_apart(Leaky(), encoded, device, picks_logits=True)


def test_forward_passes_stay_within_their_bound_and_lose_no_sample(encoded: list[EncodedSample]) -> None:
    for layout in ("packed", "padded"):
        batches = step_batches(encoded, layout, 120, padding=1)
        assert all(batch.input_ids.numel() <= 120 for batch in batches)
        assert 1 < len(batches) < len(encoded)
        assert sorted(i for batch in batches for i in batch.sample_ids) == sorted(sample.id for sample in encoded)
    assert pad(encoded[:2], 1).input_ids.shape[0] == 2
