from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from perseid.data.records import PreferencePair
from perseid.training.batching import Layout, pass_groups
from perseid.training.encode import IGNORED
from perseid.training.manifest import PairObjective
from perseid.training.objective import Forwarding
from perseid.training.pair_loss import PairPreference, pair_losses
from perseid.training.pairs import EncodedPair, encode_pairs
from perseid.training.reference import measure_pairs
from tiny_llama import make_model

DPO = PairObjective(type="dpo", beta=0.1, margin=None, supervised_weight=0.0)
IPO = PairObjective(type="ipo", beta=0.1, margin=None, supervised_weight=0.0)
CONTRASTIVE = PairObjective(type="contrastive", beta=None, margin=0.5, supervised_weight=0.0)
OBJECTIVES = (DPO, IPO, CONTRASTIVE)


def pair(number: int, chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair(
        id=f"p{number}", question_id=f"q{number}", prompt=f"say {number}", chosen=chosen, rejected=rejected
    )


@pytest.fixture
def encoded(tokenizer: PreTrainedTokenizerFast) -> list[EncodedPair]:
    pairs = [pair(i, f"{i} is {'x' * (3 * i % 7)}!", f"no {'y' * (5 * i % 11)}{i}") for i in range(6)]
    return encode_pairs(pairs, tokenizer, {1}, 512)[0]


def forwarding(layout: Layout, bound: int = 4096) -> Forwarding:
    return Forwarding(layout, bound, padding=1, device=torch.device("cpu"), picks_logits=True)


def test_losses_are_the_papers_formulas() -> None:
    logprobs = torch.tensor([[-10.0, -30.0], [-8.0, -4.0]], dtype=torch.float64)
    reference = torch.tensor([[-12.0, -26.0], [-8.0, -4.0]], dtype=torch.float64)
    lengths = torch.tensor([[4, 10], [2, 2]])
    dpo = pair_losses(logprobs, reference, lengths, DPO)
    # gains 2 and -4: 0.1 * 6; then no gain at all
    assert dpo.tolist() == pytest.approx([-math.log(1 / (1 + math.exp(-0.6))), math.log(2)])
    ipo = pair_losses(logprobs, reference, lengths, IPO)
    assert ipo.tolist() == pytest.approx([(2 / 4 + 4 / 10 - 5.0) ** 2, 25.0])
    # per token -2.5 against -3: just the margin; then -4 against -2
    contrastive = pair_losses(logprobs, reference, lengths, CONTRASTIVE)
    assert contrastive.tolist() == pytest.approx([0.0, 2.5])


numbers = st.floats(-50.0, -0.5)


@given(numbers, numbers, numbers, numbers, st.integers(1, 40), st.integers(1, 40), st.sampled_from(OBJECTIVES))
def test_gradients_are_those_of_finite_differences(
    chosen: float, rejected: float, was: float, worse: float, length: int, other: int, objective: PairObjective
) -> None:
    logprobs = torch.tensor([[chosen, rejected]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[was, worse]], dtype=torch.float64)
    lengths = torch.tensor([[length, other]])
    assume(abs(rejected / other - chosen / length + 0.5) > 1e-3)  # the hinge's corner has no derivative
    assert torch.autograd.gradcheck(lambda x: pair_losses(x, reference, lengths, objective), (logprobs,), atol=1e-4)


@given(numbers, numbers, st.sampled_from((DPO, CONTRASTIVE)))
def test_the_loss_falls_with_the_chosen_and_rises_with_the_rejected_answers_likelihood(
    chosen: float, rejected: float, objective: PairObjective
) -> None:
    logprobs = torch.tensor([[chosen, rejected]], dtype=torch.float64, requires_grad=True)
    pair_losses(logprobs, torch.full((1, 2), -20.0), torch.tensor([[5, 5]]), objective).sum().backward()
    assert logprobs.grad is not None
    assert float(logprobs.grad[0, 0]) <= 0.0 <= float(logprobs.grad[0, 1])


def test_ipo_pushes_back_what_went_too_far() -> None:
    logprobs = torch.tensor([[100.0, -100.0]], requires_grad=True)  # 10 times the target's difference
    pair_losses(logprobs, torch.zeros(1, 2), torch.tensor([[4, 4]]), IPO).sum().backward()
    assert logprobs.grad is not None
    assert float(logprobs.grad[0, 0]) > 0.0 > float(logprobs.grad[0, 1])


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.type)
@pytest.mark.parametrize("layout", ["packed", "single", "padded"])
@pytest.mark.parametrize("bound", [150, 4096])
def test_every_layout_has_the_loss_and_gradient_of_the_pairs_one_by_one(
    encoded: list[EncodedPair], objective: PairObjective, layout: Layout, bound: int
) -> None:
    objective = objective.model_copy(update={"supervised_weight": 0.3})
    reference = measure_pairs(make_model(seed=1), encoded, "float32", forwarding("padded"))
    model, one_by_one = make_model(), make_model()
    preference = PairPreference(objective, reference)
    passes = preference.forward_passes(encoded, encoded, 1.0, forwarding(layout, bound))
    losses = [one.loss(model) for one in passes]
    torch.stack(losses).sum().backward()

    total = torch.zeros(())
    tokens = sum(one.chosen.answer_length for one in encoded)
    for one in encoded:
        sums = []
        for side in one.sequences:
            labels = torch.tensor([side.labels])
            assert int((labels != IGNORED).sum()) == side.answer_length
            mean = one_by_one(input_ids=torch.tensor([side.tokens]), labels=labels).loss
            sums.append(-mean * side.answer_length)
        lengths = torch.tensor([[one.chosen.answer_length, one.rejected.answer_length]])
        loss = pair_losses(torch.stack(sums)[None], torch.tensor([reference[one.id]]), lengths, objective).sum()
        total = total + loss / len(encoded) - 0.3 * sums[0] / tokens
    total.backward()
    assert sum(float(loss.detach()) for loss in losses) == pytest.approx(float(total.detach()), rel=1e-5)
    for ours, theirs in zip(model.parameters(), one_by_one.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)


def test_both_answers_of_a_pair_are_in_one_forward_pass_and_passes_stay_within_their_bound(
    encoded: list[EncodedPair],
) -> None:
    preference = PairPreference(CONTRASTIVE, {one.id: (0.0, 0.0) for one in encoded})
    for layout in ("packed", "padded"):
        groups = pass_groups(encoded, layout, 250)
        assert 1 < len(groups) < len(encoded)
        assert sorted(one.id for group in groups for one in group) == sorted(one.id for one in encoded)
        for group in groups:
            sizes = [len(sequence.tokens) for one in group for sequence in one.sequences]
            assert (sum(sizes) if layout == "packed" else len(sizes) * max(sizes)) <= 250
        passes = preference.forward_passes(encoded, encoded, 1.0, forwarding(layout, 250))
        assert [one.item_ids for one in passes] == [tuple(one.id for one in group) for group in groups]


def test_the_loss_sees_answers_alone(encoded: list[EncodedPair]) -> None:
    model, [one] = make_model(), encoded[3:4]
    measured = measure_pairs(model, [one], "float32", forwarding("packed"))[one.id]
    for side, sum_of_side in zip(one.sequences, measured, strict=True):
        logits = model(input_ids=torch.tensor([side.tokens])).logits[0].log_softmax(-1)
        by_hand = sum(
            float(logits[place - 1, side.tokens[place]].detach())
            for place in range(side.prompt_length, len(side.tokens))
        )
        assert sum_of_side == pytest.approx(by_hand, rel=1e-4)


def test_measuring_leaves_the_models_mode_alone_and_has_no_dropout(encoded: list[EncodedPair]) -> None:
    model = make_model(attention_dropout=0.5)
    model.train()
    once, again = (measure_pairs(model, encoded, "float32", forwarding("padded")) for _ in range(2))
    assert once == again
    assert model.training


def test_pairs_are_encoded_as_they_are_asked_for(tokenizer: PreTrainedTokenizerFast) -> None:
    [one], dropped = encode_pairs([pair(1, "yes", "no way")], tokenizer, {1}, 512)
    assert dropped == []
    assert one.chosen.tokens[: one.chosen.prompt_length] == one.rejected.tokens[: one.rejected.prompt_length]
    answers = [tokenizer.decode(side.tokens[side.prompt_length :]) for side in one.sequences]
    assert answers == ["yes<|im_end|>", "no way<|im_end|>"]


def test_every_pair_is_kept_or_dropped_with_its_reason(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = [
        pair(0, "yes", "no"),
        pair(1, "same", "same"),
        pair(2, "yes", "  "),
        pair(3, "y" * 200, "no"),
        pair(4, "yes", "no<|im_end|>no"),
        pair(0, "again", "no"),
        pair(5, "", ""),
    ]
    kept, dropped = encode_pairs(pairs, tokenizer, {1}, 100)
    assert [one.id for one in kept] == ["p0"]
    assert [(drop.id, drop.reason) for drop in dropped] == [
        ("p1", "equal-answers"),
        ("p2", "empty-answer"),
        ("p3", "too-long"),
        ("p4", "end-of-turn-in-answer"),
        ("p0", "repeated-id"),
        ("p5", "empty-answer"),
    ]
    assert dropped[1].detail == "the rejected answer"
    assert dropped[2].detail.startswith("the chosen answer: ")
    assert {drop.problem_id for drop in dropped} == {f"q{i}" for i in range(6)}
