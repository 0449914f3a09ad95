"""What is kept of how a stage ended: its result.json."""

from __future__ import annotations

from pathlib import Path

from perseid.api.base import replace
from perseid.api.layout import RESULT, Layout
from perseid.api.result import MentorBudget, StageResult, StageUsage
from perseid.data.jsonl import write_json
from perseid.engines.errors import JournalError
from perseid.stages.context import StageContext
from perseid.stages.errors import BudgetSpentError
from perseid.stages.spending import recorded_usage

MAX_MESSAGE = 1024


def failed_result(name: str, context: StageContext, error: Exception) -> StageResult:
    """The result of a stage that an error has stopped; what it had asked until then was paid for all the same."""
    failed = StageResult(
        stage=name,
        state="failed",
        error=_describe(error, context.layout),
        spent_budget=MentorBudget.of(context.spec.budget) if isinstance(error, BudgetSpentError) else None,
        usage=_usage_so_far(context),
    )
    return timed_result(failed, context)


def timed_result(result: StageResult, context: StageContext) -> StageResult:
    """The result with the time that the stage took, over all its tries, beside what its shards took."""
    seconds = result.usage.seconds + context.progress.seconds
    return replace(result, usage=replace(result.usage, seconds=seconds))


def write_result(directory: Path, result: StageResult) -> StageResult:
    """Write the stage's result.json; returns the result."""
    write_json(directory / RESULT, result.model_dump(mode="json", by_alias=True))
    return result


def _usage_so_far(context: StageContext) -> StageUsage:
    try:
        return recorded_usage(context)
    except JournalError:  # a journal that cannot be read has stopped the stage, and its error is the one to be told
        return StageUsage()


def _describe(error: BaseException, layout: Layout) -> str:
    """The error as a user reads it, within the bounds of a result's message, and with the files' lasting places."""
    text = str(error).strip() or type(error).__name__
    if layout.uri is not None:
        text = text.replace(str(layout.root), layout.uri)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
