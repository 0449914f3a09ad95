"""How well each evaluator of a run told right from wrong, in figures and in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from perseid.data.estimates import Estimate
from perseid.evaluation.calibration import Observation
from perseid.evaluation.reliability import LEAST_PROBLEMS, Judgement, Reliability, judge, reliability

Tone = Literal["good", "bad", "unsure"]

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
MADE_OF_VERDICTS = frozenset({GUIDES, "step-score", EXECUTED, "plan-value"})
"""What knows the verdicts that it is measured by, where the search has run code."""
LEARNED, BEFORE = "self-verdict-after", "self-verdict-before"


@dataclass(frozen=True, slots=True)
class EvaluatorView:
    """One evaluator's scores against what came out."""

    name: str
    title: str
    measured: Reliability
    circular: bool = False
    """Whether the scores were made of the very verdicts that they are measured by."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence that a reader must not miss."""

    tone: Tone
    text: str


def evaluators(
    observations: Mapping[str, Sequence[Observation]], *, resamples: int, confidence: float, seed: int
) -> list[EvaluatorView]:
    """Every evaluator that has scored an answer with a verdict, in the order given."""
    draws = min(resamples, RESAMPLES)
    scored = {name: seen for name, seen in observations.items() if any(one.score is not None for one in seen)}
    circular = MADE_OF_VERDICTS if EXECUTED in scored else frozenset[str]()
    return [
        EvaluatorView(
            name,
            TITLES.get(name, name),
            reliability(name, seen, resamples=draws, confidence=confidence, seed=seed),
            circular=name in circular,
        )
        for name, seen in scored.items()
    ]


def search_finding(measured: Sequence[EvaluatorView], whose: str) -> Finding | None:
    """Whether a search was guided by noise; None where no search went by values. `whose` begins the sentence.

    A search chooses inside a problem, so that order decides. The AUC over all problems, which also grows where values
    only know easy problems from hard ones, stands in where no such order can be told.
    """
    by_name = {one.name: one for one in measured}
    view = by_name.get(GUIDES)
    if view is None:
        return None
    found = view.measured
    if view.circular and found.judgement == "informative":
        likelihood = by_name.get("step-likelihood")
        return _circular(found, None if likelihood is None else likelihood.measured, whose)
    inside, overall = judge(found.within_problem), judge(found.auc)
    tone, text = _by_auc(found, overall) if inside == "unknown" else _by_order(found, inside, overall)
    return Finding(tone, text.format(_capital(whose) if text.startswith("{}") else whose))


def _by_order(found: Reliability, inside: Judgement, overall: Judgement) -> tuple[Tone, str]:
    order = f"inside a problem, where a search chooses, its values put {found.within_problem} of the pairs in order"
    over_all = "" if found.auc is None else f" Over all problems their AUC is {found.auc}"
    if inside == "informative":
        says = {"informative": ".", "noise": ", no better than a coin: they do not tell easy problems from hard ones."}
        more = over_all and over_all + says.get(overall, ", the wrong way round: hard problems have the higher values.")
        return "good", f"{{}} was guided by values that tell right from wrong: {order}, above a coin's 0.5.{more}"
    if inside == "inverted":
        more = over_all and f"{over_all}, which tells of problems and not of steps."
        return "bad", f"{{}} was guided the wrong way: {order}, below a coin's 0.5.{more}"
    level = f"{found.confidence:.0%}"
    coin = f"{order}, and the {level} interval contains 0.5, a coin."
    if overall == "informative":
        easy = f"{over_all}, above it, but so is that of values that only know which problems are easy."
        return "unsure", f"{{}} may have been guided by noise: {coin}{easy}"
    return "bad", f"{{}} was guided by noise: {coin}{over_all and over_all + '.'}"


def _by_auc(found: Reliability, overall: Judgement) -> tuple[Tone, str]:
    if overall == "unknown":
        return "unsure", (
            f"Whether {{}} was guided by noise cannot be told: its values have {_evidence(found)}, and an interval"
            f" needs {LEAST_PROBLEMS} problems and both right and wrong answers."
        )
    why = (
        f"the order inside a problem, where a search chooses, cannot be told, because fewer than {LEAST_PROBLEMS}"
        " problems have a right and a wrong answer of different plans."
    )
    if overall == "informative":
        return "unsure", (
            f"Whether {{}} was guided by noise cannot be told: {why} The AUC of its values over all problems is"
            f" {found.auc}, above a coin's 0.5, but so is that of values that only know which problems are easy."
        )
    if overall == "noise":
        return "bad", (
            f"{{}} was guided by noise, as far as can be told: the AUC of its values over all problems is {found.auc},"
            f" and its {found.confidence:.0%} interval contains 0.5, a coin; {why}"
        )
    return "bad", (
        f"{{}} was guided the wrong way, as far as can be told: the AUC of its values over all problems is"
        f" {found.auc}, below a coin's 0.5; {why}"
    )


def learning_finding(measured: Sequence[EvaluatorView], change: Estimate | None, whose: str) -> Finding | None:
    """Whether a learner knows its right answers from its wrong ones, and whether training taught it that.

    `change` is that of the AUC on the same answers, after - before. `whose` begins the sentence. None where its
    verdicts were not asked for after training.
    """
    by_name = {one.name: one.measured for one in measured}
    after, before = by_name.get(LEARNED), by_name.get(BEFORE)
    if after is None:
        return None
    name = _capital(whose)
    if after.judgement == "unknown":
        return Finding(
            "unsure",
            f"Whether {whose} knows its right answers from its wrong ones cannot be told: its verdicts have"
            f" {_evidence(after, 'questions')}, and an interval needs {LEAST_PROBLEMS} questions and both right and"
            " wrong answers.",
        )
    if after.within_problem is None:
        figure = f"the AUC of its verdicts after training is {after.auc}"
    else:
        figure = f"after training its verdicts put {after.within_problem} of the pairs inside a question in order"
    if after.judgement == "noise":
        return Finding(
            "bad",
            f"{name} does not know its right answers from its wrong ones: {figure}, and the {after.confidence:.0%}"
            f" interval contains 0.5, a coin. What it learns from its own verdicts is noise.{_changed(change)}",
        )
    if after.judgement == "inverted":
        return Finding(
            "bad", f"{name} takes its wrong answers for right ones: {figure}, below a coin's 0.5.{_changed(change)}"
        )
    knows = f"{name} knows its right answers from its wrong ones: {figure}, above a coin's 0.5."
    if change is not None and change.low > 0:
        return Finding("good", f"{knows}{_changed(change)}")
    if change is not None and change.high < 0:
        return Finding("bad", f"{knows}{_changed(change)} It knew better before.")
    known = before is not None and before.judgement == "informative"
    return Finding("good" if known else "unsure", f"{knows}{_changed(change)}")


def _changed(change: Estimate | None) -> str:
    if change is None:
        return ""
    way = f"{change.value:+.2f} [{change.low:+.2f}, {change.high:+.2f}]"
    sure = "" if not change.contains(0.0) else ", which may be nothing"
    return f" Training changed their AUC by {way}{sure}."


def _circular(found: Reliability, likelihood: Reliability | None, whose: str) -> Finding:
    """Where the evaluator runs code, a step's value knows the verdicts that it is measured by."""
    known = ""
    if likelihood is not None and likelihood.judgement != "unknown":
        order = likelihood.within_problem
        known = (
            f" The likelihood of its steps, which knows no tests, has an AUC of {likelihood.auc}."
            if order is None
            else f" The likelihood of its steps, which knows no tests, puts {order} of a problem's pairs in order."
        )
        if likelihood.judgement != "informative":
            surely = "might" if judge(likelihood.auc) == "informative" else "would"
            known += f" Without tests, this search {surely} be guided by noise."
    figure = f"the AUC of its values is {found.auc}" if found.auc is not None else "its values tell right from wrong"
    return Finding(
        "unsure",
        f"{_capital(whose)} was guided by running code: {figure}, but they were made of the very verdicts that they are"
        f" measured by, so that says little about what they foretell.{known}",
    )


def _evidence(found: Reliability, of: str = "problems") -> str:
    known = found.calibration
    return f"{known.observations} outcomes, {known.right} of them right, of {found.problems} {of}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
