"""The efficacy benchmark's arithmetic, and what it does with results that are old, missing or bad."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from perseid.data.records import Candidate

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import efficacy
import efficacy_tables
from efficacy_outcomes import Data, Outcome, Scores, Share, _agreement, _ordering, _pass_rate, read_outcomes

COIN = Share(share=0.5, pairs=10)


def scores(*rates: float, cut_off: int = 0) -> Scores:
    return Scores(rates={f"p{n}": rate for n, rate in enumerate(rates)}, answers=8 * len(rates), cut_off=cut_off)


def outcome(arm: str = "evolve", seed: int = 0, after: Scores | None = None, **more: Any) -> Outcome:
    data = Data(
        calls=1, tokens=100, planning_tokens=0, prompt_tokens=10, cached_tokens=5, answers=4, right=2, pass_rate=0.5,
        distinct=2, solved=1, kept=2,
        by_plan_value=None, by_likelihood=COIN, same_plan_agree=COIN, other_plan_agree=COIN,
    )  # fmt: skip
    dev = Scores(rates={"q": 0.5}, answers=8, cut_off=0)
    base = {"pack-dev": dev, "pack-test": scores(0.0, 0.5, 0.25)}
    models = [{"pack-dev": dev, "pack-test": after or scores(0.5, 0.5, 0.5)}]
    settings = efficacy._digest(arm)
    known = {"settings": settings, "commit": None, "data": data, "base": base, "models": models, "seconds": 60.0}
    return Outcome.model_validate({"arm": arm, "seed": seed, "promoted": [True], **known, **more})


def candidate(problem: str, plan: int, passed: bool | None, value: float | None = None) -> Candidate:
    return Candidate(
        id=f"{problem}/{plan}", problem_id=problem, plan_index=plan, sample_index=0, plan=(), answer="", code="x",
        truncated=False, mean_logprob=None, value=value, passed=passed,
    )  # fmt: skip


def test_a_gain_is_the_mean_over_seeds_and_problems_and_its_interval_draws_both() -> None:
    before, after = scores(0.0, 0.5, 0.25), scores(0.5, 0.5, 0.5)
    once = efficacy_tables._difference([before], [after])
    assert once is not None
    assert once.value == pytest.approx(0.25)
    assert 0.0 <= once.low < 0.25 < once.high <= 0.5
    again = efficacy_tables._difference([before] * 3, [after] * 3)
    assert again is not None
    assert (again.value, again.low, again.high) == pytest.approx((once.value, once.low, once.high), abs=0.01)
    apart = efficacy_tables._difference([before] * 3, [after, after, scores(0.0, 0.0, 0.0)])
    assert apart is not None
    assert apart.value == pytest.approx((2 * 0.25 - 0.25) / 3)
    assert apart.high - apart.low > once.high - once.low, "seeds that disagree make it wide"


def test_a_gain_is_not_told_where_a_run_has_no_scores() -> None:
    assert efficacy_tables._difference([scores(0.5), None], [scores(0.5), scores(0.5)]) is None


def test_the_first_generation_of_the_evolution_is_the_baseline_without_a_plan() -> None:
    told = efficacy_tables.tables([outcome(), outcome("mcts, blend", after=scores(0.0, 0.5, 0.25))], "evolve")
    data, learned = (line for line in told.splitlines() if line.startswith("| no plan (1)"))
    assert "| 50 % |" in data
    assert "25.0 -> 50.0 %, +25.0" in learned
    _, learned = (line for line in told.splitlines() if line.startswith("| mcts, blend (1)"))
    assert "25.0 -> 25.0 %, +0.0" in learned
    assert learned.split("|")[-2].strip().startswith("-18.8 ["), "over four problems, of which dev's stayed"


def test_pairs_of_one_plan_tell_nothing_of_the_plans_value() -> None:
    answers = [candidate("a", 0, True, 9.0), candidate("a", 0, False, 9.0), candidate("a", 1, False, 5.0)]
    assert _ordering(answers, lambda one: one.value, of_plan=True) == Share(share=1.0, pairs=1)
    assert _ordering(answers, lambda one: one.value) == Share(share=0.75, pairs=2)
    assert _ordering(answers, lambda one: None) == Share(share=None, pairs=0)


def test_whether_a_plan_decides_is_seen_by_how_often_its_answers_agree() -> None:
    answers = [candidate("a", 0, True), candidate("a", 0, True), candidate("a", 1, False), candidate("b", 0, False)]
    assert _agreement(answers, same_plan=True) == Share(share=1.0, pairs=1)
    assert _agreement(answers, same_plan=False) == Share(share=0.0, pairs=2)


def test_a_pass_rate_counts_each_problem_once_however_many_answers_it_has() -> None:
    assert _pass_rate([candidate("easy", 0, True), *[candidate("hard", n, False) for n in range(9)]]) == 0.5
    assert _pass_rate([candidate("a", 0, True), candidate("a", 0, None)]) == 0.5, "no code is no right answer"


def test_the_tables_of_the_documentation_are_those_of_the_results() -> None:
    page = (efficacy.REPOSITORY / "docs" / "efficacy.md").read_text()
    told = efficacy_tables.tables(efficacy._current(read_outcomes()), "evolve")
    for table in told.split("\n\n"):
        assert table in page


def test_results_with_other_settings_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    today, old = outcome(), outcome(settings="0" * 16)
    assert efficacy._current([today, old, outcome(arm="evolve", seed=1)]) == [today, outcome(arm="evolve", seed=1)]
    assert "1 results with other settings" in capsys.readouterr().err


def test_a_run_that_fails_costs_no_other_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficacy, "FILE", tmp_path / "results" / "efficacy.jsonl")
    monkeypatch.setattr(efficacy, "read_outcomes", list)
    runs = {("evolve", 0): None, ("evolve", 1): outcome(seed=1)}
    monkeypatch.setattr(efficacy, "_run", lambda arm, seed, directory: runs[arm, seed])
    failed = efficacy._carry_out(list(runs), tmp_path, deadline=float("inf"))
    assert [one.split(":")[0] for one in failed] == ["evolve, seed 0"]
    assert Outcome.model_validate_json((tmp_path / "results" / "efficacy.jsonl").read_text()) == runs["evolve", 1]
