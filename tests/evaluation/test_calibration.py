from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.evaluation.calibration import Calibration, Observation, auc, calibrate, within_problem_ordering

observations = st.lists(
    st.builds(Observation, st.sampled_from("abc"), st.none() | st.integers(0, 4).map(float), st.booleans()), max_size=30
)


def brute_force(seen: list[Observation], *, within: bool) -> tuple[float, int]:
    ordered, pairs = 0.0, 0
    for good in seen:
        for bad in seen:
            if not good.right or bad.right or good.score is None or bad.score is None:
                continue
            if within and good.problem_id != bad.problem_id:
                continue
            pairs += 1
            ordered += 1.0 if good.score > bad.score else 0.5 if good.score == bad.score else 0.0
    return ordered, pairs


@given(observations)
def test_calibration_counts_what_counting_all_pairs_counts(seen: list[Observation]) -> None:
    result = calibrate("likelihood", seen)
    ordered, pairs = brute_force(seen, within=False)
    assert result.auc == (pytest.approx(ordered / pairs) if pairs else None)
    ordered, pairs = brute_force(seen, within=True)
    assert result.pairs == pairs
    assert result.within_problem == (pytest.approx(ordered / pairs) if pairs else None)
    assert result.observations + result.unscored == len(seen)


def test_auc_by_hand() -> None:
    assert auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == 0.75
    assert auc([1, 1, 1], [True, False, True]) == 0.5
    assert auc([1, 2, 2, 3], [False, True, False, True]) == 0.875
    assert auc([1, 2], [True, True]) is None
    assert auc([], []) is None


def test_a_score_that_only_knows_which_problem_is_easy_orders_nothing_within_problems() -> None:
    seen = [Observation("easy", 9.0, right) for right in (True, True, True, False)]
    seen += [Observation("hard", 1.0, right) for right in (True, False, False, False)]
    result = calibrate("ladder", seen)
    assert result.auc == 0.75
    assert (result.within_problem, result.pairs) == (0.5, 6)
    assert Calibration.model_validate_json(result.model_dump_json()) == result


def test_problems_without_both_verdicts_have_no_pairs() -> None:
    assert within_problem_ordering([Observation("a", 1.0, True), Observation("b", 0.0, False)]) == (None, 0)
