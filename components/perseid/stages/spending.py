"""What models were asked and what paid ones have cost, in this stage and before it."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from perseid.api.layout import JOURNAL, newest_usage
from perseid.api.meteor import PriceSpec
from perseid.api.result import StageUsage
from perseid.engines.budget import Budget, Limits, Spent, cost
from perseid.engines.journal import read_journal
from perseid.engines.protocol import Usage
from perseid.stages.context import StageContext

MENTOR_JOURNAL, JUDGE_JOURNAL = "mentor.jsonl", "judge.jsonl"
"""Journals of their own: what they have cost is read from them."""


def open_budget(context: StageContext) -> Budget:
    """The run's budget, less what earlier generations, the attempt's earlier stages and this stage's earlier tries have
    spent. Journals of paid roles must be closed."""
    limits = Limits(cost=context.spec.budget.mentor_cost, tokens=context.spec.budget.mentor_tokens)
    spent = Spent()
    if limits != Limits():  # else nobody asks what was spent, and finding out may mean to list a bucket
        spent = sum((_spent(one) for one in _earlier_usage(context)), spent)
        spent += sum((Spent.of(_recorded(path), price) for path, price in _paid_journals(context)), Spent())
    return Budget(limits, spent, context.spec.meteor.mentor.price.currency)


def recorded_usage(context: StageContext) -> StageUsage:
    """What the stage has asked over all its tries, by its journals: those of paid roles included, and priced."""
    journals = [context.directory / name for name in (JOURNAL, MENTOR_JOURNAL, JUDGE_JOURNAL)]
    paid = [(_recorded(path), price) for path, price in _paid_journals(context)]
    return stage_usage(*map(_recorded, journals)).model_copy(
        update={
            "cost": sum(cost(usage, price) for usage, price in paid),
            "paid_tokens": sum(usage.prompt_tokens + usage.completion_tokens for usage, _ in paid),
        }
    )


def stage_usage(*parts: Usage) -> StageUsage:
    """Token counts as a stage's result has them; the time is added when the stage ends."""
    usage = sum(parts, Usage())
    return StageUsage(
        calls=usage.calls,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
    )


def _paid_journals(context: StageContext) -> list[tuple[Path, PriceSpec]]:
    """Journals of the roles whose answers are computed for this run: what was recorded is paid for already."""
    meteor = context.spec.meteor
    roles = ((MENTOR_JOURNAL, meteor.mentor), (JUDGE_JOURNAL, meteor.judge))
    return [(context.directory / name, role.price) for name, role in roles if role.type in ("openai", "model")]


def _recorded(path: Path) -> Usage:
    return sum((call.usage for call in read_journal(path).values()), Usage())


def _spent(usage: StageUsage) -> Spent:
    return Spent(Fraction(usage.cost), usage.paid_tokens)


def _earlier_usage(context: StageContext) -> Iterable[StageUsage]:
    """Of each generation before this one what its newest attempt's stages say, which took over what earlier attempts
    had paid for; and of this attempt its stages before this one."""
    if context.storage is not None:
        context.storage.fetch_stage_results()
    stages = context.spec.stages
    for generation in range(context.attempt.generation):
        yield from newest_usage(context.layout.attempts(generation), stages).values()
    before = stages[: stages.index(context.stage)]
    yield from newest_usage([context.layout.attempt_directory], before).values()
