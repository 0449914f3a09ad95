"""When a generation's model becomes the next one's start."""

from __future__ import annotations

from dataclasses import dataclass

from perseid.api.lifecycle import PromotionSpec
from perseid.api.result import Gain


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to promote, and why."""

    promote: bool
    message: str


def judge(rule: PromotionSpec, gain: Gain) -> Verdict:
    """Apply the rule to the paired gain in pass@1 on dev. Equal is not better."""
    shown = f"gain on dev {gain.value:+.4f}, interval {gain.low:+.4f} to {gain.high:+.4f}"
    least = f"{rule.min_improvement:+.4f}"
    if rule.rule == "interval":
        better = gain.low > rule.min_improvement
        relation = "lies above" if better else "does not lie above"
        return Verdict(better, f"{shown}: the interval {relation} {least}")
    better = gain.value > rule.min_improvement
    return Verdict(better, f"{shown}: the gain is {'above' if better else 'not above'} {least}")
