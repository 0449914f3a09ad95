"""The search for plans of some problems, as a stage or a shard of it does it: an engine, a journal, many trees at once.

Writes `trees.jsonl`, `plans.jsonl` and `dropped.jsonl`, each in the problems' order.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from perseid.api.files import DROPPED, PLANS, TREES
from perseid.api.layout import JOURNAL
from perseid.api.result import StageResult, StageUsage
from perseid.data.jsonl import write_jsonl
from perseid.data.records import Dropped, Plan, Problem, TreeRecord
from perseid.engines.journal import Journal
from perseid.sandbox.pool import Sandbox
from perseid.search.build import build_search
from perseid.search.forest import grow_forest
from perseid.search.outcome import Search, SearchResult
from perseid.search.plans import select_plans
from perseid.search.profiles import SearchConfig, resolve
from perseid.stages.coder import Coder
from perseid.stages.context import StageContext
from perseid.stages.models import open_evaluator, open_policy
from perseid.stages.spending import stage_usage


async def search_problems(context: StageContext, problems: Sequence[Problem]) -> StageResult:
    """Search every problem. Raises EngineError where the model cannot be asked any more; what fails in one problem is
    its result."""
    spec = context.spec
    config = resolve(spec.synthesis.search)
    if spec.synthesis.drop_unsolved:
        config = replace(config, completeness_check=True)
    if not problems:
        return _written(context, [], config, StageUsage())  # a shard that got none needs no model
    with Journal(context.directory / JOURNAL) as journal:
        async with contextlib.AsyncExitStack() as stack:
            policy = await stack.enter_async_context(open_policy(context, journal))
            models = await open_evaluator(stack, context, policy, journal)
            sandbox = await stack.enter_async_context(Sandbox(spec.sandbox))
            coder = Coder(policy, sandbox, spec.conversion.sampling, spec.conversion.samples_per_plan, context.seed)
            search = build_search(
                config, policy, models[-1], coder.share_of_tests, chains=spec.synthesis.plans_per_problem
            )
            policy.on_call = lambda calls: context.progress.say(f"{calls} model calls")
            results = await _search_all(context, search, problems)
            for model in models:
                model.raise_if_dead()
    return _written(context, results, config, stage_usage(*(model.usage for model in models)))


def _written(
    context: StageContext, results: Sequence[SearchResult], config: SearchConfig, usage: StageUsage
) -> StageResult:
    spec = context.spec.synthesis
    plans: list[Plan] = []
    dropped: list[Dropped] = []
    for result in results:
        chosen, left_out = select_plans(result, count=spec.plans_per_problem, min_words=config.min_plan_words)
        unsolved = [plan for plan in chosen if spec.drop_unsolved and plan.solved is False]
        plans += [plan for plan in chosen if plan not in unsolved]
        dropped += left_out + [_unsolved(plan) for plan in unsolved]
    write_jsonl(context.directory / TREES, map(_tree_record, results))
    write_jsonl(context.directory / PLANS, plans)
    write_jsonl(context.directory / DROPPED, dropped)
    counts = {
        "problems": len(results),
        "steps": sum(len(result.tree["nodes"]) - 1 for result in results),
        "plans": len(plans),
    }
    stopped = Counter(result.stop_reason for result in results)
    return StageResult(
        stage=context.stage,
        state="done",
        counts=counts,
        metrics={**counts, "plans_dropped": len(dropped), **{f"stopped_{why}": n for why, n in stopped.items()}},
        usage=usage,
    )


async def _search_all(context: StageContext, search: Search, problems: Sequence[Problem]) -> list[SearchResult]:
    """The results in the problems' order, whatever order they came in."""
    context.progress.begin("searching", total=len(problems), unit="problems")
    found: dict[str, SearchResult] = {}
    forest = grow_forest(search, problems, seed=context.seed, trees_in_flight=context.spec.synthesis.trees_in_flight)
    async with contextlib.aclosing(forest) as results:
        async for result in results:
            found[result.problem_id] = result
            context.progress.update(len(found))
    return [found[problem.id] for problem in problems]


def _unsolved(plan: Plan) -> Dropped:
    return Dropped(
        id=f"{plan.problem_id}/plan-{plan.index}",
        problem_id=plan.problem_id,
        reason="unsolved",
        detail="the model's own completeness check",
    )


def _tree_record(result: SearchResult) -> TreeRecord:
    return TreeRecord(
        problem_id=result.problem_id,
        stop_reason=result.stop_reason,
        solved=result.solved,
        failure=None if result.failure is None else f"{result.failure.reason}: {result.failure.detail}",
        paths=tuple({"steps": list(path.steps), "value": path.value} for path in result.paths),
        counts=result.counts,
        tree=result.tree,
    )
