"""What keeps a stage from giving a result that means something."""

from __future__ import annotations

from collections.abc import Iterable


class StageError(Exception):
    """A stage cannot go on. The message says why and what to do."""


class BudgetSpentError(StageError):
    """What the stage has to ask, the rest of the budget does not pay for: another try fails like this one."""


def stage_error(message: str, reasons: Iterable[str]) -> StageError:
    """The error of a stage that could do nothing, by the recorded reasons of what it could not do."""
    return BudgetSpentError(message) if set(reasons) == {"budget-exceeded"} else StageError(message)
