"""How well each evaluator of a run told right from wrong, in figures and in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from perseid.evaluation.calibration import Observation
from perseid.evaluation.reliability import LEAST_PROBLEMS, Reliability, reliability

RESAMPLES = 1000
"""Of the report's own bootstraps, at most: they are drawn anew each time that the report is made."""

TITLES = {
    "step-value": "value of a step, after backpropagation",
    "step-score": "what the evaluator said of a step",
    "step-likelihood": "likelihood of a step",
    "part-ladder": "its part: spoken score of a step, 0 to 10",
    "part-path_likelihood": "its part: likelihood of a whole path",
    "part-execution": "its part: share of the tests that code from a step passes",
    "plan-value": "value of a whole plan",
    "likelihood": "likelihood of a code answer",
    "ladder": "spoken score of a code answer, 0 to 10",
    "self-verdict-before": "the learner's verdict on an answer to dev, before it learned to judge",
    "self-verdict-after": "the learner's verdict on an answer to dev, after it learned to judge",
}
GUIDES = "step-value"
"""What a search goes by."""
PARTS = ("ladder", "path_likelihood", "execution")
"""Of an evaluator's evidence, what is measured as `part-NAME` beside its score. Steps have their likelihood anyway."""
EXECUTED = "part-execution"


@dataclass(frozen=True, slots=True)
class EvaluatorView:
    """One evaluator's scores against what came out."""

    name: str
    title: str
    measured: Reliability


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence that a reader must not miss."""

    tone: Literal["good", "bad", "unsure"]
    text: str


def evaluators(
    observations: Mapping[str, Sequence[Observation]], *, resamples: int, confidence: float, seed: int
) -> list[EvaluatorView]:
    """Every evaluator that has scored an answer with a verdict, in the order given."""
    draws = min(resamples, RESAMPLES)
    found = []
    for name, seen in observations.items():
        if any(one.score is not None for one in seen):
            measured = reliability(name, seen, resamples=draws, confidence=confidence, seed=seed)
            found.append(EvaluatorView(name, TITLES.get(name, name), measured))
    return found


def search_finding(measured: Sequence[EvaluatorView], whose: str) -> Finding | None:
    """Whether a search was guided by noise; None where no search went by values. `whose` begins the sentence."""
    by_name = {one.name: one.measured for one in measured}
    found = by_name.get(GUIDES)
    if found is None:
        return None
    if EXECUTED in by_name and found.judgement == "informative":
        return _circular(found, by_name.get("step-likelihood"), whose)
    auc, level = found.auc, f"{found.confidence:.0%}"
    if auc is None:
        return Finding(
            "unsure",
            f"Whether {whose} was guided by noise cannot be told: its values have {_evidence(found)}, and an interval"
            f" needs {LEAST_PROBLEMS} problems and both right and wrong answers.",
        )
    interval = str(auc)
    inside = "" if found.within_problem is None else f" {_inside(found.within_problem.value)}"
    if found.judgement == "noise":
        text = (
            f"was guided by noise: the AUC of its values is {interval}, and its {level} interval contains 0.5, a coin."
        )
        return Finding("bad", f"{_capital(whose)} {text}{inside}")
    if found.judgement == "inverted":
        text = f"was guided the wrong way: the AUC of its values is {interval}, below a coin's 0.5."
        return Finding(
            "bad", f"{_capital(whose)} {text} Steps with lower values led to right answers more often.{inside}"
        )
    text = f"was guided by values that tell right from wrong: their AUC is {interval}, above a coin's 0.5."
    if found.within_problem is not None and found.within_problem.contains(0.5):
        return Finding(
            "unsure",
            f"{_capital(whose)} {text} Inside a problem, where a search chooses, they may be noise all the same:"
            f" {found.within_problem} of its right and wrong steps are in order.",
        )
    return Finding("good", f"{_capital(whose)} {text}{inside}")


def _circular(found: Reliability, likelihood: Reliability | None, whose: str) -> Finding:
    """Where the evaluator runs code, a step's value knows the verdicts that it is measured by."""
    known = ""
    if likelihood is not None and likelihood.auc is not None:
        known = f" The likelihood of its steps, which knows no tests, has {likelihood.auc}."
        if likelihood.judgement != "informative":
            known += " Without tests, this search would be guided by noise."
    return Finding(
        "unsure",
        f"{_capital(whose)} was guided by running code: the AUC of its values is {found.auc}, but they were made of the"
        f" same answers' test results, so that says little about what they foretell.{known}",
    )


def _inside(share: float) -> str:
    return f"Inside a problem they put {share:.0%} of the pairs of a right and a wrong answer in order."


def _evidence(found: Reliability) -> str:
    known = found.calibration
    return f"{known.observations} outcomes, {known.right} of them right, of {found.problems} problems"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
