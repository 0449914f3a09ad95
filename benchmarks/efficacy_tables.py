"""The tables of docs/efficacy.md, from what the runs came to.

Intervals are percentile bootstraps that draw the problems and, independently, the seeds (both with replacement): a seed
is a whole run, and problems answered by one run are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import numpy as np
import numpy.typing as npt

from efficacy_outcomes import Data, Outcome, Scores, Share
from perseid.data.estimates import Estimate, percentile_estimate

DRAWS, CONFIDENCE = 10_000, 0.95
DEV, TEST, HUMANEVAL = "pack-dev", "pack-test", "humaneval"
NO_PLAN = "no plan"


def tables(outcomes: Sequence[Outcome], evolve: str) -> str:
    """The evolution by generation, the baselines beside each other, and what their plans say, in Markdown."""
    arms: dict[str, list[Outcome]] = {}
    for one in outcomes:
        arms.setdefault(one.arm, []).append(one)
    evolved = arms.pop(evolve, [])
    if evolved:
        # The evolution samples without a plan: its first generation is that baseline.
        arms = {NO_PLAN: evolved, **arms}
    return "\n\n".join([*_evolution(evolved), *_baselines(arms), *_plans(arms)]) or "nothing is known yet"


def _evolution(runs: Sequence[Outcome]) -> Iterable[str]:
    if not runs:
        return
    sets = (DEV, TEST, HUMANEVAL)
    best = [_best(run) for run in runs]
    rows = [
        [
            f"seed {run.seed}",
            *(_gain([run.base.get(name)], [model.get(name)]) for name in sets),
            _cut_off(run.base.get(HUMANEVAL), model.get(HUMANEVAL)),
            _told(run),
            f"{run.seconds / 60:.0f} min",
        ]
        for run, model in zip(runs, best, strict=True)
    ]
    pooled = [_gain([run.base.get(name) for run in runs], [model.get(name) for model in best]) for name in sets]
    rows.append([f"**{len(runs)} seeds**", *pooled, "", "", ""])
    header = ["", "dev (decides)", "test", "HumanEval", "of it cut off", "test by generation", "time"]
    yield _table(header, rows)


def _told(run: Outcome) -> str:
    """test by generation, with what became of each."""
    told = []
    for model, promoted in zip(run.models, run.promoted, strict=True):
        rate = f"{100 * fmean(model[TEST].rates.values()):.1f} %" if TEST in model else "no model"
        told.append(f"{rate}, promoted" if promoted else rate)
    return "; ".join(told)


def _cut_off(base: Scores | None, best: Scores | None) -> str:
    """Share of answers that reached the limit of tokens: fewer of them alone can raise a score."""
    if base is None or best is None:
        return ""
    return " -> ".join(f"{100 * one.cut_off / one.answers:.0f} %" for one in (base, best))


def _best(run: Outcome) -> dict[str, Scores]:
    """The model that was promoted last, else the base."""
    return next((model for model, up in zip(run.models[::-1], run.promoted[::-1], strict=True) if up), run.base)


def _baselines(arms: Mapping[str, Sequence[Outcome]]) -> Iterable[str]:
    """What each arm's data is, and what it taught."""
    if not arms:
        return
    header = ["data by (seeds)", "tokens", "read (cached)", "answers", "pass rate", "distinct right", "solved", "kept"]
    yield _table(header, [_data(f"{arm} ({len(runs)})", [run.data for run in runs]) for arm, runs in arms.items()])
    reference = arms.get(NO_PLAN, [])
    yield _table(
        ["learned from (seeds)", "dev", "test", f"dev and test against {NO_PLAN}"],
        [
            [
                f"{arm} ({len(runs)})",
                *(_gain([run.base.get(name) for run in runs], _first(runs, name)) for name in (DEV, TEST)),
                "" if runs is reference else _against(reference, runs),
            ]
            for arm, runs in arms.items()
        ],
    )


def _data(name: str, data: Sequence[Data]) -> list[str]:
    read = fmean(one.prompt_tokens for one in data)
    cached = sum(one.cached_tokens for one in data) / max(1, sum(one.prompt_tokens for one in data))
    return [
        name,
        f"{fmean(one.tokens for one in data):,.0f}",
        f"{read:,.0f} ({100 * cached:.0f} %)",
        f"{fmean(one.answers for one in data):,.0f}",
        f"{100 * fmean(one.pass_rate for one in data):.0f} %",
        *(f"{fmean(values):.1f}" for values in zip(*((d.distinct, d.solved, d.kept) for d in data), strict=True)),
    ]


def _plans(arms: Mapping[str, Sequence[Outcome]]) -> Iterable[str]:
    searched = {arm: [run.data for run in runs] for arm, runs in arms.items() if arm != NO_PLAN}
    if not searched:
        return
    header = ["data by", "by the plan's value", "by likelihood", "same plan agrees", "other plan agrees", "for plans"]
    yield _table(
        header,
        [
            [
                arm,
                _pooled([one.by_plan_value for one in data]),
                _pooled([one.by_likelihood for one in data]),
                _pooled([one.same_plan_agree for one in data]),
                _pooled([one.other_plan_agree for one in data]),
                f"{100 * sum(one.planning_tokens for one in data) / sum(one.tokens for one in data):.0f} %",
            ]
            for arm, data in searched.items()
        ],
    )


def _pooled(shares: Sequence[Share | None]) -> str:
    known = [one for one in shares if one is not None]
    pairs = sum(one.pairs for one in known)
    return f"{sum((one.share or 0.0) * one.pairs for one in known) / pairs:.2f}" if pairs else ""


def _first(runs: Sequence[Outcome], name: str) -> list[Scores | None]:
    """Of each run's first model; where none was trained, the base's."""
    return [(run.models[0] or run.base).get(name) for run in runs]


def _against(reference: Sequence[Outcome], runs: Sequence[Outcome]) -> str:
    """First models of the same seeds, by problem of dev and test: for a first model dev decides as little as test."""
    first = {run.seed: run for run in reference}
    both = [run for run in runs if run.seed in first]
    difference = _difference(*([_held_out(run) for run in side] for side in ([first[run.seed] for run in both], both)))
    return "" if difference is None else _points(difference)


def _held_out(run: Outcome) -> Scores | None:
    """The first model's on dev and test together."""
    model = run.models[0] or run.base
    if DEV not in model or TEST not in model:
        return None
    known = model[DEV], model[TEST]
    return Scores(
        rates={problem: rate for one in known for problem, rate in one.rates.items()},
        answers=sum(one.answers for one in known),
        cut_off=sum(one.cut_off for one in known),
    )


def _gain(before: Sequence[Scores | None], after: Sequence[Scores | None]) -> str:
    difference = _difference(before, after)
    if difference is None:
        return ""
    old, new = (100 * fmean(fmean(one.rates.values()) for one in side if one is not None) for side in (before, after))
    return f"{old:.1f} -> {new:.1f} %, {_points(difference)}"


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def _difference(before: Sequence[Scores | None], after: Sequence[Scores | None]) -> Estimate | None:
    """after - before with its interval; None where a run has no scores. Runs are paired in their order."""
    pairs = [
        (old.rates, new.rates) for old, new in zip(before, after, strict=True) if old is not None and new is not None
    ]
    if not pairs or len(pairs) < len(before):
        return None
    problems = sorted(pairs[0][0])
    differences: npt.NDArray[np.float64] = np.array([[new[one] - old[one] for one in problems] for old, new in pairs])
    generator = np.random.default_rng(0)
    of_seeds, of_problems = (
        generator.multinomial(size, np.full(size, 1 / size), size=DRAWS) / size for size in differences.shape
    )
    drawn = np.einsum("ds,sp,dp->d", of_seeds, differences, of_problems, optimize=True)
    return percentile_estimate(float(differences.mean()), drawn, CONFIDENCE)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
