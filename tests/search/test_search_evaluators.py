"""What scores a path."""

from __future__ import annotations

import math

import pytest
from search_scripted import ScriptedEngine, by_kind, problem

from perseid.api.search import BlendWeights, EvaluatorSpec, SearchSpec
from perseid.search.build import SearchConfigError, build_evaluator, build_search
from perseid.search.calls import Context
from perseid.search.evaluators import Evaluation, ExecutionEvaluator, LikelihoodEvaluator
from perseid.search.policy import Proposal
from perseid.search.profiles import resolve
from perseid.search.seeds import Seeds

PATH = (Proposal("Sort it.", -2.0, 4), Proposal("Return it.", -6.0, 12))


def context() -> Context:
    return Context(problem(), Seeds(0, "p1"))


def evaluator(engine, kind="blend", execute=None, **weights):
    spec = EvaluatorSpec(type=kind, weights=BlendWeights(**weights))
    return build_evaluator(resolve(SearchSpec(evaluator=spec)), engine, execute)


async def test_a_likelihood_is_ten_times_the_geometric_mean_of_the_token_probabilities():
    got = await LikelihoodEvaluator().score(
        context(), (Proposal("Sort it.", -2.0, 4), Proposal("x", -3.0, 1)), node="r"
    )
    assert got.score == pytest.approx(10 * math.exp(-3.0), abs=1e-9)
    assert got.evidence["path_likelihood"] == pytest.approx(10 * math.exp(-5.0 / 5), abs=1e-9)


@pytest.mark.parametrize("proposal", [Proposal("a", None, 3), Proposal("a", -1.0, 0), Proposal("a", -math.inf, 2)])
async def test_a_step_without_log_probabilities_has_no_likelihood_and_is_counted(proposal):
    shared = context()
    assert (await LikelihoodEvaluator().score(shared, (proposal,), node="r")).score is None
    assert shared.ledger.counts["failed.likelihood"] == 1


async def test_execution_scores_the_share_of_tests_that_pass():
    seen = []

    async def run_plan(the_problem, steps):
        seen.append((the_problem.id, list(steps)))
        return 0.75

    assert await ExecutionEvaluator(run_plan).score(context(), PATH, node="r") == Evaluation(7.5, {"execution": 7.5})
    assert seen == [("p1", ["Sort it.", "Return it."])]


async def test_a_plan_that_cannot_be_run_has_no_score_and_an_impossible_share_is_an_error():
    async def nothing(the_problem, steps):
        return None

    async def too_much(the_problem, steps):
        return 1.5

    shared = context()
    assert (await ExecutionEvaluator(nothing).score(shared, PATH, node="r")).score is None
    assert shared.ledger.counts["failed.execution"] == 1
    with pytest.raises(ValueError, match=r"1\.5"):
        await ExecutionEvaluator(too_much).score(context(), PATH, node="r")


async def test_a_blend_is_the_weighted_mean_and_leaves_out_what_has_no_score():
    engine = ScriptedEngine(by_kind(score=["6"]))

    async def half(the_problem, steps):
        return 0.5

    async def nothing(the_problem, steps):
        return None

    whole = await evaluator(engine, execute=half, ladder=1, likelihood=0, execution=3).score(context(), PATH, node="r")
    assert whole.score == pytest.approx((6 + 3 * 5) / 4, abs=1e-9)
    assert whole.evidence == {"ladder": 6.0, "band": "incomplete", "execution": 5.0}
    part = await evaluator(engine, execute=nothing, ladder=1, likelihood=0, execution=3).score(
        context(), PATH, node="r"
    )
    assert part.score == 6.0
    none = await evaluator(engine, execute=nothing, ladder=0, likelihood=0, execution=1).score(
        context(), PATH, node="r"
    )
    assert none.score is None


@pytest.mark.parametrize("kind", ["execution", "blend"])
def test_execution_without_something_that_executes_is_refused(kind):
    config = resolve(SearchSpec(evaluator=EvaluatorSpec(type=kind)))
    with pytest.raises(SearchConfigError, match="likelihood or ladder"):
        build_search(config, ScriptedEngine())


def test_a_blend_without_weight_on_execution_needs_nothing_that_executes():
    evaluator(ScriptedEngine(), ladder=1, likelihood=1, execution=0)
