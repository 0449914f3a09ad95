"""What a report says about the values that a search went by."""

from __future__ import annotations

import dataclasses
import random

import pytest

from perseid.data.estimates import Estimate
from perseid.evaluation.calibration import Observation
from perseid.report.calibrations import EvaluatorView, evaluators, learning_finding, search_finding


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


ABOVE, COIN, BELOW = (Estimate(value=middle, low=middle - 0.1, high=middle + 0.1) for middle in (0.8, 0.5, 0.2))


def view(name: str, inside: Estimate | None, auc: Estimate | None) -> EvaluatorView:
    known = evaluators({name: seen(informed=True)}, resamples=20, confidence=0.95, seed=0)[0].measured
    return EvaluatorView(name, name, known.model_copy(update={"within_problem": inside, "auc": auc}))


@pytest.mark.parametrize(
    ("inside", "auc", "tone", "says"),
    [
        (ABOVE, ABOVE, "good", "was guided by values that tell right from wrong"),
        (ABOVE, COIN, "good", "They do not tell easy problems from hard ones"),
        (ABOVE, BELOW, "good", "hard problems have the higher values"),
        (ABOVE, None, "good", "was guided by values that tell right from wrong"),
        (COIN, ABOVE, "unsure", "may have been guided by noise"),
        (COIN, COIN, "bad", "was guided by noise: inside a problem"),
        (COIN, BELOW, "bad", "was guided by noise: inside a problem"),
        (COIN, None, "bad", "was guided by noise: inside a problem"),
        (BELOW, ABOVE, "bad", "was guided the wrong way: inside a problem"),
        (BELOW, COIN, "bad", "was guided the wrong way: inside a problem"),
        (BELOW, BELOW, "bad", "was guided the wrong way: inside a problem"),
        (BELOW, None, "bad", "was guided the wrong way: inside a problem"),
        (None, ABOVE, "unsure", "cannot be told: the order inside a problem"),
        (None, COIN, "bad", "was guided by noise, as far as can be told: the AUC of its values over all problems"),
        (
            None,
            BELOW,
            "bad",
            "was guided the wrong way, as far as can be told: the AUC of its values over all problems",
        ),
        (None, None, "unsure", "Whether the search was guided by noise cannot be told"),
    ],
)
def test_the_order_inside_problems_decides_and_the_auc_stands_in_by_name(
    inside: Estimate | None, auc: Estimate | None, tone: str, says: str
) -> None:
    finding = search_finding([view("step-value", inside, auc)], "the search")
    assert finding is not None
    assert finding.tone == tone
    assert says.casefold() in finding.text.casefold()
    assert ("the order inside a problem, where a search chooses, cannot be told" in finding.text) == (
        inside is None and auc is not None
    ), "a fallback is named"
    assert finding.text[0].isupper()


def test_values_that_know_are_good_and_values_that_do_not_are_noise() -> None:
    assert sentence(step_value=seen(informed=True))[0] == "good"
    tone, text = sentence(step_value=seen(informed=False))
    assert tone == "bad"
    assert "was guided by noise" in text


def test_values_made_of_the_very_verdicts_are_no_evidence_and_the_likelihood_is_named() -> None:
    known, noise = seen(informed=True), seen(informed=False)
    tone, text = sentence(step_value=known, part_execution=known, step_likelihood=known)
    assert tone == "unsure"
    assert "made of the very verdicts" in text
    assert "The likelihood of its steps, which knows no tests, puts 1.00" in text
    assert "guided by noise" not in text
    assert (
        "Without tests, this search would be guided by noise"
        in (sentence(step_value=known, part_execution=known, step_likelihood=noise)[1])
    )


@pytest.mark.parametrize(("auc", "says"), [(ABOVE, "might be guided by noise"), (COIN, "would be guided by noise")])
def test_without_tests_a_search_by_a_likelihood_that_knows_only_easy_problems_might_be_noise(
    auc: Estimate, says: str
) -> None:
    values = dataclasses.replace(view("step-value", ABOVE, ABOVE), circular=True)
    finding = search_finding([values, view("step-likelihood", COIN, auc)], "the search")
    assert finding is not None
    assert f"Without tests, this search {says}." in finding.text


def test_whatever_is_made_of_the_very_verdicts_is_marked_and_nothing_else() -> None:
    names = ("step-value", "step-score", "step-likelihood", "part-execution", "plan-value", "likelihood")
    whole = {name: seen(informed=True) for name in names}
    marked = {one.name: one.circular for one in evaluators(whole, resamples=20, confidence=0.95, seed=0)}
    assert [name for name in names if not marked[name]] == ["step-likelihood", "likelihood"]
    del whole["part-execution"]
    assert not any(one.circular for one in evaluators(whole, resamples=20, confidence=0.95, seed=0))


ROSE, STAYED, FELL = (Estimate(value=by, low=by - 0.1, high=by + 0.1) for by in (0.3, 0.0, -0.3))


@pytest.mark.parametrize(
    ("before", "after", "change", "tone", "says"),
    [
        (COIN, ABOVE, ROSE, "good", "knows its right answers from its wrong ones"),
        (ABOVE, ABOVE, STAYED, "good", "which may be nothing"),
        (COIN, ABOVE, STAYED, "unsure", "which may be nothing"),
        (ABOVE, ABOVE, FELL, "bad", "It knew better before."),
        (ABOVE, COIN, FELL, "bad", "does not know its right answers from its wrong ones"),
        (COIN, COIN, None, "bad", "What it learns from its own verdicts is noise."),
        (COIN, BELOW, FELL, "bad", "takes its wrong answers for right ones"),
        (COIN, None, None, "unsure", "cannot be told"),
    ],
)
def test_whether_a_learner_can_judge_itself_is_said_in_a_sentence(
    before: Estimate, after: Estimate | None, change: Estimate | None, tone: str, says: str
) -> None:
    views = [view("self-verdict-before", before, before), view("self-verdict-after", after, after)]
    finding = learning_finding(views, change, "the learner")
    assert finding is not None
    assert finding.tone == tone
    assert says in finding.text
    assert ("Training changed their AUC by" in finding.text) == (change is not None)


def test_before_a_learner_has_been_asked_again_there_is_nothing_to_say() -> None:
    assert learning_finding([view("self-verdict-before", COIN, COIN)], None, "the learner") is None


def test_without_values_there_is_nothing_to_say() -> None:
    assert search_finding(evaluators({}, resamples=10, confidence=0.95, seed=0), "the search") is None
