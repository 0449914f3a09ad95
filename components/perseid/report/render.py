"""A report as one HTML page that needs nothing but itself: no network, no other file.

Whatever a model, a user or a data set has written is escaped by Jinja2's autoescape; nothing in the templates is marked
as safe but the page's own style and script, and the plots, which escape what they are given (`markupsafe`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from perseid.data.estimates import Estimate
from perseid.evaluation.reliability import LEAST_PROBLEMS
from perseid.report import plots
from perseid.report.document import GenerationView, Report
from perseid.report.gains import GainsView
from perseid.report.plots import Line, Mark
from perseid.report.scores import ScoresView
from perseid.report.treeplot import tree_plot

TEMPLATES = Path(__file__).with_name("templates")
TEXT_SHOWN = 4000
"""Characters of one answer, plan or advice; the rest is counted."""


def render(report: Report) -> str:
    """The page."""
    return _environment().get_template("report.html").render(report=report)


@functools.cache
def _environment() -> Environment:
    # Autoescape for all names: the default for strings goes by the file's extension, which an include may not have.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "interval": interval,
        "points": points,
        "estimate": estimate,
        "duration": duration,
        "clip": clip,
        "amount": amount,
        "words": words,
    }
    environment.globals |= {
        "style": Markup((TEMPLATES / "style.css").read_text()),  # our own file
        "script": Markup((TEMPLATES / "script.js").read_text()),  # our own file
        "least_problems": LEAST_PROBLEMS,
        "scores_plot": scores_plot,
        "gains_plot": gains_plot,
        "losses": losses,
        "loss_plot": plots.lines_plot,
        "reliability_plot": plots.reliability_plot,
        "tree_plot": tree_plot,
    }
    return environment


def scores_plot(scores: ScoresView) -> Markup:
    """The score of each generation's model on a set; hollow where it was not promoted."""
    marks = [Mark(one.label, one.value, one.low, one.high, one.promoted) for one in scores.points]
    return plots.intervals_plot(marks, title=f"pass@1 on {scores.name} by generation", across="generation")


def gains_plot(gains: GainsView) -> Markup:
    """What each problem gained or lost."""
    name = gains.comparison.set_name
    return plots.gains_plot(
        [(one.problem_id, one.gain) for one in gains.problems], title=f"gain of each problem of {name}"
    )


def losses(generation: GenerationView) -> dict[str, list[Line]]:
    """Loss curves by what the loss is of: answers and pairs have no common axis."""
    curves: dict[str, list[Line]] = {}
    for stage in generation.stages:
        if stage.manifest is None:
            continue
        pairs = stage.manifest.preference
        unit = "nats per answer token" if pairs is None else f"{pairs.objective.type} loss of a pair"
        line = Line(stage.name, [(one.step, one.loss) for one in stage.manifest.metrics.curve])
        curves.setdefault(unit, []).append(line)
    return curves


def percent(share: float) -> str:
    """`41.2 %`."""
    return f"{100 * share:.1f} %"


def interval(value: Iterable[float] | None) -> str:
    """`41.2 % [35.0, 47.9]`."""
    if value is None:
        return ""
    middle, low, high = (100 * one for one in value)
    return f"{middle:.1f} % [{low:.1f}, {high:.1f}]"


def points(value: Iterable[float] | None) -> str:
    """`+4.2 [-1.0, +9.3]`: a difference in percentage points."""
    if value is None:
        return ""
    middle, low, high = (100 * one for one in value)
    return f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]"


def estimate(value: Estimate | None, fallback: float | None = None) -> str:
    """`0.71 [0.64, 0.78]`; the bare figure where there is no interval."""
    if value is None:
        return "" if fallback is None else f"{fallback:.2f}"
    return str(value)


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s` or `1 h 2 min`."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left} min"
    return f"{minutes} min {rest} s" if minutes else f"{whole} s"


def clip(text: str, most: int = TEXT_SHOWN) -> str:
    """The text up to `most` characters, and how many more there are."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"


def amount(count: int) -> str:
    """`4.9 million`: a large number in three digits or fewer."""
    for size, name in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if count >= size:
            return f"{count / size:.3g} {name}" if count < 999.5 * size else f"{count / size:,.0f} {name}"
    return f"{count}"


def words(name: str) -> str:
    """A name as words: `tests-failed` and `rolled_back` without their joints."""
    return name.replace("-", " ").replace("_", " ")
