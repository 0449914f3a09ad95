"""What a report says about the values that a search went by."""

from __future__ import annotations

import random

from perseid.evaluation.calibration import Observation
from perseid.report.calibrations import evaluators, search_finding


def seen(*, informed: bool, problems: int = 12) -> list[Observation]:
    draw = random.Random(3)
    return [
        Observation(f"p{problem}", (1.0 if right else 0.0) + (draw.random() if informed else 9 * draw.random()), right)
        for problem in range(problems)
        for right in (True, False)
    ]


def sentence(**observations: list[Observation]) -> tuple[str, str]:
    named = {name.replace("_", "-"): known for name, known in observations.items()}
    finding = search_finding(evaluators(named, resamples=200, confidence=0.95, seed=0), "the search")
    assert finding is not None
    return finding.tone, finding.text


def test_values_that_know_are_good_and_values_that_do_not_are_noise() -> None:
    assert sentence(step_value=seen(informed=True))[0] == "good"
    tone, text = sentence(step_value=seen(informed=False))
    assert tone == "bad"
    assert "was guided by noise" in text


def test_values_made_of_the_very_verdicts_are_no_evidence_and_the_likelihood_is_named() -> None:
    known, noise = seen(informed=True), seen(informed=False)
    tone, text = sentence(step_value=known, part_execution=known, step_likelihood=known)
    assert tone == "unsure"
    assert "made of the same answers' test results" in text
    assert "The likelihood of its steps, which knows no tests, has 1.00" in text
    assert "guided by noise" not in text
    assert (
        "Without tests, this search would be guided by noise"
        in (sentence(step_value=known, part_execution=known, step_likelihood=noise)[1])
    )


def test_without_values_there_is_nothing_to_say() -> None:
    assert search_finding(evaluators({}, resamples=10, confidence=0.95, seed=0), "the search") is None
