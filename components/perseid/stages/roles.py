"""Mentor and judge as stages use them: within the run's budget, with every call in a journal of the role's own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from perseid.api.layout import local_path
from perseid.api.meteor import JudgeSpec, MentorSpec
from perseid.data.records import CodeCheck
from perseid.engines.budget import Budget
from perseid.engines.journal import Journal
from perseid.engines.roles import LocalSettings, open_judge_engine, open_mentor
from perseid.meteor.checks import CodeResult, CodeRunner
from perseid.meteor.judges import Judge, ModelJudge, VerifierJudge
from perseid.sandbox.pool import Sandbox
from perseid.sandbox.verdicts import run_tests
from perseid.stages.context import StageContext
from perseid.stages.models import StageModel
from perseid.stages.spending import JUDGE_JOURNAL, MENTOR_JOURNAL


@contextlib.asynccontextmanager
async def open_mentor_model(context: StageContext, budget: Budget) -> AsyncIterator[StageModel]:
    """The mentor. Raises EngineError, as `perseid.engines.roles.open_mentor`."""
    spec = context.spec.meteor.mentor
    with Journal(context.directory / MENTOR_JOURNAL) as journal:
        engine = await open_mentor(spec, budget=budget, record_to=_record(spec), local=_local(context))
        try:
            yield StageModel(engine, journal, _in_flight(context, spec))
        finally:
            await engine.close()


@dataclass(frozen=True, slots=True)
class Judges:
    """Who says whether an answer is right."""

    judge: Judge
    """The run's judge."""
    rule: VerifierJudge
    """The question's own check, for the questions that have one."""
    model: StageModel | None
    """The judge's model; None where a verifier judges."""

    def raise_if_dead(self) -> None:
        """Raise what the judge's model died of."""
        if self.model is not None:
            self.model.raise_if_dead()


@contextlib.asynccontextmanager
async def open_judges(context: StageContext, budget: Budget) -> AsyncIterator[Judges]:
    """The judge. Raises EngineError, as `perseid.engines.roles.open_judge_engine`."""
    spec = context.spec.meteor.judge
    async with Sandbox(context.spec.sandbox) as sandbox:
        rule = VerifierJudge(_code_runner(sandbox))
        engine = await open_judge_engine(spec, budget=budget, record_to=_record(spec), local=_local(context))
        if engine is None:
            yield Judges(rule, rule, None)
            return
        with Journal(context.directory / JUDGE_JOURNAL) as journal:
            try:
                model = StageModel(engine, journal, _in_flight(context, spec))
                yield Judges(ModelJudge(model, spec.max_tokens), rule, model)
            finally:
                await engine.close()


def _code_runner(sandbox: Sandbox) -> CodeRunner:
    async def run(check: CodeCheck, code: str) -> CodeResult:
        verdict = await run_tests(sandbox, check, code)
        reason = "" if verdict.passed else f"{verdict.execution.outcome}: {verdict.execution.detail}"
        return CodeResult(verdict.passed, reason)

    return run


def _record(spec: MentorSpec | JudgeSpec) -> Path | None:
    return None if spec.record is None else local_path(spec.record)


def _local(context: StageContext) -> LocalSettings:
    model = context.spec.model
    return LocalSettings(context.spec.engine, model.dtype, model.trust_remote_code)


def _in_flight(context: StageContext, spec: MentorSpec | JudgeSpec) -> int:
    if spec.openai is not None:
        return spec.openai.max_requests_in_flight
    return context.spec.synthesis.max_requests_in_flight
