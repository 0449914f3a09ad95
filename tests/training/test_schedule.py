from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.training.schedule import learning_rate_factor, step_samples, step_seed, total_steps


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4), st.integers(0, 9))
def test_every_sample_is_seen_once_in_each_epoch(samples: int, batch: int, epochs: int, seed: int) -> None:
    total = total_steps(samples, batch, epochs)
    seen = [index for step in range(total) for index in step_samples(step, samples, batch, epochs, seed)]
    for epoch in range(epochs):
        assert sorted(seen[epoch * samples : (epoch + 1) * samples]) == list(range(samples))
    assert Counter(seen) == dict.fromkeys(range(samples), epochs)


def test_only_the_last_step_is_smaller() -> None:
    assert [len(step_samples(step, 10, 4, 2.0, 0)) for step in range(total_steps(10, 4, 2.0))] == [4] * 5
    assert [len(step_samples(step, 10, 4, 1.5, 0)) for step in range(total_steps(10, 4, 1.5))] == [4, 4, 4, 3]


def test_epochs_and_seeds_differ_in_order() -> None:
    first, second = step_samples(0, 20, 20, 2, 0), step_samples(1, 20, 20, 2, 0)
    assert first != second
    assert first != step_samples(0, 20, 20, 2, 1)
    assert step_seed(0, 1) != step_seed(0, 2) != step_seed(0, 2, 1)


@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from(["linear", "cosine", "constant"]))
def test_the_learning_rate_rises_to_its_peak_and_never_rests_at_zero(total: int, warmup: float, kind: str) -> None:
    factors = [learning_rate_factor(step, total, warmup, kind) for step in range(total)]  # type: ignore[arg-type]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_schedules_by_hand() -> None:
    assert [learning_rate_factor(s, 4, 0.0, "linear") for s in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert [learning_rate_factor(s, 4, 0.5, "constant") for s in range(4)] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert learning_rate_factor(2, 4, 0.0, "cosine") == pytest.approx(0.5)
