import json

import pytest
from pydantic import ValidationError

from perseid.api.base import replace
from perseid.api.reasons import Phase
from perseid.api.result import ResultError, StageResult, YieldCounts, parse_result
from perseid.api.status import EvolutionRunStatus

UID = "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11"


def good() -> dict[str, object]:
    score = {"passAt1": 0.5, "low": 0.4, "high": 0.6, "problems": 50, "samples": 4}
    return {
        "schemaVersion": 1,
        "generation": 2,
        "attempt": 1,
        "runId": UID,
        "candidate": {"uri": "models/2", "modelId": "sha256:abc", "generation": 2},
        "dev": {
            "name": "pack-dev",
            "parent": score,
            "candidate": score,
            "gain": {"value": 0.0, "low": -0.1, "high": 0.1},
        },
        "test": [{"name": "humaneval", "parent": score}],
        "yields": {"total": 10, "kept": 7, "dropped": {"truncated": 1, "tests failed": 2}},
        "usage": {"synthesize": {"calls": 5, "promptTokens": 100, "seconds": 1.5}},
    }


def test_a_whole_result_is_read() -> None:
    result = parse_result(json.dumps(good()))
    assert result.dev is not None
    assert result.dev.parent.pass_at_1 == 0.5
    assert result.usage["synthesize"].prompt_tokens == 100
    assert parse_result(result.model_dump_json(by_alias=True)) == result


def test_fields_of_a_newer_version_are_skipped() -> None:
    assert parse_result(json.dumps({**good(), "colour": "blue"})) == parse_result(json.dumps(good()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schemaVersion": 2}, "schemaVersion: Input should be 1"),
        ({"runId": "x"}, "runId"),
        ({"dev": None}, "needs its score and gain on dev"),
        ({"candidate": None}, "says its reason"),
        ({"candidate": None, "reason": "too few"}, "dev scores a candidate, but there is none"),
        ({"candidate": {"uri": "m", "generation": 1}}, "the candidate is of generation 1, not 2"),
        ({"yields": {"total": 10, "kept": 7, "dropped": {"truncated": 1}}}, "kept 7 + dropped 1 is not total 10"),
        ({"test": [{"name": "t"}]}, "test.0.parent: Field required"),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ResultError, match=message.replace("+", r"\+")):
        parse_result(json.dumps({**good(), **change}))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1.5", "null"])
def test_a_score_that_is_no_fraction_is_refused(number: str) -> None:
    text = json.dumps(good()).replace('"passAt1": 0.5', f'"passAt1": {number}')
    with pytest.raises(ResultError, match=r"dev.parent.passAt1"):
        parse_result(text)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', b"\xff"])
def test_a_torn_file_is_refused(text: str | bytes) -> None:
    with pytest.raises(ResultError):
        parse_result(text)


def test_a_failed_stage_says_its_error_and_a_done_one_has_none() -> None:
    assert StageResult(stage="convert", state="failed", error="disk full").error == "disk full"
    with pytest.raises(ValidationError):
        StageResult(stage="convert", state="failed")
    with pytest.raises(ValidationError):
        StageResult(stage="convert", state="done", error="disk full")


def test_counts_add_up_also_when_nothing_was_made() -> None:
    assert YieldCounts(total=0, kept=0).dropped == {}


def test_a_status_of_a_newer_version_is_read_by_an_older_one() -> None:
    status = EvolutionRunStatus.model_validate_json(json.dumps({"uid": UID, "phase": "Running", "colour": "blue"}))
    assert status.phase is Phase.RUNNING


def test_a_status_without_a_uuid_is_refused() -> None:
    with pytest.raises(ValidationError):
        EvolutionRunStatus(uid="run-1")


def test_replacing_a_field_validates_it() -> None:
    status = EvolutionRunStatus(uid=UID)
    assert replace(status, patience_used=3).patience_used == 3
    with pytest.raises(ValidationError):
        replace(status, patience_used=-1)
