"""Which failures of an attempt are tried again, and which of them count (`spec.failurePolicy`)."""

from __future__ import annotations

from typing import Literal

from perseid.api.lifecycle import FailurePolicySpec
from perseid.api.reasons import NOT_CHARGED, Reason
from perseid.api.stages import StageName

Verdict = Literal["fail", "count", "ignore"]


def verdict(policy: FailurePolicySpec, reason: Reason, stage: StageName | None) -> Verdict:
    """What follows from a failure: the first rule that matches, else whether it was the attempt's own."""
    for rule in policy.rules:
        of_reason = not rule.reasons or reason.value in rule.reasons
        of_stage = not rule.stages or stage in rule.stages
        if of_reason and of_stage:
            return rule.action
    return "ignore" if reason in NOT_CHARGED else "count"
