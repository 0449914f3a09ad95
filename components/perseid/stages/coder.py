"""Plan to code, and code to verdict: what conversion and the search's execution evaluator share (methods S15, S16)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from perseid.api.engine import SamplingSpec
from perseid.data.code import Extraction, extract_code
from perseid.data.prompts import code_messages
from perseid.data.records import Problem
from perseid.engines.protocol import Completion, Engine, Message, Request
from perseid.engines.sampling import sampling_of
from perseid.evaluation.harness import AnswerVerdict
from perseid.sandbox.pool import Sandbox
from perseid.sandbox.verdicts import run_tests
from perseid.search.seeds import Seeds


@dataclass(frozen=True, slots=True)
class Coder:
    """Asks a model for code that follows a plan, and runs it."""

    engine: Engine
    sandbox: Sandbox
    sampling: SamplingSpec
    samples: int
    """Answers to one plan."""
    seed: int

    async def write(self, problem: Problem, steps: Sequence[str]) -> tuple[Completion, ...]:
        """Answers to a problem with a plan. The same plan is always the same request: the journal answers it again."""
        chat = code_messages(problem, steps)
        request = Request(
            messages=tuple(Message(role, content) for role, content in chat),
            sampling=sampling_of(
                self.sampling, n=self.samples, seed=Seeds(self.seed, problem.id).of("\n".join(steps), "code")
            ),
            kind="code",
        )
        return (await self.engine.generate(request)).completions

    async def share_of_tests(self, problem: Problem, steps: Sequence[str]) -> float | None:
        """Share of the problem's tests that code made from the steps passes, as the mean over the answers with code.

        None where there is no such evidence: the problem has no tests, or no answer has complete code, which says
        nothing of an unfinished path.
        """
        if not problem.tests:
            return None
        found = [read_code(problem, completion).code for completion in await self.write(problem, steps)]
        verdicts = await asyncio.gather(*(run_tests(self.sandbox, problem, code) for code in found if code is not None))
        return fmean(verdict.share for verdict in verdicts) if verdicts else None


def read_code(problem: Problem, completion: Completion) -> Extraction:
    """The complete code in an answer. A truncated answer has none, whatever parses of it: it may be half of one."""
    if completion.finish_reason == "length":
        return Extraction(None, "truncated")
    return extract_code(completion.text, problem.entry_point)


async def judge(sandbox: Sandbox, problem: Problem, answer: str) -> AnswerVerdict:
    """Whether an answer's code passes the problem's tests; for evaluation."""
    extraction = extract_code(answer, problem.entry_point)
    if extraction.code is None:
        return AnswerVerdict(passed=False, reason=extraction.reason)
    verdict = await run_tests(sandbox, problem, extraction.code)
    reason = "" if verdict.passed else f"{verdict.execution.outcome}: {verdict.execution.detail}"
    return AnswerVerdict(passed=verdict.passed, reason=reason, code=extraction.code)
