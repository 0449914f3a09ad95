"""A problem's tests, run against an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from perseid.sandbox.results import Execution, Verdict


class Tested(Protocol):
    """What is needed of a problem: `perseid.data.records.Problem` fits."""

    @property
    def setup(self) -> str:
        """Python code run before the answer."""

    @property
    def tests(self) -> tuple[str, ...]:
        """Python code run after the answer."""


class Runner(Protocol):
    """What is needed of a sandbox."""

    async def run(self, program: str, checks: Sequence[str] = ()) -> Execution:
        """See `perseid.sandbox.pool.Sandbox.run`."""


def program_for(problem: Tested, code: str) -> str:
    """Setup, answer and tests as one program, which ends without an exception when the answer is right."""
    return "\n\n".join(part for part in (problem.setup, code, *problem.tests) if part.strip()) + "\n"


async def run_tests(sandbox: Runner, problem: Tested, code: str) -> Verdict:
    """Run an answer once and each test after it by itself, so that a failing test does not hide the later ones.

    An answer whose tests all pass has passed; so has, for a problem without tests, one that merely runs.
    Raises SandboxUnavailableError where this machine cannot confine code.
    """
    body = "\n\n".join(part for part in (problem.setup, code) if part.strip()) + "\n"
    execution = await sandbox.run(body, problem.tests)
    return Verdict(
        passed=execution.outcome == "passed",
        tests_passed=sum(execution.checks_passed),
        tests_total=len(problem.tests),
        execution=execution,
    )
