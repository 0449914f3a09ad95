from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.engines.choices import ChoiceDistribution, choice_distribution, sample_seed
from perseid.engines.protocol import EngineError, Sampling

END = 99


async def distribution(tokens: dict[str, tuple[int, ...]], table: dict[tuple[int, ...], dict[int, float]]):  # type: ignore[no-untyped-def]
    asked = []

    async def next_logprobs(path: tuple[int, ...], candidates: tuple[int, ...]) -> list[float]:
        asked.append(path)
        return [math.log(table[path][candidate]) for candidate in candidates]

    return await choice_distribution(tokens, (END,), next_logprobs), asked


async def test_choices_with_different_first_tokens_cost_one_pass_and_are_normalised_over_them() -> None:
    result, asked = await distribution({"yes": (1,), "no": (2, 3)}, {(): {1: 0.3, 2: 0.1}})
    assert asked == [()]
    assert result.logprobs == pytest.approx({"yes": math.log(0.75), "no": math.log(0.25)})
    assert result.raw == {"yes": pytest.approx(math.log(0.3)), "no": None}


async def test_a_choice_that_begins_another_needs_the_end_token() -> None:
    table = {(): {1: 0.4, 2: 0.4}, (1,): {0: 0.3, END: 0.1}}
    result, asked = await distribution({"1": (1,), "10": (1, 0), "2": (2,)}, table)
    assert sorted(asked) == [(), (1,)]
    assert {choice: math.exp(value) for choice, value in result.logprobs.items()} == pytest.approx(
        {"1": 0.125, "10": 0.375, "2": 0.5}
    )
    assert result.raw["10"] == pytest.approx(math.log(0.4 * 0.3))


@given(st.sets(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=8), st.integers(0, 1000))
async def test_probabilities_always_sum_to_one(choices: set[str], seed: int) -> None:
    async def next_logprobs(path: tuple[int, ...], candidates: tuple[int, ...]) -> list[float]:
        return [-((hash((path, candidate, seed)) % 1000) / 100) for candidate in candidates]

    tokens = {choice: tuple(map(ord, choice)) for choice in choices}
    result = await choice_distribution(tokens, (END,), next_logprobs)
    assert sum(map(math.exp, result.logprobs.values())) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("tokens", "message"), [({}, "at least one"), ({"": ()}, "no tokens"), ({"a": (1,), "b": (1,)}, "same tokens")]
)
async def test_choices_that_cannot_be_told_apart_are_refused(tokens: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        await distribution(tokens, {})


def test_samples_follow_the_probabilities_and_the_seed() -> None:
    result = ChoiceDistribution({"a": math.log(0.8), "b": math.log(0.2)}, {"a": None, "b": None}, {"a": 1, "b": 1})
    sampling = Sampling(max_tokens=1, temperature=1.0, n=2000, seed=3, choices=("a", "b"))
    drawn = [completion.text for completion in result.sample(sampling)]
    assert drawn == [completion.text for completion in result.sample(sampling)]
    assert Counter(drawn)["a"] / 2000 == pytest.approx(0.8, abs=0.04)
    assert {completion.text for completion in result.sample(Sampling(1, temperature=1.0, top_p=0.7, n=50))} == {"a"}
    assert result.sample(Sampling(1))[0].text == "a"


def test_neighbouring_seeds_share_no_samples() -> None:
    assert len({sample_seed(seed, index) for seed in range(20) for index in range(20)}) == 400
