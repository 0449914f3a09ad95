from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.evaluation.calibration import Observation, calibrate
from perseid.evaluation.reliability import LEAST_PROBLEMS, MOST_BINS, Reliability, reliability

observations = st.lists(
    st.builds(Observation, st.sampled_from("abcdefg"), st.none() | st.integers(0, 6).map(float), st.booleans()),
    max_size=40,
)


def measured(seen: list[Observation], **changes: float) -> Reliability:
    return reliability("value", seen, **{"resamples": 60, "confidence": 0.9, "seed": 3, **changes})  # type: ignore[arg-type]


def scored(problems: int, answers: int, *, told: float, seed: int = 0) -> list[Observation]:
    """Answers of which a half is right; `told` is how far the right ones' scores lie above the others'."""
    draw = np.random.default_rng(seed)
    rights = draw.random((problems, answers)) < 0.5
    scores = draw.normal(size=rights.shape) + told * rights
    return [
        Observation(f"p{problem}", float(scores[problem, answer]), bool(rights[problem, answer]))
        for problem in range(problems)
        for answer in range(answers)
    ]


@given(observations)
def test_the_figures_are_those_of_the_calibration_and_the_bins_hold_every_scored_answer(
    seen: list[Observation],
) -> None:
    found = measured(seen)
    plain = calibrate("value", seen)
    assert found.calibration == plain
    for estimate, value in ((found.auc, plain.auc), (found.within_problem, plain.within_problem)):
        if estimate is not None:
            assert estimate.value == value
            assert 0.0 <= estimate.low <= estimate.high <= 1.0
    assert sum(one.answers for one in found.bins) == plain.observations
    assert all(0.0 <= one.interval.low <= one.right_share + 1e-9 for one in found.bins)
    assert all(one.right_share - 1e-9 <= one.interval.high <= 1.0 for one in found.bins)
    assert sum(one.right_share * one.answers for one in found.bins) == pytest.approx(plain.right)
    assert len(found.bins) <= MOST_BINS
    assert all(one.highest < other.lowest for one, other in zip(found.bins, found.bins[1:], strict=False))
    assert Reliability.model_validate_json(found.model_dump_json()) == found


@given(observations, st.randoms(use_true_random=False))
def test_the_order_in_which_answers_came_changes_nothing(seen: list[Observation], random: Random) -> None:
    shuffled = list(seen)
    random.shuffle(shuffled)
    assert measured(seen) == measured(shuffled)


@given(observations)
def test_a_score_turned_round_has_the_mirrored_intervals(seen: list[Observation]) -> None:
    turned = [Observation(one.problem_id, None if one.score is None else -one.score, one.right) for one in seen]
    for one, other in zip(_estimates(measured(seen)), _estimates(measured(turned)), strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one.low, one.high) == (pytest.approx(1 - other.high), pytest.approx(1 - other.low))


@given(observations)
def test_only_the_order_of_scores_counts_and_not_their_scale(seen: list[Observation]) -> None:
    scaled = [Observation(one.problem_id, None if one.score is None else 2.0**one.score, one.right) for one in seen]
    assert _estimates(measured(seen)) == _estimates(measured(scaled))


def _estimates(found: Reliability) -> tuple[object, ...]:
    return found.auc, found.within_problem


def test_scores_without_a_relation_to_the_outcome_are_noise_and_others_are_not() -> None:
    whole = {"resamples": 400, "confidence": 0.95}
    assert measured(scored(60, 6, told=0.0), **whole).judgement == "noise"
    assert measured(scored(60, 6, told=1.5), **whole).judgement == "informative"
    assert measured(scored(60, 6, told=-1.5), **whole).judgement == "inverted"


def test_too_few_problems_give_figures_without_intervals() -> None:
    few = measured(scored(LEAST_PROBLEMS - 1, 20, told=3.0))
    assert few.calibration.auc is not None
    assert (few.auc, few.within_problem, few.judgement) == (None, None, "unknown")
    assert measured(scored(LEAST_PROBLEMS, 20, told=3.0)).judgement == "informative"


def test_answers_to_one_problem_count_as_one_piece_of_evidence() -> None:
    # The same answers many times over make no interval narrower: nothing new is known of other problems.
    once = scored(20, 4, told=0.5)
    alone, repeated = measured(once, resamples=500), measured(once * 10, resamples=500)
    assert alone.auc is not None
    assert repeated.auc is not None
    assert (alone.auc.low, alone.auc.high) == (pytest.approx(repeated.auc.low), pytest.approx(repeated.auc.high))


def test_without_answers_there_is_nothing() -> None:
    empty = measured([])
    assert (empty.auc, empty.within_problem, empty.bins, empty.problems) == (None, None, (), 0)
    assert measured([Observation("a", None, True)]).calibration.unscored == 1


def test_a_share_has_wilsons_interval_and_width_where_all_are_wrong() -> None:
    seen = [Observation(f"p{number}", 1.0, False) for number in range(10)]
    (only,) = measured(seen, confidence=0.95).bins
    assert (only.right_share, only.interval.low) == (0.0, pytest.approx(0.0, abs=1e-12))
    assert only.interval.high == pytest.approx(0.2775, abs=1e-4)
    (same,) = measured(seen * 5, confidence=0.95).bins
    assert same.interval == only.interval, "five answers to a problem are no five problems"
