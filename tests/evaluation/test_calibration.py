from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.evaluation.calibration import Calibration, Observation, auc, calibrate, within_problem_ordering

observations = st.lists(
    st.builds(
        Observation,
        st.sampled_from("abc"),
        st.none() | st.integers(0, 4).map(float),
        st.booleans(),
        st.sampled_from(("", "n1", "n2")),
        st.sampled_from(("", "p1", "p2")),
    ),
    max_size=30,
)


def brute_force(seen: list[Observation], *, within: bool) -> tuple[float, int]:
    ordered, pairs = 0.0, 0
    for good in seen:
        for bad in seen:
            if not good.right or bad.right or good.score is None or bad.score is None:
                continue
            if within and good.problem_id != bad.problem_id:
                continue
            if within and ((good.scored and good.scored == bad.scored) or (good.plan and good.plan == bad.plan)):
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


def test_answers_of_one_plan_share_its_value_and_so_say_nothing_of_its_order() -> None:
    rights = {"good": (True, True, True, False), "poor": (False, False, False, False)}
    values = {"good": 8.0, "poor": 3.0}
    seen = [Observation("a", values[plan], right, plan) for plan, answers in rights.items() for right in answers]
    assert within_problem_ordering(seen) == (1.0, 12), "three right ones of one plan above four wrong ones of the other"
    alone = [Observation("a", 8.0, right, "good") for right in rights["good"]]
    assert within_problem_ordering(alone) == (None, 0)


def test_a_step_is_not_compared_with_its_own_next_step_by_the_answers_that_they_share() -> None:
    # The steps 1 and 2 of one plan with a right and a wrong answer, whatever their scores: one pair each way.
    seen = [
        Observation("a", score, right, node, "plan") for node, score in (("1", 7.0), ("2", 3.0)) for right in (0, 1)
    ]
    assert within_problem_ordering(seen) == (None, 0)


def test_problems_without_both_verdicts_have_no_pairs() -> None:
    assert within_problem_ordering([Observation("a", 1.0, True), Observation("b", 0.0, False)]) == (None, 0)
