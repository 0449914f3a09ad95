"""Profiles resolve to what their golden files say, and a spec's own fields win."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perseid.api.search import BlendWeights, EvaluatorSpec, RolloutSpec, SearchSpec
from perseid.search.profiles import PAPER, PROFILES, RECOMMENDED, REFERENCE, resolve

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("profile", ["recommended", "paper", "reference"])
def test_a_profile_resolves_to_its_golden_file(profile):
    golden = json.loads((GOLDEN / f"{profile}.json").read_text())
    assert resolve(SearchSpec(profile=profile)).to_dict() == golden


def test_every_field_that_a_spec_gives_wins_over_its_profile():
    said = {
        "rounds": 7,
        "branch": 5,
        "keep": 4,
        "exploration": 1.25,
        "unvisited": "first",
        "unvisited_bonus": 3.0,
        "siblings": "history",
        "reflection": "every-node",
        "end_gate": 9.5,
        "min_steps": 2,
        "max_depth": 9,
        "time_limit_seconds": 4.5,
        "backpropagation": "all-children",
        "completeness_check": True,
        "min_plan_words": 0,
        "temperature": 0.0,
        "top_p": 0.5,
        "max_step_tokens": 99,
        "max_reflection_tokens": 77,
    }
    rollout = {"policy": "random", "branches": 9, "steps": 4, "alpha": 0.0, "attach": False}
    spec = SearchSpec(algorithm="tot", rollout=RolloutSpec(**rollout), **said)
    assert set(said) | {"algorithm", "profile", "evaluator", "rollout"} == set(SearchSpec.model_fields)
    config = resolve(spec)
    assert config.algorithm == "tot"
    assert {name: getattr(config, name) for name in said} == said
    assert {name: getattr(config.rollout, name) for name in rollout} == rollout


def test_the_baselines_have_a_depth_of_their_own_where_the_profile_has_none():
    assert resolve(SearchSpec(profile="reference", algorithm="tot")).max_depth == 4
    assert resolve(SearchSpec(profile="reference", algorithm="cot", max_depth=9)).max_depth == 9


def test_an_evaluator_of_the_spec_keeps_the_profiles_way_of_reading_a_score():
    spec = EvaluatorSpec(type="blend", weights=BlendWeights(ladder=2.0, likelihood=0.0, execution=3.0))
    for name, profile in PROFILES.items():
        evaluator = resolve(SearchSpec(profile=name, evaluator=spec)).evaluator
        assert (evaluator.type, evaluator.ladder_weight, evaluator.execution_weight) == ("blend", 2.0, 3.0)
        assert evaluator.ladder_reading == profile.evaluator.ladder_reading


def test_paper_and_reference_differ_where_the_figure_differs_from_the_code():
    paper, reference = PAPER.to_dict(), REFERENCE.to_dict()
    differing = {name for name in paper if paper[name] != reference[name]}
    assert differing == {"profile", "reflection", "backpropagation", "rollout"}


def test_the_recommended_profile_asks_the_model_for_proposals_alone():
    assert RECOMMENDED.evaluator.type == "blend"
    assert RECOMMENDED.evaluator.ladder_weight == 0
    assert (RECOMMENDED.reflection, RECOMMENDED.rollout.policy) == ("none", "none")
    assert not RECOMMENDED.completeness_check
