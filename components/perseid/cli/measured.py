"""What a calibration came to: figures, and what they mean."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perseid.api.attempt import Attempt
from perseid.api.layout import Layout, read_stage_result
from perseid.api.result import StageUsage
from perseid.api.stages import StageName
from perseid.cli.view import duration
from perseid.data.estimates import Estimate
from perseid.evaluation.reliability import LEAST_PROBLEMS
from perseid.report.calibrations import EvaluatorView, Finding, evaluators, search_finding
from perseid.report.samples import read_answers
from perseid.report.trees import read_search

STAGES: tuple[StageName, ...] = ("synthesize", "convert")
"""What a calibration goes through of a generation."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What came out."""

    evaluators: list[EvaluatorView]
    finding: Finding | None
    problems: int
    answers: int
    passed: int
    usage: StageUsage

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "evaluators": [
                {
                    "name": one.name,
                    "title": one.title,
                    "judgement": one.measured.judgement,
                    "made_of_verdicts": one.circular,
                    **one.measured.model_dump(),
                }
                for one in self.evaluators
            ],
            "finding": None if self.finding is None else asdict(self.finding),
            "problems": self.problems,
            "answers": self.answers,
            "passed": self.passed,
            "usage": self.usage.model_dump(by_alias=False),
        }


def read_measured(attempt: Attempt) -> Measured:
    """What the searches and answers say. Raises DataError."""
    spec = attempt.run.spec
    layout = Layout(Path(attempt.storage), 0, 0)
    answers = read_answers(layout.stage("convert"), 0)
    assert answers is not None  # the stage has ended
    search = read_search(layout.stage("synthesize"), answers.outcomes, 0)
    observations = {**({} if search is None else search.observations), **answers.observations}
    draws, level = spec.evaluation.bootstrap, spec.evaluation.confidence
    found = evaluators(observations, resamples=draws, confidence=level, seed=spec.seed)
    results = [read_stage_result(layout.stage(stage)) for stage in STAGES]
    return Measured(
        evaluators=found,
        finding=search_finding(found, "the search of this sample"),
        problems=answers.problems,
        answers=answers.judged,
        passed=answers.passed,
        usage=StageUsage.sum(one.usage for one in results if one is not None),
    )


def print_measured(console: Console, measured: Measured) -> None:
    """Figures, and what they mean."""
    table = Table(box=SIMPLE_HEAD, title="scores against verdicts", title_justify="left", title_style="bold")
    table.add_column("score", overflow="fold")
    for name in ("AUC", "within problems", "outcomes"):
        table.add_column(name, justify="right")
    table.add_column("says")
    styles = {"informative": "green", "noise": "red", "inverted": "red", "unknown": "dim"}
    for one in measured.evaluators:
        known = one.measured.calibration
        judgement = one.measured.judgement
        says = Text("made of verdicts", style="yellow") if one.circular else Text(judgement, style=styles[judgement])
        figures = (
            _estimate(one.measured.auc, known.auc),
            _estimate(one.measured.within_problem, known.within_problem),
        )
        table.add_row(one.title, *figures, f"{known.observations}", says)
    console.print(table)
    if measured.finding is not None:
        style = {"good": "green", "bad": "red", "unsure": "yellow"}[measured.finding.tone]
        console.print(Text(measured.finding.text, style=style))
    if measured.problems < LEAST_PROBLEMS or measured.passed in (0, measured.answers):
        console.print(Text("Take more problems, or easier or harder ones: --problems N.", style="yellow"))
    used = measured.usage
    console.print(
        f"{measured.problems} problems, {measured.answers} answers with a verdict, {measured.passed} of them right;"
        f" {used.completion_tokens:,} tokens made in {duration(used.seconds)}",
        highlight=False,
        soft_wrap=True,
    )


def _estimate(estimate: Estimate | None, fallback: float | None) -> str:
    if estimate is None:
        return "none" if fallback is None else f"{fallback:.2f}"
    return str(estimate)
