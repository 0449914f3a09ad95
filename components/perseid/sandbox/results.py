"""What an execution came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "exited", "timeout", "memory", "output", "crashed", "denied", "lost"]
"""`passed`: everything ran and nothing raised. `failed`: an exception, an assertion or a syntax error. `exited`: it
left before the end, SystemExit included. `timeout`: of wall clock or CPU. `memory`, `output`: more than the limit.
`crashed`: killed by a signal of its own making. `denied`: it tried what the sandbox forbids. `lost`: the sandbox's
server died twice while it ran, which need not be the code's fault."""


@dataclass(frozen=True)
class Execution:
    """One program's run."""

    outcome: Outcome
    detail: str
    """Last line of the first failure's traceback, or the limit that was hit; some hundred characters of ASCII."""
    wall_seconds: float
    cpu_seconds: float
    checks_passed: tuple[bool, ...] = ()
    """One for each check that was asked for; False for those that were not reached."""


@dataclass(frozen=True)
class Verdict:
    """What a problem's tests say about an answer."""

    passed: bool
    tests_passed: int
    tests_total: int
    execution: Execution

    @property
    def share(self) -> float:
        """Share of the tests that pass, 0 to 1; of a problem without tests, whether the code runs."""
        return self.tests_passed / self.tests_total if self.tests_total else float(self.passed)
