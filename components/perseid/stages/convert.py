"""Stage 2: plan to code, verification, training records.

Reads `plans.jsonl`; writes `candidates.jsonl` (every answer), `samples.jsonl` (what is trained on), `dropped.jsonl`,
`decontamination.json` and `calibration.json` (how well each score told right from wrong).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from perseid.api.files import CANDIDATES, DROPPED, PLANS, SAMPLES, YIELD
from perseid.api.layout import JOURNAL
from perseid.api.problems import ProblemsSpec
from perseid.api.result import StageResult, StageUsage
from perseid.api.synthesis import ConversionSpec
from perseid.data.decontaminate import Hit, decontaminate
from perseid.data.jsonl import read_jsonl, write_json, write_jsonl
from perseid.data.problems import load_problems
from perseid.data.prompts import INSTRUCTION, fenced, plan_text, question
from perseid.data.records import Candidate, Plan, Problem, TrainingSample
from perseid.engines.journal import Journal, read_journal
from perseid.engines.protocol import EngineError
from perseid.evaluation.calibration import Calibration, Observation, calibrate
from perseid.sandbox.pool import Sandbox
from perseid.sandbox.verdicts import run_tests
from perseid.search.evaluators import LadderEvaluator
from perseid.stages.answer_score import AnswerScorer
from perseid.stages.coder import Coder, read_code
from perseid.stages.context import ANYWHERE, StageContext
from perseid.stages.gate import Sorted, sort_candidates
from perseid.stages.models import open_evaluator, open_policy
from perseid.stages.spending import stage_usage

DECONTAMINATION, CALIBRATION = "decontamination.json", "calibration.json"


async def run(context: StageContext) -> StageResult:
    """Write code for every plan, verify it, and keep what may be learned from."""
    spec = context.spec.conversion
    problems = {problem.id: problem for problem in load_problems(context.spec.problems.train, ANYWHERE)}
    plans = read_jsonl(context.output("synthesize", PLANS), Plan, may_be_empty=True)
    candidates, usage = await _candidates(context, plans, problems)
    result = sort_candidates(candidates, problems, spec)
    hits = remove_contaminated(result, problems, context.spec.problems, spec)
    samples = training_samples(result.kept, problems, spec, context.seed)
    calibrations = _calibrations(candidates)

    directory = context.directory
    write_jsonl(directory / CANDIDATES, candidates)
    write_jsonl(directory / DROPPED, result.dropped)
    write_json(directory / DECONTAMINATION, [asdict(hit) for hit in hits])
    write_json(directory / CALIBRATION, [one.model_dump(mode="json") for one in calibrations])
    yields = result.yields
    write_json(directory / YIELD, yields)
    write_jsonl(directory / SAMPLES, samples)
    solved = len({candidate.problem_id for candidate in candidates if candidate.passed})
    counts = {"answers": yields.total, "kept": yields.kept, "problems solved": solved}
    aucs = {f"auc_{one.evaluator}": one.auc for one in calibrations if one.auc is not None}
    dropped = {f"dropped_{reason}": float(count) for reason, count in yields.dropped.items()}
    return StageResult(
        stage="convert",
        state="done",
        counts=counts,
        metrics={"answers": yields.total, "kept": yields.kept, "problems_solved": solved, **dropped, **aucs},
        usage=usage,
    )


async def _candidates(
    context: StageContext, plans: Sequence[Plan], problems: Mapping[str, Problem]
) -> tuple[list[Candidate], StageUsage]:
    spec = context.spec
    with Journal(context.directory / JOURNAL) as journal:
        # A plan that the search has executed has its answers already.
        earlier = read_journal(context.output("synthesize", JOURNAL))
        async with contextlib.AsyncExitStack() as stack:
            policy = await stack.enter_async_context(open_policy(context, journal, earlier))
            sandbox = await stack.enter_async_context(Sandbox(spec.sandbox))
            models = await open_evaluator(stack, context, policy, journal)
            scorer = AnswerScorer(LadderEvaluator(models[-1]), spec.conversion.gate, context.seed)
            coder = Coder(policy, sandbox, spec.conversion.sampling, spec.conversion.samples_per_plan, context.seed)
            context.progress.begin("writing and running code", total=len(plans), unit="plans")
            done = passed = 0

            async def convert(plan: Plan) -> list[Candidate]:
                nonlocal done, passed
                problem = problems[plan.problem_id]
                found = await scorer.scored(problem, await _answers(coder, plan, problem))
                done += 1
                passed += sum(candidate.passed is True for candidate in found)
                context.progress.update(done, note=f"{passed} passed")
                return found

            groups = await asyncio.gather(*(convert(plan) for plan in plans))
            for model in models:
                model.raise_if_dead()
            return [candidate for group in groups for candidate in group], stage_usage(
                *(model.usage for model in models)
            )


async def _answers(coder: Coder, plan: Plan, problem: Problem) -> list[Candidate]:
    """The answers to one plan with their verdicts; a failed request is a recorded reason, not the end of the others."""

    def candidate(index: int, answer: str = "", **known: object) -> Candidate:
        fields = {"code": None, "truncated": False, "mean_logprob": None, **known}
        return Candidate(
            id=f"{plan.problem_id}/{plan.index}/{index}",
            problem_id=plan.problem_id,
            plan_index=plan.index,
            sample_index=index,
            plan=plan.steps,
            value=plan.value,
            answer=answer,
            **fields,
        )

    try:
        completions = await coder.write(problem, plan.steps)
    except EngineError:
        return [candidate(index, reason="engine-error") for index in range(coder.samples)]

    async def judged(index: int) -> Candidate:
        completion = completions[index]
        extraction = read_code(problem, completion)
        known = {
            "code": extraction.code,
            "truncated": completion.finish_reason == "length",
            "mean_logprob": completion.mean_logprob,
            "reason": extraction.reason,
        }
        if extraction.code is not None and problem.tests:
            verdict = await run_tests(coder.sandbox, problem, extraction.code)
            known["passed"] = verdict.passed
            known["reason"] = "" if verdict.passed else f"{verdict.execution.outcome}: {verdict.execution.detail}"
        return candidate(index, completion.text, **known)

    return list(await asyncio.gather(*(judged(index) for index in range(len(completions)))))


def remove_contaminated(
    result: Sorted, problems: Mapping[str, Problem], sets: ProblemsSpec, spec: ConversionSpec
) -> list[Hit]:
    """Take out of the kept answers what resembles an evaluation problem, as S18 asks; returns the hits."""
    evaluation = {one.title: load_problems(one, ANYWHERE) for one in (sets.dev, *sets.test)}
    hits = decontaminate(
        [(one.id, problems[one.problem_id].statement, one.code or "") for one in result.kept],
        evaluation,
        spec.decontamination,
    )
    evidence = {hit.sample_id: hit for hit in reversed(hits)}
    for candidate in [one for one in result.kept if one.id in evidence]:
        hit = evidence[candidate.id]
        result.kept.remove(candidate)
        result.drop(candidate, "contaminated", f"{hit.kind} of {hit.problem_id} in {hit.evaluation_set}")
    return hits


def training_samples(
    kept: Sequence[Candidate], problems: Mapping[str, Problem], spec: ConversionSpec, seed: int
) -> list[TrainingSample]:
    """Training records (S17): question to plan and code, or to code alone in the ablation without thinking (S23)."""
    pool = spec.instructions or [INSTRUCTION]
    samples = []
    for candidate in kept:
        # Seeded by the answer's own id: the draw must not depend on what else was kept.
        instruction = random.Random(f"{seed}/{candidate.id}").choice(pool)
        code = fenced(candidate.code or "")
        answer = f"{plan_text(candidate.plan)}\n\n{code}" if spec.thinking and candidate.plan else code
        samples.append(
            TrainingSample(
                id=candidate.id,
                problem_id=candidate.problem_id,
                prompt=question(problems[candidate.problem_id], instruction),
                answer=answer,
            )
        )
    return samples


def _calibrations(candidates: Sequence[Candidate]) -> list[Calibration]:
    """How well each score told right answers from wrong ones, over all answers with a verdict."""
    judged = [candidate for candidate in candidates if candidate.passed is not None]

    def seen(score: Callable[[Candidate], float | None], *, of_plan: bool = False) -> list[Observation]:
        return [
            Observation(one.problem_id, score(one), bool(one.passed), scored=f"{one.plan_index}" if of_plan else "")
            for one in judged
        ]

    return [
        calibrate("likelihood", seen(lambda one: one.mean_logprob)),
        calibrate("plan_value", seen(lambda one: one.value, of_plan=True)),
        calibrate("ladder", seen(lambda one: one.score)),
    ]
