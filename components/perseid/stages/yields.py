"""What became of what could have been training data, so that the numbers add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from perseid.api.result import YieldCounts
from perseid.data.records import Dropped


def count_yield(kept: int, dropped: Iterable[Dropped]) -> YieldCounts:
    """kept + dropped by reason = total."""
    reasons = Counter(one.reason for one in dropped)
    return YieldCounts(total=kept + reasons.total(), kept=kept, dropped=dict(sorted(reasons.items())))


def dropped_metrics(yields: YieldCounts) -> dict[str, float]:
    """Scalars for a user interface."""
    return {f"dropped_{reason}": float(count) for reason, count in yields.dropped.items()}
