"""The search end to end on a scripted engine: S1 to S14 where they are about the whole."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest
from search_scripted import ScriptedEngine, asked, by_kind, completion, execute, obliging, problem

from perseid.api.search import EvaluatorSpec, RolloutSpec, SearchSpec
from perseid.engines.protocol import EngineError, Request
from perseid.search.build import build_search
from perseid.search.parsing import SCORES
from perseid.search.plans import select_plans
from perseid.search.profiles import resolve
from perseid.search.prompts import render_steps
from perseid.search.tree import Tree

REFERENCE = resolve(SearchSpec(profile="reference"))
PAPER = resolve(SearchSpec(profile="paper"))
SMALL = dataclasses.replace(
    resolve(SearchSpec(evaluator=EvaluatorSpec(type="ladder"), rounds=2, branch=2, end_gate=8.8)), answer_by="value"
)


async def run(config, script=obliging, *, seed=0, the_problem=None, clock=None, **engine_fields):
    engine = ScriptedEngine(script, **engine_fields)
    extra = {} if clock is None else {"clock": clock}
    result = await build_search(config, engine, **{"execute": execute, **extra}).search(the_problem or problem(), seed)
    return engine, result


def with_(config, **fields):
    return dataclasses.replace(config, **fields)


def tree_of(result) -> Tree:
    return Tree.from_dict(result.tree)


def scores(*values: int):
    """Score calls get these, one after the other, then the last for ever."""
    rest = list(values)
    return lambda request: [str(rest.pop(0) if len(rest) > 1 else rest[0])]


async def test_s01_one_engine_serves_every_call_and_an_evaluator_engine_changes_score_calls_only():
    def script():
        return by_kind(score=scores(4, 4, 4, 4, 4, 6))

    policy, evaluator = ScriptedEngine(script(), "policy"), ScriptedEngine(script(), "evaluator")
    both, alone = await run(REFERENCE, script())
    assert {request.kind for request in both.requests} == {"propose", "reflect", "score", "simulate", "check"}
    result = await build_search(REFERENCE, policy, evaluator).search(problem(), 0)
    assert {request.kind for request in evaluator.requests} == {"score"}
    assert {request.kind for request in policy.requests} == {"propose", "reflect", "simulate", "check"}
    assert result.tree == alone.tree


@pytest.mark.parametrize("profile", ["reference", "paper", "recommended"])
async def test_s02_a_replay_gives_a_byte_identical_tree_and_the_same_requests(profile):
    config = resolve(SearchSpec(profile=profile, rounds=6))
    first, one = await run(config, seed=5)
    second, two = await run(config, seed=5)
    assert tree_of(one).to_json() == tree_of(two).to_json()
    assert one == two
    assert first.requests == second.requests
    _, other = await run(config, seed=6)
    assert tree_of(other).to_json() != tree_of(one).to_json()


async def test_s02_the_prompt_of_a_step_shows_the_steps_that_its_node_stands_on():
    config = with_(SMALL, rounds=5, branch=2, max_depth=8, unvisited_bonus=0.0)
    engine, result = await run(config)
    tree = tree_of(result)
    deepest = max(tree.nodes, key=lambda node: node.depth)
    assert deepest.depth >= 3
    for node in tree.lineage(deepest):
        assert any(render_steps(tree.path(node)) in asked(request) for request in engine.of("score"))


async def test_s03_ties_of_selection_are_drawn_by_seed():
    config = with_(SMALL, rounds=2, branch=3)
    script = by_kind(score=["5"])
    chosen = Counter()
    for seed in range(12):
        picks = []
        for _ in range(2):
            _, result = await run(config, script, seed=seed)
            tree = tree_of(result)
            picks.append([node.id for node in tree.children(tree.root) if node.expanded])
        assert picks[0] == picks[1]
        chosen[tuple(picks[0])] += 1
    assert len(chosen) > 1


async def test_s04_duplicates_are_replaced_until_there_are_three_children():
    def propose(request: Request):
        fresh = request.sampling.n < 3
        return ["Sort it.", "Next step: sort it", "Return it."] if not fresh else ["Reverse it."]

    config = with_(SMALL, rounds=1, branch=3)
    engine, result = await run(config, by_kind(propose=propose))
    tree = tree_of(result)
    assert [child.step for child in tree.children(tree.root)] == ["Sort it.", "Return it.", "Reverse it."]
    assert result.counts["rejected.duplicate"] == 1
    assert "shortfall.propose" not in result.counts
    assert len({request.sampling.seed for request in engine.of("propose")}) == 2


async def test_s04_a_model_that_only_repeats_itself_leaves_a_counted_shortfall():
    config = with_(SMALL, rounds=1, branch=3)
    engine, result = await run(config, by_kind(propose=lambda request: ["Sort it."] * request.sampling.n))
    assert len(tree_of(result).nodes) == 2
    assert result.counts["shortfall.propose"] == 2
    assert len(engine.of("propose")) == 4


async def test_s04_no_proposal_at_all_is_a_dead_end_and_no_error():
    _, result = await run(SMALL, by_kind(propose=lambda request: [""] * request.sampling.n))
    assert (result.stop_reason, result.paths) == ("exhausted", ())
    assert result.tree["nodes"][0]["terminal"] == "dead-end"


async def test_s05_with_history_the_prompt_of_a_sibling_contains_its_elder_siblings():
    config = with_(SMALL, rounds=1, branch=3, siblings="history")
    engine, result = await run(config)
    tree = tree_of(result)
    children = [child.step for child in tree.children(tree.root)]
    assert len(engine.of("propose")) == 3
    for place, request in enumerate(engine.of("propose")):
        assert [step in asked(request) for step in children] == [elder < place for elder in range(3)]


async def test_s05_with_sampling_siblings_are_samples_of_one_request():
    engine, _ = await run(with_(SMALL, rounds=1, branch=3))
    assert [request.sampling.n for request in engine.of("propose")] == [3]


async def test_s06_a_reflection_precedes_the_expansion_and_stands_in_its_prompt():
    config = with_(SMALL, reflection="before-expansion")
    engine, _ = await run(config, by_kind(reflect=["Analysis: mind the empty list."]))
    kinds = [request.kind for request in engine.requests]
    assert kinds.index("reflect") < kinds.index("propose")
    assert all("mind the empty list." in asked(request) for request in engine.of("propose"))


async def test_s06_the_end_tag_stops_a_branch_but_never_the_root():
    config = with_(SMALL, rounds=9, branch=2, reflection="before-expansion")
    _, result = await run(config, by_kind(reflect=["<end>"], score=["5"]))
    tree = tree_of(result)
    assert tree.root.terminal is None
    assert [(child.terminal, child.children) for child in tree.children(tree.root)] == [("reflection", [])] * 2
    assert result.stop_reason == "exhausted"
    assert all(path.steps for path in result.paths)


async def test_s06_not_solved_does_not_end_a_branch():
    config = with_(SMALL, reflection="before-expansion")
    _, result = await run(config, by_kind(reflect=["Analysis: the problem is not solved."]))
    assert not any(node.terminal == "reflection" for node in tree_of(result).nodes)
    assert max(node.depth for node in tree_of(result).nodes) == 2


async def test_s06_a_reflection_cannot_end_a_path_below_the_fewest_steps():
    config = with_(SMALL, rounds=9, branch=1, max_depth=9, min_steps=3, reflection="before-expansion")
    _, result = await run(config, by_kind(reflect=["<end>"], score=["5"]))
    assert [node.terminal for node in tree_of(result).nodes] == [None, None, None, "reflection"]


async def test_s07_a_score_that_cannot_be_read_is_asked_for_again_and_then_none_and_never_five():
    config = with_(SMALL, rounds=1, branch=2)
    engine, result = await run(config, by_kind(score=["I think it is good"]))
    assert [node.score for node in tree_of(result).nodes] == [None, None, None]
    assert result.counts["failed.score"] == 2
    assert len(engine.of("score")) == 8
    assert len({request.sampling.seed for request in engine.of("score")}) == 8
    assert all(path.value is None for path in result.paths)


async def test_s07_a_second_answer_that_is_a_score_counts():
    _, result = await run(with_(SMALL, rounds=1, branch=1), by_kind(score=scores_then("well", "8")))
    assert tree_of(result).nodes[1].score == 8.0
    assert tree_of(result).nodes[1].evidence == {"ladder": 8.0, "band": "defective"}
    assert "failed.score" not in result.counts


def scores_then(*texts: str):
    rest = list(texts)
    return lambda request: [rest.pop(0)]


async def test_s07_scores_are_constrained_and_their_probabilities_are_used_where_they_are_known():
    logprobs = dict.fromkeys(SCORES, -math.inf) | {"6": math.log(0.5), "9": math.log(0.5)}
    answer = completion("9", choice_logprobs=logprobs)
    engine, result = await run(with_(SMALL, rounds=1, branch=1), by_kind(score=[answer]))
    assert tree_of(result).nodes[1].score == pytest.approx(7.5, abs=1e-9)
    assert all(request.sampling.choices == SCORES for request in engine.of("score"))
    _, spoken = await run(with_(REFERENCE, rounds=1, branch=1), by_kind(score=[answer]))
    assert tree_of(spoken).nodes[1].score == 9.0


async def test_s08_what_is_judged_stands_whole_in_the_prompt():
    long_step = "Next step: " + "look at every single word of the list and " * 40 + "return it."
    config = with_(SMALL, rounds=1, branch=1)
    engine, result = await run(config, by_kind(propose=[long_step]))
    (path,) = result.paths
    assert len(path.steps[0]) > 1500
    assert all(render_steps(path.steps) in asked(request) for request in engine.of("score"))


async def test_s08_examples_are_left_out_before_anything_that_is_judged():
    whole, _ = await run(with_(SMALL, rounds=1))
    longest = max(sum(len(message.content) for message in request.messages) for request in whole.requests)
    engine, result = await run(with_(SMALL, rounds=1), context=longest // 2)
    assert result.failure is None
    assert result.counts["examples-dropped.score"] == 2
    fits = [request for request in engine.requests if len(request.messages) == 2]
    assert all(problem().statement in asked(request) for request in fits)
    assert {render_steps(path.steps) for path in result.paths} <= {
        asked(request).split("Steps so far:\n")[1].split("\nScore")[0] for request in fits if request.kind == "score"
    }


async def test_s08_a_prompt_that_cannot_fit_fails_its_problem_with_that_reason():
    _, result = await run(SMALL, context=50)
    assert (result.stop_reason, result.failure.reason) == ("failed", "prompt-too-long")
    assert select_plans(result, count=1, min_words=0)[1][0].reason == "prompt-too-long"


async def test_a_model_call_that_fails_for_good_is_recorded_with_the_tree_so_far():
    def score(request: Request):
        raise EngineError("the endpoint is gone")

    engine, result = await run(SMALL, by_kind(score=score))
    assert result.failure.reason == "engine-error"
    assert "the endpoint is gone" in result.failure.detail
    assert result.counts["completions.propose"] == 2
    assert engine.in_flight == 0


async def test_s09_a_score_of_nine_stops_at_the_gate_and_an_eight_does_not():
    config = with_(REFERENCE, rounds=4)
    _, nine = await run(config, by_kind(score=["9"]))
    assert (nine.stop_reason, nine.paths[0].value) == ("gate", 9.0)
    assert nine.counts["requests.propose"] == 1
    _, eight = await run(config, by_kind(score=["8"]))
    assert eight.stop_reason == "rounds"
    assert eight.counts["requests.propose"] == 4


async def test_s09_the_path_that_reached_the_gate_is_the_answer():
    config = with_(SMALL, rounds=5, branch=2, end_gate=6.0, exploration=0.0)
    _, result = await run(config, by_kind(score=scores(2, 7)))
    assert result.stop_reason == "gate"
    assert result.paths[0].node == 2


async def test_s09_three_steps_at_least_are_honoured_by_the_gate_and_by_the_answer():
    config = with_(REFERENCE, rounds=12, min_steps=3)
    _, result = await run(config, by_kind(score=["10"]))
    assert result.stop_reason == "gate"
    assert len(result.paths[0].steps) == 3


async def test_s09_the_time_limit_stops_before_the_next_round():
    config = with_(SMALL, rounds=100, time_limit_seconds=10.0)
    times = iter([0.0, 0.0, 6.0, 12.0])
    _, result = await run(config, clock=lambda: next(times))
    assert result.stop_reason == "time"
    assert result.counts["requests.propose"] == 2
    assert result.paths


async def test_s09_the_depth_limit_ends_every_path_and_then_the_search():
    config = with_(SMALL, rounds=1000, branch=2, max_depth=2)
    _, result = await run(config)
    assert result.stop_reason == "exhausted"
    assert max(len(path.steps) for path in result.paths) == 2
    assert len(result.tree["nodes"]) == 1 + 2 + 4


async def test_s10_a_roll_out_blends_its_best_score_into_the_best_new_child():
    # Children 3, 6, 4; the roll-out from the 6 finds 2 and 9: 0.5 * 6 + 0.5 * 9.
    config = with_(REFERENCE, rounds=1)
    _, result = await run(config, by_kind(score=scores(3, 6, 4, 2, 9)))
    tree = tree_of(result)
    assert [node.value for node in tree.children(tree.root)] == [3.0, pytest.approx(7.5, abs=1e-9), 4.0]
    assert [node.visits for node in tree.children(tree.root)] == [0, 1, 0]
    assert tree.root.value == pytest.approx(7.5, abs=1e-9)
    assert len(tree.nodes) == 4


async def test_s10_the_steps_of_a_roll_out_can_be_kept_as_nodes():
    config = with_(REFERENCE, rounds=1, rollout=dataclasses.replace(REFERENCE.rollout, attach=True, steps=2))
    _, result = await run(config, by_kind(score=scores(3, 6, 4, 2, 9, 5, 1)))
    tree = tree_of(result)
    kept = [node for node in tree.nodes if node.simulated]
    assert [(node.score, node.depth, node.visits) for node in kept] == [(2, 2, 0), (9, 2, 0), (5, 3, 0), (1, 3, 0)]
    assert kept[2].parent == kept[1].id
    assert tree.nodes[2].value == pytest.approx(7.5, abs=1e-9)


async def test_s10_a_random_roll_out_scores_only_the_step_that_it_drew():
    config = resolve(SearchSpec(profile="reference", rounds=1, rollout=RolloutSpec(policy="random", branches=4)))
    engine, result = await run(config, by_kind(score=["4"]))
    assert len(engine.of("score")) == 3 + 1
    assert result.counts["completions.simulate"] == 4


async def test_s11_the_modes_differ_in_which_new_children_feed_their_ancestors():
    script = lambda: by_kind(score=scores(2, 6))  # noqa: E731
    _, weighted = await run(with_(SMALL, rounds=1), script())
    _, all_children = await run(with_(SMALL, rounds=1, backpropagation="all-children"), script())
    assert tree_of(weighted).root.value == pytest.approx(6.0, abs=1e-9)
    assert tree_of(all_children).root.value == pytest.approx(4.0, abs=1e-9)


async def test_s12_the_answer_is_the_best_path_and_all_distinct_paths_are_listed_in_order():
    _, result = await run(with_(SMALL, rounds=4, branch=3))
    values = [path.value for path in result.paths]
    assert values == sorted(values, reverse=True)
    assert len({path.steps for path in result.paths}) == len(result.paths) == len(result.tree["nodes"]) - 1


async def test_s12_the_recommended_answer_ends_where_the_best_single_step_ends():
    """By value, a step with one visited child ties with it and the deeper one wins, whatever the child adds."""
    config = with_(SMALL, branch=1)
    _, by_value = await run(config, by_kind(score=scores(8, 4)))
    _, by_score = await run(with_(config, answer_by="score"), by_kind(score=scores(8, 4)))
    assert [len(by_value.paths[0].steps), len(by_score.paths[0].steps)] == [2, 1]
    assert [by_value.paths[0].value, by_score.paths[0].value] == [4.0, 8.0]


async def test_s13_the_completeness_check_is_recorded_in_the_result_and_in_the_plan():
    config = with_(SMALL, completeness_check=True, check_min_steps=1)
    for answer, verdict in (("solved", True), ("unsolved", False), ("not solved", None)):
        engine, result = await run(config, by_kind(check=[answer]))
        plans, _ = select_plans(result, count=2, min_words=0)
        assert result.solved is verdict
        assert [plan.solved for plan in plans] == [verdict, None]
        assert all(request.sampling.choices == ("solved", "unsolved") for request in engine.of("check"))
    assert result.counts["failed.check"] == 1


async def test_s14_short_plans_are_dropped_with_their_reason_and_the_numbers_add_up():
    steps = ["Sort.", "Go through the words and take the longest.", "Return it now."]
    config = with_(SMALL, rounds=1, branch=3)
    _, result = await run(config, by_kind(propose=steps, score=scores(9, 5, 3)))
    plans, dropped = select_plans(result, count=5, min_words=3)
    assert [plan.steps for plan in plans] == [(steps[1],), (steps[2],)]
    assert [(each.reason, each.id) for each in dropped] == [("plan-too-short", "p1/plan-0")]
    assert len(plans) + len(dropped) == len(result.paths)
    one, none = select_plans(result, count=1, min_words=0)
    assert (one[0].steps, none) == ((steps[0],), [])


async def test_s14_steps_hold_no_code():
    script = by_kind(propose=["Sort it.\n```python\nsorted(x)\n```"])
    _, result = await run(with_(SMALL, rounds=1, branch=1), script)
    assert result.paths[0].steps == ("Sort it.",)


def completions(result) -> Counter[str]:
    return Counter({k.split(".")[1]: n for k, n in result.counts.items() if k.startswith("completions.")})


async def test_the_reference_profile_makes_13_completions_a_round_and_26_in_two_and_one_check():
    """Methods D.1 counts one call for each proposal; one request with n samples gives them here, so requests are fewer.

    Scores stay low, so that the gate does not stop it, and the second round's children are better than the first's, so
    that the answer has the two steps that the check asks for.
    """
    _, one = await run(with_(REFERENCE, rounds=1), by_kind(score=["4"]))
    assert completions(one) == {"reflect": 3, "propose": 3, "score": 5, "simulate": 2}
    assert completions(one).total() == 13
    _, two = await run(REFERENCE, by_kind(score=scores(4, 4, 4, 4, 4, 6)))
    counted = completions(two)
    assert counted.pop("check") == 1
    assert counted == {"reflect": 6, "propose": 6, "score": 10, "simulate": 4}
    assert counted.total() == 26
    assert sum(n for name, n in two.counts.items() if name.startswith("requests.")) == 27 - 2 * (2 + 1)
    assert len(two.paths[0].steps) == 2


async def test_the_paper_profile_proposes_evaluates_and_reflects_once_for_each_child():
    """Methods D.1: R x 3b = 18 for two rounds and three children, without roll-outs."""
    _, result = await run(PAPER, by_kind(score=scores(4, 4, 4, 6)))
    counted = completions(result)
    counted.pop("check")
    assert counted == {"propose": 6, "score": 6, "reflect": 6}


async def test_siblings_are_scored_together():
    engine, _ = await run(with_(SMALL, rounds=1, branch=3))
    assert engine.most_in_flight == 3


async def test_only_the_statement_of_a_problem_is_ever_shown():
    secret = problem(
        "p1", tests=("assert p1(4) == 7  # SECRET-TEST",), reference="SECRET-REFERENCE", setup="SECRET-SETUP"
    )
    for spec in (SearchSpec(profile="reference"), SearchSpec(profile="paper"), SearchSpec(algorithm="cot")):
        engine, _ = await run(resolve(spec), the_problem=secret)
        assert engine.requests
        for request in engine.requests:
            text = "".join(message.content for message in request.messages)
            assert secret.statement in text
            assert "SECRET" not in text


async def test_prompts_of_a_kind_share_everything_but_their_last_turn():
    engine, _ = await run(REFERENCE)
    for kind in ("propose", "reflect", "score", "simulate"):
        assert len({request.messages[:-1] for request in engine.of(kind)}) == 1
        assert all(asked(request).startswith(f"Problem: {problem().statement}") for request in engine.of(kind))
