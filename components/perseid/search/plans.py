"""From a search's paths to plans, with a reason for every one that is dropped (methods S14)."""

from __future__ import annotations

from perseid.data.records import Dropped, Plan
from perseid.search.outcome import SearchResult


def select_plans(result: SearchResult, *, count: int, min_words: int) -> tuple[list[Plan], list[Dropped]]:
    """Take the best `count` paths that have `min_words` words or more.

    Every path that was looked at is kept or dropped; a problem without a path is dropped once, with the search's own
    reason. Steps hold no code: parsing took it out.
    """
    if result.failure is not None:
        failure = result.failure
        return [], [_dropped(result, 0, failure.reason, failure.detail)]
    if not result.paths:
        return [], [_dropped(result, 0, "no-path", f"the search stopped without a step: {result.stop_reason}")]
    plans: list[Plan] = []
    dropped: list[Dropped] = []
    for place, path in enumerate(result.paths):
        if len(plans) == count:
            break
        words = sum(len(step.split()) for step in path.steps)
        if words < min_words:
            dropped.append(_dropped(result, place, "plan-too-short", f"{words} words of at least {min_words}"))
            continue
        # The check was asked about the best path only.
        solved = result.solved if place == 0 else None
        plans.append(Plan(problem_id=result.problem_id, index=place, steps=path.steps, value=path.value, solved=solved))
    return plans, dropped


def _dropped(result: SearchResult, place: int, reason: str, detail: str) -> Dropped:
    return Dropped(id=f"{result.problem_id}/plan-{place}", problem_id=result.problem_id, reason=reason, detail=detail)
