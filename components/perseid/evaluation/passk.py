"""pass@k and how sure it is: pure functions over counts of passed answers.

pass@k is the chance that at least one of k answers passes; the unbiased estimate from n >= k answers of which c pass
is 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS_AT_ONCE = 4_000_000
"""Bound on the numbers that a bootstrap holds in memory at a time."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How two models did on the same problems; positive where the second is better."""

    difference: float
    """Mean over problems of the second's pass rate minus the first's."""
    interval: Interval
    up: int
    """Problems on which the second passes a larger share of its answers."""
    down: int
    same: int


def pass_at_k(n: int, passed: int, k: int) -> float:
    """Unbiased estimate of pass@k for one problem, in [0, 1], as a product that overflows nowhere."""
    if not 0 <= passed <= n:
        raise ValueError(f"{passed} of {n} answers cannot have passed")
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} answers and k of 1 or more, there are {n}")
    if n - passed < k:
        return 1.0
    if passed == 0:
        return 0.0
    all_fail = 1.0
    for i in range(n - passed + 1, n + 1):
        all_fail *= 1.0 - k / i
    return 1.0 - all_fail


def bootstrap_interval(values: Sequence[float], *, resamples: int, confidence: float, seed: int) -> Interval:
    """Percentile bootstrap interval of the mean, over problems: `values` holds one number for each.

    Problems are what is drawn again, because answers to one problem are not independent of each other.
    """
    if not values:
        raise ValueError("there are no problems to resample")
    data = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    rows = max(1, _DRAWS_AT_ONCE // data.size)
    means = np.concatenate(
        [
            data[generator.integers(0, data.size, size=(min(rows, resamples - done), data.size))].mean(axis=1)
            for done in range(0, resamples, rows)
        ]
    )
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def paired_difference(
    first: Mapping[str, float], second: Mapping[str, float], *, resamples: int, confidence: float, seed: int
) -> PairedDifference:
    """Compare pass rates by problem id. Raises ValueError unless both cover the same problems."""
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise ValueError(f"a paired comparison needs the same problems; {len(odd)} are in one only, such as {odd[:3]}")
    # Sorted, so that the interval does not depend on the order in which answers came.
    differences = [second[problem] - first[problem] for problem in sorted(first)]
    interval = bootstrap_interval(differences, resamples=resamples, confidence=confidence, seed=seed)
    up, down = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return PairedDifference(
        difference=sum(differences) / len(differences),
        interval=interval,
        up=up,
        down=down,
        same=len(differences) - up - down,
    )
