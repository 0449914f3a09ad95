"""What came out of a run, from fabricated results on disk, as values and as tables."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from fabricated_results import BETTER, RUN, WORSE, fabricate, score, write_scores
from perseid.api.base import replace
from perseid.api.layout import Layout
from perseid.api.meteor import QuestionsSpec
from perseid.api.reasons import Phase
from perseid.api.result import (
    Gain,
    GenerationResult,
    StageScore,
    StageUsage,
)
from perseid.api.stages import Method
from perseid.api.status import UsageTotals
from perseid.cli.tables import percent, print_summary
from perseid.report.summary import Summary, summarise


def shown(summary: Summary) -> str:
    out = io.StringIO()
    print_summary(Console(file=out, width=140), summary)
    return out.getvalue()


def test_a_promoted_model_is_compared_with_the_base_on_every_set(tmp_path: Path) -> None:
    status = fabricate(tmp_path, BETTER, WORSE)
    assert status.phase is Phase.COMPLETED
    summary = summarise(RUN, status, tmp_path)
    assert (summary.phase, summary.model, summary.promoted_generation) == ("Completed", "/m/0", 0)
    assert [(one.name, one.decides) for one in summary.sets] == [("dev", True), ("held-out", False)]
    for one in summary.sets:
        assert (one.problems, one.samples) == (4, 4)
        assert one.base[0] == 0.25
        assert one.promoted is not None
        assert one.promoted[0] == 0.6875
        assert one.gain is not None
        assert one.gain[0] == pytest.approx(0.4375)
        assert one.gain[1] <= one.gain[0] <= one.gain[2]
        assert (one.up, one.down) == (4, 0)
    assert [one.phase for one in summary.generations] == ["Promoted", "Rejected"]


def test_the_numbers_of_a_promoted_run_are_on_the_screen(tmp_path: Path) -> None:
    text = shown(summarise(RUN, fabricate(tmp_path, BETTER, WORSE), tmp_path))
    for said in (
        "dev (decides promotion)",
        "held-out (reported only)",
        "4 x 4",
        "25.0 % [12.5, 62.5]",
        "68.8 % [34.4, 84.4]",
        "+43.8 [",
        "4 / 0",
        "1,234",
        "50,000",
        "50%",
        "6,000",
        "1:30",
        "generation 0: kept 12 of 40 answers as training data; dropped 28: tests-failed 20, duplicate 8",
        "generation 1: kept 12 of 40",
        "Completed. ",
        "Model: /m/0",
    ):
        assert said in text, said


def test_a_run_without_promotion_shows_the_base_and_no_gain(tmp_path: Path) -> None:
    status = fabricate(tmp_path, WORSE, None)
    summary = summarise(RUN, status, tmp_path)
    assert (summary.model, summary.promoted_generation) == ("org/base", None)
    assert [one.phase for one in summary.generations] == ["Rejected", "Skipped"]
    assert all(one.promoted is None and one.gain is None for one in summary.sets)
    assert "minSamples" in summary.generations[1].message
    text = shown(summary)
    assert "25.0 % [12.5, 62.5]" in text
    assert "none" in text
    assert "18.8" not in text, "a rejected model's score is in its generation's message, not among the promoted"
    assert "Model:" not in text


def test_the_sums_are_over_all_generations(tmp_path: Path) -> None:
    summary = summarise(RUN, fabricate(tmp_path, BETTER, WORSE), tmp_path)
    assert (summary.seconds, summary.prompt_tokens, summary.completion_tokens) == (240, 100_000, 12_000)
    assert summary.generations[0].usage["synthesize"]["calls"] == 1234


def test_a_failed_run_says_why_and_still_shows_what_was_reached(tmp_path: Path) -> None:
    status = fabricate(tmp_path, BETTER, fails=True)
    assert status.phase is Phase.FAILED
    summary = summarise(RUN, status, tmp_path)
    assert "convert: no disk" in summary.message
    assert summary.model == "/m/0"
    text = shown(summary)
    assert "Failed. " in text
    assert "68.8 %" in text


def test_a_run_that_has_only_begun_has_a_summary_without_numbers(tmp_path: Path) -> None:
    summary = summarise(RUN, fabricate(tmp_path), tmp_path)
    assert (summary.phase, summary.sets, summary.generations, summary.seconds) == ("Running", [], [], 0)
    assert shown(summary).startswith("Running. ")


def test_a_run_of_both_methods_is_compared_on_problems_and_on_questions(tmp_path: Path) -> None:
    questions = {"dev": {"split": "dev", "name": "asked"}, "test": [{"split": "test", "name": "asked-unseen"}]}
    status = fabricate(tmp_path, BETTER)
    for title in ("asked", "asked-unseen"):
        write_scores(tmp_path, title, "base", WORSE)
        write_scores(tmp_path, title, "model0", BETTER)
    meteor = replace(RUN.spec.meteor, questions=QuestionsSpec.model_validate(questions))

    def sets(*methods: Method) -> list[tuple[str, bool]]:
        run = replace(RUN, spec=replace(RUN.spec, methods=list(methods), meteor=meteor))
        summary = summarise(run, status, tmp_path)
        assert all(one.promoted is not None and one.promoted[0] == 0.6875 for one in summary.sets)
        return [(one.name, one.decides) for one in summary.sets]

    assert sets("sra-mcts") == [("dev", True), ("held-out", False)]
    assert sets("meteor") == [("asked", True), ("asked-unseen", False)]
    assert sets("meteor", "sra-mcts") == [("dev", True), ("asked", True), ("held-out", False), ("asked-unseen", False)]
    run = replace(RUN, spec=replace(RUN.spec, methods=["sra-mcts", "meteor"], meteor=meteor))
    text = shown(summarise(run, status, tmp_path))
    assert "dev (decides promotion with the other)" in text
    assert "asked (decides promotion with the other)" in text


def test_what_mentors_and_judges_have_cost_is_on_the_screen_and_nothing_of_it_where_there_were_none(
    tmp_path: Path,
) -> None:
    status = fabricate(tmp_path, BETTER)
    assert "mentors" not in shown(summarise(RUN, status, tmp_path))
    path = Layout(tmp_path, 0, 0).result
    result = GenerationResult.model_validate_json(path.read_bytes())
    paid = {"mentor-supervised": StageUsage(cost=1.5, paid_tokens=30_000), "self-assessment": StageUsage(cost=0.25)}
    path.write_text(replace(result, usage={**result.usage, **paid}).model_dump_json(by_alias=True))
    # What failed attempts have cost is in the status alone.
    status = replace(status, usage=UsageTotals(cost=2.25, mentor_tokens=40_000))
    summary = summarise(RUN, status, tmp_path)
    assert (summary.mentor_tokens, summary.mentor_cost, summary.currency) == (40_000, 2.25, "USD")
    text = shown(summary)
    assert "mentors and judges: 40,000 tokens, 2.25 USD" in text
    assert "mentor-supervised" in text


def test_the_summary_is_plain_json(tmp_path: Path) -> None:
    summary = summarise(RUN, fabricate(tmp_path, BETTER, WORSE), tmp_path)
    again = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert again["sets"][0]["gain"][0] == pytest.approx(0.4375)
    assert again["generations"][0]["dropped"] == {"duplicate": 8, "tests-failed": 20}


def test_a_score_is_shown_in_percent_with_its_interval() -> None:
    assert percent((0.412, 0.35, 0.479)) == "41.2 % [35.0, 47.9]"


def test_what_each_stage_of_meteor_made_and_how_the_learners_own_verdicts_changed_is_on_the_screen(
    tmp_path: Path,
) -> None:
    status = fabricate(tmp_path, BETTER)
    path = Layout(tmp_path, 0, 0).result
    result = GenerationResult.model_validate_json(path.read_bytes())
    said = {
        "mentor-supervised": {"questions": 10.0, "samples": 9.0},
        "self-assessment": {
            "accepted": 5.0,
            "revised": 1.0,
            "quarantined": 4.0,
            "agreement_auc_before": 0.5,
            "agreement_auc_after": 0.75,
            "agreement_before": 0.48,
            "agreement_after": 0.6,
            "called_right_before": 0.96,
            "called_right_after": 0.53,
        },
        "self-evolution": {"pairs": 3.0, "turns": 1.0, "rolled_back": 1.0},
    }
    gain = Gain(value=0.125, low=0.0, high=0.25)
    lineage = [StageScore(stage="mentor-supervised", model_id="m", score=score(0.375), gain=gain)]
    path.write_text(replace(result, metrics=said, lineage=lineage).model_dump_json(by_alias=True))
    text = " ".join(shown(summarise(RUN, status, tmp_path)).split())
    for told in ("questions 10, samples 9", "37.5 %", "+12.5 [+0.0, +25.0]", "accepted 5, revised 1, quarantined 4"):
        assert told in text
    # The table breaks these over lines.
    for told in ("0.50 -> 0.75", "48% -> 60%", "96% -> 53%", "pairs 3, turns 1, rolled back 1", "no model"):
        assert told in text
