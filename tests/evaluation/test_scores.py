"""Scores of several sets put together."""

from __future__ import annotations

import pytest

from perseid.evaluation.scores import EvaluationResult, ProblemScore, compare, estimate_pass_at, pooled


def scored(name: str, passed: dict[str, int], model: str = "m", n: int = 4) -> EvaluationResult:
    problems = tuple(ProblemScore(problem_id=one, n=n, passed=count) for one, count in passed.items())
    return EvaluationResult(
        set_name=name,
        model_id=model,
        n=n,
        confidence=0.95,
        pass_at=estimate_pass_at(problems, [1], resamples=100, confidence=0.95, seed=0),
        problems=problems,
        tokens=10,
        prompt_tokens=20,
        truncated=0,
        closed_code_share=0.5,
        failed_problems=0,
        seconds=1.0,
    )


def test_sets_are_pooled_item_by_item_whatever_their_sizes() -> None:
    both = pooled("all", [scored("a", {"x": 4}), scored("b", {"x": 0, "y": 0, "z": 0})], [1], resamples=100, seed=0)
    assert both.set_name == "all"
    assert both.at(1).value == 0.25, "four items, of which one is right, and no mean of means"
    assert [one.problem_id for one in both.problems] == ["a/x", "b/x", "b/y", "b/z"]
    assert (both.tokens, both.closed_code_share) == (20, 0.5)


def test_pooled_sets_of_two_models_are_paired_by_item() -> None:
    before = pooled("all", [scored("a", {"x": 0}), scored("b", {"x": 4})], [1], resamples=100, seed=0)
    after = pooled("all", [scored("a", {"x": 4}, "n"), scored("b", {"x": 4}, "n")], [1], resamples=100, seed=0)
    paired = compare(before, after, resamples=100, confidence=0.95, seed=0)
    assert (paired.difference, paired.up, paired.down, paired.same) == (0.5, 1, 0, 1)


def test_one_set_is_itself_and_scores_of_two_models_are_refused() -> None:
    one = scored("a", {"x": 1})
    assert pooled("all", [one], [1], resamples=100, seed=0) is one
    with pytest.raises(ValueError, match="several models"):
        pooled("all", [one, scored("b", {"x": 1}, "other")], [1], resamples=100, seed=0)
