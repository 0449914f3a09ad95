"""Runs as KFP tells them, with its ways of not telling."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from perseid_operator.kfp.runs import KfpRunState, NotARunError, parse_run

ID = "0a000000-0000-4000-8000-000000000000"
NEVER = "0001-01-01T00:00:00Z"


def node(name: str, state: str | None = "RUNNING", start: str = "2026-11-23T10:00:00Z", end: str = NEVER) -> Any:
    made = {"display_name": name, "start_time": start, "end_time": end}
    return made if state is None else {**made, "state": state}


def with_nodes(*nodes: Any, spec: Any = None) -> dict[str, Any]:
    made: dict[str, Any] = {"run_id": ID, "run_details": {"task_details": list(nodes)}}
    return made if spec is None else {**made, "pipeline_spec": spec}


def test_a_run_without_a_state_is_not_over() -> None:
    for told in ({}, {"state": "RUNTIME_STATE_UNSPECIFIED"}, {"state": "SOMETHING_NEW"}, {"state": None}):
        run = parse_run({"run_id": ID, **told})
        assert run.state is None
        assert not run.is_final


@pytest.mark.parametrize("state", list(KfpRunState))
def test_only_four_states_are_ends(state: KfpRunState) -> None:
    ends = {KfpRunState.SUCCEEDED, KfpRunState.SKIPPED, KfpRunState.FAILED, KfpRunState.CANCELED}
    assert parse_run({"run_id": ID, "state": state.value}).is_final == (state in ends)


def test_times_that_have_not_come_are_none() -> None:
    run = parse_run(
        {"run_id": ID, "created_at": "2026-11-23T10:00:00.123456789Z", "finished_at": "1970-01-01T00:00:00Z"}
    )
    assert run.created_at == datetime(2026, 11, 23, 10, 0, 0, 123456, UTC)
    assert run.finished_at is None


def test_a_terminated_run_is_known_by_its_history() -> None:
    history = [{"state": "PENDING"}, {"update_time": "2026-11-23T10:00:00Z"}, {"state": "CANCELING"}]
    run = parse_run({"run_id": ID, "state": "FAILED", "state_history": history})
    assert run.was_terminating
    assert [change.state for change in run.state_history] == [KfpRunState.PENDING, None, KfpRunState.CANCELING]
    assert not parse_run({"run_id": ID, "state": "FAILED", "state_history": history[:2]}).was_terminating
    assert parse_run({"run_id": ID, "state": "CANCELING"}).was_terminating
    retried = [*history, {"state": "FAILED"}, {"state": "RUNNING"}]
    assert not parse_run({"run_id": ID, "state": "FAILED", "state_history": retried}).was_terminating


def test_only_the_pipelines_own_tasks_are_shown() -> None:
    spec = {"pipeline_spec": {"root": {"dag": {"tasks": {"executor": {}, "score": {}}}}}}
    nodes = [node("score"), node("score-driver"), node("score(0)"), node("executor"), node("other")]
    for wrapped in (spec, spec["pipeline_spec"]):
        assert set(parse_run(with_nodes(*nodes, spec=wrapped)).tasks) == {"score", "executor"}


def test_a_loop_is_called_by_its_own_name_and_not_by_that_of_its_node() -> None:
    loop = {"taskInfo": {"name": "synthesize-shards"}, "parameterIterator": {"items": {"raw": "[0, 1]"}}}
    tasks = {"for-loop-2": loop, "synthesize": {"taskInfo": {"name": "another"}}}
    nodes = [node("for-loop-2"), node("iteration-iterations(0:0)"), node("synthesize-shard"), node("synthesize")]
    assert set(parse_run(with_nodes(*nodes, spec={"root": {"dag": {"tasks": tasks}}})).tasks) == {
        "synthesize-shards",
        "synthesize",
    }


def test_without_the_pipeline_helpers_are_known_by_their_names() -> None:
    nodes = [node("score"), node("score-driver"), node("score(0)"), node("executor"), node("root")]
    assert set(parse_run(with_nodes(*nodes)).tasks) == {"score"}


def test_a_running_task_has_no_end_and_the_newest_of_two_counts() -> None:
    (task,) = parse_run(with_nodes(node("score"))).tasks.values()
    assert (task.state, task.end) == (KfpRunState.RUNNING, None)
    assert task.start == datetime(2026, 11, 23, 10, tzinfo=UTC)
    late = node("score", "FAILED", start="2026-11-23T11:00:00Z", end="2026-11-23T12:00:00Z")
    for nodes in ((node("score"), late), (late, node("score")), (late, node("score", start=NEVER))):
        (task,) = parse_run(with_nodes(*nodes)).tasks.values()
        assert task.state is KfpRunState.FAILED


def test_an_error_of_the_run_is_its_message() -> None:
    assert parse_run({"run_id": ID, "error": {"code": 13, "message": "no"}}).error == "no"
    assert parse_run({"run_id": ID, "error": {}}).error is None


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"run_id": ""},
        {"run_id": 5},
        {"run_id": ID, "created_at": "yesterday"},
        {"run_id": ID, "created_at": 5},
        {"run_id": ID, "display_name": []},
        {"run_id": ID, "state_history": "RUNNING"},
        {"run_id": ID, "state_history": ["RUNNING"]},
        {"run_id": ID, "run_details": ["x"]},
        {"run_id": ID, "run_details": {"task_details": "x"}},
        {"run_id": ID, "run_details": {"task_details": ["x"]}},
    ],
)
def test_what_is_no_run_is_not_taken_for_one(data: Any) -> None:
    with pytest.raises(NotARunError):
        parse_run(data)
