"""The tables of docs/efficacy.md, from what the runs came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from efficacy_outcomes import Ordering, Outcome, Rates
from perseid.evaluation.passk import paired_difference

RESAMPLES, CONFIDENCE = 10_000, 0.95
DEV, TEST, HUMANEVAL = "pack-dev", "pack-test", "humaneval"
ORDERED_BY = "ordered by the plan's value", "by likelihood"


def tables(outcomes: Sequence[Outcome], evolve: str) -> str:
    """The evolution by generation, and the baselines beside each other, in Markdown."""
    arms: dict[str, list[Outcome]] = {}
    for one in outcomes:
        arms.setdefault(one.arm, []).append(one)
    evolved = arms.pop(evolve, [])
    return "\n\n".join([*_evolution(evolved), *_baselines(arms)]) or "nothing is known yet"


def _evolution(runs: Sequence[Outcome]) -> Iterable[str]:
    if not runs:
        return
    rows = [
        [
            f"seed {run.seed}",
            *(_gain(run.base.get(name), _best(run).get(name)) for name in (DEV, TEST, HUMANEVAL)),
            _told(run),
        ]
        for run in runs
    ]
    pooled = [
        _gain(_mean(run.base.get(name) for run in runs), _mean(_best(run).get(name) for run in runs))
        for name in (DEV, TEST, HUMANEVAL)
    ]
    rows.append([f"**{len(runs)} seeds together**", *pooled, ""])
    yield _table(["", "dev", "test", "HumanEval", "generations"], rows)


def _told(run: Outcome) -> str:
    """test by generation, with what became of each."""
    told = []
    for model, promoted in zip(run.models, run.promoted, strict=True):
        rate = f"{100 * fmean(model[TEST].values()):.1f} %" if TEST in model else "no model"
        told.append(f"{rate}, promoted" if promoted else rate)
    return "; ".join(told)


def _best(run: Outcome) -> Rates:
    """The model that was promoted last, else the base."""
    return next((model for model, up in zip(run.models[::-1], run.promoted[::-1], strict=True) if up), run.base)


def _baselines(arms: Mapping[str, Sequence[Outcome]]) -> Iterable[str]:
    if not arms:
        return
    header = ["data by (seeds)", "tokens made", "right", "solved", "kept", "dev", "test", *ORDERED_BY]
    yield _table(header, [_baseline(arm, runs) for arm, runs in arms.items()])


def _baseline(arm: str, runs: Sequence[Outcome]) -> list[str]:
    trained = [run.models[0] or run.base for run in runs]
    gains = [
        _gain(_mean(run.base.get(name) for run in runs), _mean(one.get(name) for one in trained))
        for name in (DEV, TEST)
    ]
    return [
        f"{arm} ({len(runs)})",
        f"{fmean(run.tokens for run in runs):,.0f}",
        f"{100 * sum(run.right for run in runs) / sum(run.answers for run in runs):.0f} %",
        f"{fmean(run.solved for run in runs):.1f}",
        f"{fmean(run.kept for run in runs):.1f}",
        *gains,
        _share([run.by_plan_value for run in runs]),
        _share([run.by_likelihood for run in runs]),
    ]


def _share(orderings: Sequence[Ordering]) -> str:
    """Right answers that a score put above wrong ones of the same problem, as a share of the pairs; 0.5 is a coin."""
    pairs = sum(one.pairs for one in orderings)
    if pairs == 0:
        return ""
    return f"{sum((one.share or 0.0) * one.pairs for one in orderings) / pairs:.2f}"


def _mean(rates: Iterable[Mapping[str, float] | None]) -> dict[str, float] | None:
    """Each problem's rate as the mean over the seeds; None where one has not been measured."""
    known = list(rates)
    if not known or any(one is None for one in known):
        return None
    return {problem: fmean(one[problem] for one in known if one is not None) for problem in known[0] or {}}


def _gain(before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> str:
    if before is None or after is None:
        return ""
    paired = paired_difference(before, after, resamples=RESAMPLES, confidence=CONFIDENCE, seed=0)
    low, high = 100 * paired.interval.low, 100 * paired.interval.high
    rates = f"{100 * fmean(before.values()):.1f} -> {100 * fmean(after.values()):.1f} %"
    return f"{rates}, {100 * paired.difference:+.1f} [{low:.1f}, {high:.1f}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
