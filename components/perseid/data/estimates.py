"""A figure with its interval, by a percentile bootstrap over clusters: problems or questions.

Clusters are drawn and not answers, because answers to one problem are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from perseid.data.records import Record

Floats = npt.NDArray[np.float64]
_DRAWS_AT_ONCE = 4_000_000
"""Bound on the numbers that a bootstrap holds in memory at a time."""


class Estimate(Record):
    """A figure with its interval."""

    value: float
    low: float
    high: float

    def contains(self, value: float) -> bool:
        """Whether `value` lies in the interval, its ends included."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        """`0.71 [0.64, 0.78]`."""
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def draws(clusters: int, answers: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each draw has each cluster, shape (some draws, clusters), until there were `resamples` draws.

    As many at a time as fit the memory when each is spread over `answers`. The same arguments give the same draws.
    """
    generator = np.random.default_rng(seed)
    even = np.full(clusters, 1 / clusters)
    rows = max(1, _DRAWS_AT_ONCE // max(answers, 1))
    for done in range(0, resamples, rows):
        yield generator.multinomial(clusters, even, size=min(rows, resamples - done)).astype(np.float64)


def percentile_estimate(value: float, drawn: Floats, confidence: float) -> Estimate | None:
    """The value between the percentiles of what was drawn; draws that have no figure (NaN) are left out.

    None where the value is none itself, or no draw has one.
    """
    known = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or known.size == 0:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Estimate(value=float(value), low=float(low), high=float(high))
