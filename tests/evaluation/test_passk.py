from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.evaluation.passk import bootstrap_interval, paired_difference, pass_at_k

rates = st.lists(st.integers(0, 8).map(lambda c: c / 8), min_size=1, max_size=12)
pairs = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=12)


@st.composite
def counts(draw: st.DrawFn, most: int = 200) -> tuple[int, int, int]:
    n = draw(st.integers(1, most))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(counts())
def test_pass_at_k_is_a_probability(case: tuple[int, int, int]) -> None:
    assert 0.0 <= pass_at_k(*case) <= 1.0


@given(counts())
def test_more_passed_answers_and_larger_k_never_lower_it(case: tuple[int, int, int]) -> None:
    n, passed, k = case
    value = pass_at_k(n, passed, k)
    if passed < n:
        assert pass_at_k(n, passed + 1, k) >= value - 1e-12
    if k < n:
        assert pass_at_k(n, passed, k + 1) >= value - 1e-12


@given(counts(most=8))
def test_pass_at_k_is_the_share_of_k_subsets_with_a_passed_answer(case: tuple[int, int, int]) -> None:
    n, passed, k = case
    subsets = list(combinations(range(n), k))
    hits = sum(any(answer < passed for answer in subset) for subset in subsets)
    assert pass_at_k(n, passed, k) == pytest.approx(hits / len(subsets))


def test_pass_at_k_by_hand() -> None:
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(5, 2, 3) == pytest.approx(0.9)
    assert pass_at_k(4, 2, 3) == 1.0
    assert pass_at_k(1000, 1, 500) == pytest.approx(0.5)  # binomials of this size overflow a float


@pytest.mark.parametrize("case", [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_impossible_counts_are_refused(case: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="answers"):
        pass_at_k(*case)


@given(rates, st.integers(0, 5))
def test_an_interval_is_ordered_inside_the_values_and_repeatable(values: list[float], seed: int) -> None:
    interval = bootstrap_interval(values, resamples=200, confidence=0.9, seed=seed)
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
    assert interval == bootstrap_interval(values, resamples=200, confidence=0.9, seed=seed)


def test_an_interval_is_that_of_the_normal_law_for_many_problems() -> None:
    values = [0.0, 1.0] * 200
    interval = bootstrap_interval(values, resamples=20_000, confidence=0.95, seed=0)
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.005)
    assert interval.high == pytest.approx(0.5 + 1.96 * 0.5 / 20, abs=0.005)


def test_an_interval_in_blocks_has_as_many_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [0.0, 1.0, 0.5, 0.25]
    monkeypatch.setattr("perseid.evaluation.passk._DRAWS_AT_ONCE", 30)
    interval = bootstrap_interval(values, resamples=1000, confidence=0.95, seed=0)
    assert 0.0 <= interval.low < 0.4375 < interval.high <= 1.0


def test_no_problems_have_no_interval() -> None:
    with pytest.raises(ValueError, match="no problems"):
        bootstrap_interval([], resamples=100, confidence=0.95, seed=0)


@given(pairs, st.integers(0, 5))
def test_comparing_the_other_way_round_mirrors_everything(counts: list[tuple[int, int]], seed: int) -> None:
    first = {str(i): a / 8 for i, (a, _) in enumerate(counts)}
    second = {str(i): b / 8 for i, (_, b) in enumerate(counts)}
    there = paired_difference(first, second, resamples=200, confidence=0.9, seed=seed)
    back = paired_difference(second, first, resamples=200, confidence=0.9, seed=seed)
    assert there.difference == pytest.approx(-back.difference)
    assert there.interval.low == pytest.approx(-back.interval.high)
    assert there.interval.high == pytest.approx(-back.interval.low)
    assert (there.up, there.down, there.same) == (back.down, back.up, back.same)
    assert there.up + there.down + there.same == len(counts)


def test_a_paired_comparison_by_hand() -> None:
    paired = paired_difference(
        {"a": 0.0, "b": 0.5, "c": 1.0}, {"c": 1.0, "a": 1.0, "b": 0.25}, resamples=100, confidence=0.9, seed=0
    )
    assert paired.difference == pytest.approx(0.25)
    assert (paired.up, paired.down, paired.same) == (1, 1, 1)


def test_other_problems_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"2 are in one only, such as \['b', 'c'\]"):
        paired_difference({"a": 0, "b": 0}, {"a": 0, "c": 0}, resamples=100, confidence=0.9, seed=0)
