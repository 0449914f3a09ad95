"""The double does what the real one was seen to do.

RAN: seen on a running KFP 2.17.0 (API server, persistence agent) with Argo 4.0.8, Kubernetes 1.34 and MariaDB 10.11 in
single-user mode. SRC: read in its source. Each line has a
test of (nearly) its name, here, in test_kfp_double_answers.py or in test_kfp_double_outages.py.

| behaviour                                                                          | evidence                     |
|------------------------------------------------------------------------------------|------------------------------|
| a client's run id is kept, if it is a valid label value; else 500, nothing left    | RAN: non-UUIDs too           |
| look-up of ids ignores their case                                                  | RAN                          |
| the Workflow is made before the row, without roll-back                             | RAN, SRC                     |
| a duplicate id: 500 `Error 1062 ... Duplicate entry`, a second Workflow runs       | RAN: 4 at once, 4 Workflows  |
| the server finishes an insert whose client has gone                                | RAN                          |
| killed between the two: Workflow without a row; posted again: 200, two of them     | RAN                          |
| database gone during a creation: 500 and a Workflow without a row                  | RAN                          |
| Workflows without a row execute until they are collected, late                     | RAN: 130, 171, 450 s         |
| duplicates of an existing row are not collected                                    | RAN                          |
| a terminal state goes back to RUNNING where two Workflows share an id              | RAN: at 51 s and 64 s        |
| terminate and delete act on the Workflow that the row names                        | RAN                          |
| a terminated run is CANCELING at once, FAILED after 10 s, never CANCELED           | RAN: 10-11 s                 |
| terminated without a controller: CANCELING for ever                                | RAN                          |
| terminated twice, or when over: 400 "Row not found"                                | RAN                          |
| terminated without its Workflow: 500 after 9.5 s, CANCELING for ever               | RAN                          |
| terminated without Kubernetes: 500 after 11.6 s, RUNNING again, later it works     | RAN                          |
| Workflow deleted: RUNNING for ever; delete still works                             | RAN: 26 min                  |
| deleted without Kubernetes: 200, the row goes, the Workflow stays                  | RAN                          |
| retry: FAILED runs only, same id and Workflow, even a deleted one; else 409        | RAN                          |
| state may be absent; so in the history                                             | RAN                          |
| an empty list is {}                                                                | RAN                          |
| lists: IN, both spellings, unknown keys 400, token tied to its filter, 200 at most | RAN, clamp SRC               |
| a filter is decoded twice                                                          | RAN                          |
| lists are heavy: whole spec and all tasks of each run                              | RAN: 88 of them, 0.38 s      |
| archived runs are listed; archiving stops nothing                                  | RAN                          |
| archived experiments take runs; deleted ones leave theirs                          | RAN                          |
| experiment name twice in any case 409; client's id ignored; 0 or > 128 letters 500 | RAN                          |
| parameters: missing, surplus, null, wrong type 400; 2.7 for an integer is taken    | RAN                          |
| an unknown field: 400                                                              | RAN                          |
| invalid pipeline, empty name, wrong executor field: 500, nothing left              | RAN                          |
| an unknown key below platforms.kubernetes is taken                                 | RAN                          |
| name or description > 255, characters of four bytes: 500, Workflow without a row   | RAN, in specs SRC            |
| 1.4 MiB is taken, 1.6 MiB is 500, 4 MiB is 500                                     | RAN                          |
| state and created_at of a client are ignored, storage_state is honoured            | RAN                          |
| database down: 500 to everything but healthz                                       | RAN                          |
| Kubernetes down: reads work, creation is 500 without a row                         | RAN                          |
| 5 creations a second after a burst of 10                                           | RAN: 60 in 10.7 s            |
| an outage delays the state for longer than it lasts                                | RAN: 150 s, 259 s late       |
| the agent's lag is about 1 s; tasks come just after the state                      | RAN                          |
| tasks are Argo's nodes, several to a task, with the year 1 for what has not come   | RAN                          |
| collected by retention: 404                                                        | RAN                          |
| single-user mode ignores credentials                                               | RAN                          |
| multi-user mode: 401, 403, lists need a namespace (test_kfp_access.py)             | SRC                          |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from kfp_samples import body, new_id, run_request, state

from kfp_double import KfpDouble, Script
from perseid_operator.kfp import KfpAmbiguousError, KfpClient, KfpRunState, KfpServerError

Raw = Callable[..., Awaitable[tuple[int, Any]]]
RUNNING, SUCCEEDED, FAILED = KfpRunState.RUNNING, KfpRunState.SUCCEEDED, KfpRunState.FAILED
CANCELING, PENDING = KfpRunState.CANCELING, KfpRunState.PENDING


async def test_a_run_goes_from_pending_over_running_to_succeeded(
    double: KfpDouble, kfp: KfpClient, posted: str
) -> None:
    seen = [await state(kfp, posted)]
    for _ in range(30):
        await double.advance(1.0)
        seen.append(await state(kfp, posted))
    assert list(dict.fromkeys(seen)) == [PENDING, RUNNING, SUCCEEDED]
    run = await kfp.get_run(posted)
    assert run is not None
    assert [change.state for change in run.state_history] == [PENDING, RUNNING, SUCCEEDED]
    assert run.finished_at is not None
    assert double.counters().most_alive == {posted: 1}


async def test_a_script_says_how_a_run_goes(double: KfpDouble, kfp: KfpClient, experiment: str) -> None:
    double.script(lambda run: Script(pending=None) if run["display_name"] == "a" else Script(running=None))
    one = (await kfp.create_run(run_request(experiment, display_name="a"))).run_id
    two = (await kfp.create_run(run_request(experiment, display_name="b"))).run_id
    await double.advance(10_000.0)
    assert (await state(kfp, one), await state(kfp, two)) == (PENDING, RUNNING)
    await double.start_run(one)
    assert await state(kfp, one) is RUNNING
    await double.finish_run(two, "FAILED", "out of memory")
    assert await state(kfp, two) is FAILED
    assert double.workflows(two)[0]["message"] == "out of memory"


async def test_the_hook_is_called_before_a_run_shows_its_end(double: KfpDouble, kfp: KfpClient, posted: str) -> None:
    ended: list[tuple[str, str, str]] = []

    async def on_end(workflow: dict[str, Any], outcome: str) -> None:
        await asyncio.sleep(0)
        ended.append((workflow["run_id"], outcome, workflow["parameters"]["text"]))

    double.on_end(on_end)
    await double.advance(20.5)
    assert ended == []
    await double.advance(0.5)
    assert ended == [(posted, "SUCCEEDED", "hello")]
    assert await state(kfp, posted) is RUNNING, "the agent reports a second later"


@pytest.mark.parametrize(
    ("run_id", "status"), [("any.Label_value-1", 200), ("a b", 500), ("a" * 64, 500)], ids=["label", "blank", "long"]
)
async def test_a_run_id_is_any_label_value(double: KfpDouble, raw: Raw, run_id: str, status: int) -> None:
    answered, run = await raw("POST", "/runs", json=body(run_id=run_id))
    assert answered == status
    assert len(double.workflows()) == (1 if status == 200 else 0)
    if status == 200:
        assert run["run_id"] == run_id
        assert (await raw("GET", f"/runs/{run_id.upper()}"))[0] == 200


async def test_a_run_without_an_id_gets_one(raw: Raw) -> None:
    without = body()
    del without["run_id"]
    assert (await raw("POST", "/runs", json=without))[1]["run_id"] != (await raw("POST", "/runs", json=without))[1][
        "run_id"
    ]


async def test_a_duplicate_id_starts_a_second_workflow_and_leaves_the_row(
    double: KfpDouble, kfp: KfpClient, raw: Raw, posted: str
) -> None:
    before = await raw("GET", f"/runs/{posted}")
    status, answer = await raw("POST", "/runs", json=body(run_id=posted, display_name="other"))
    assert status == 500
    assert "Error 1062" in answer["message"]
    assert "Duplicate entry" in answer["message"]
    assert await raw("GET", f"/runs/{posted}") == before
    assert len(double.workflows(posted)) == double.alive(posted) == 2
    counters = double.counters()
    assert counters.asked[posted] == counters.executions[posted] == counters.most_alive[posted] == 2
    assert counters.rows[posted] == 1


async def test_four_creations_of_one_id_at_once_make_four_workflows(double: KfpDouble, raw: Raw) -> None:
    wanted = body(run_id=new_id())
    answers = await asyncio.gather(*(raw("POST", "/runs", json=wanted) for _ in range(4)))
    assert sorted(status for status, _ in answers) == [200, 500, 500, 500]
    assert double.alive(wanted["run_id"]) == 4


async def test_a_workflow_without_a_row_is_collected_late(double: KfpDouble, kfp: KfpClient, experiment: str) -> None:
    double.script(Script(running=None))
    request = run_request(experiment)
    double.drop_next_create("workflow", "reset")
    with pytest.raises(KfpAmbiguousError):
        await kfp.create_run(request)
    await double.advance(120.0)
    assert double.alive(request.run_id) == 1, "it executes meanwhile"
    await double.advance(15.0)
    assert double.workflows(request.run_id) == []
    assert double.counters().collected == {request.run_id: 1}


async def test_a_duplicate_of_a_row_is_not_collected(double: KfpDouble, posted: str) -> None:
    await double.revive_run(posted, Script(running=None))
    await double.advance(3000.0)
    assert double.alive(posted) == 1
    assert double.counters().collected == {}


async def test_a_terminal_state_goes_back_to_running(double: KfpDouble, kfp: KfpClient, posted: str) -> None:
    await double.advance(10.0)
    await double.revive_run(posted, Script(pending=1.0, running=60.0))
    seen = []
    for _ in range(90):
        await double.advance(1.0)
        seen.append(await state(kfp, posted))
    changes = [now for now, before in zip(seen, [None, *seen], strict=False) if now != before]
    assert changes == [RUNNING, SUCCEEDED, RUNNING, SUCCEEDED]
    run = await kfp.get_run(posted)
    assert run is not None
    assert [change.state for change in run.state_history][1:] == changes


async def test_a_finished_run_can_be_revived(double: KfpDouble, kfp: KfpClient, posted: str) -> None:
    await double.advance(60.0)
    assert await state(kfp, posted) is SUCCEEDED
    await double.revive_run(posted)
    await double.advance(3.0)
    run = await kfp.get_run(posted)
    assert run is not None
    assert (run.state, run.finished_at) == (RUNNING, None)


async def test_termination_and_deletion_spare_a_second_workflow(double: KfpDouble, kfp: KfpClient, posted: str) -> None:
    await double.revive_run(posted, Script(running=None))
    await kfp.terminate(posted)
    await double.advance(15.0)
    assert sorted(workflow["phase"] for workflow in double.workflows(posted)) == ["Failed", "Running"]
    await kfp.delete(posted)
    assert [workflow["phase"] for workflow in double.workflows(posted)] == ["Running"]
    await double.advance(140.0)
    assert double.workflows(posted) == [], "without a row it is an orphan now"


@pytest.mark.parametrize("seconds", [0.0, 5.0], ids=["pending", "running"])
async def test_a_terminated_run_is_canceling_and_ends_as_failed(
    double: KfpDouble, kfp: KfpClient, posted: str, seconds: float
) -> None:
    await double.advance(seconds)
    assert await kfp.terminate(posted)
    assert await state(kfp, posted) is CANCELING
    await double.advance(9.5)
    assert await state(kfp, posted) is CANCELING
    await double.advance(2.0)
    run = await kfp.get_run(posted)
    assert run is not None
    assert run.state is FAILED
    assert run.was_terminating


async def test_terminating_twice_or_too_late_is_400(double: KfpDouble, raw: Raw, posted: str) -> None:
    assert await raw("POST", f"/runs/{posted}:terminate") == (200, {})
    for _ in range(2):
        status, answer = await raw("POST", f"/runs/{posted}:terminate")
        assert (status, answer["code"]) == (400, 3)
        assert "Row not found" in answer["message"]
        await double.advance(30.0)


async def test_terminating_a_run_without_its_workflow_is_500_and_canceling_for_ever(
    double: KfpDouble, kfp: KfpClient, posted: str
) -> None:
    await double.advance(5.0)
    await double.lose_workflow(posted)
    started = double.clock.now()
    with pytest.raises(KfpServerError):
        await kfp.terminate(posted)
    assert double.clock.now() - started >= 9.4
    await double.advance(3600.0)
    assert await state(kfp, posted) is CANCELING


async def test_a_run_without_its_workflow_is_running_for_ever_and_can_be_deleted(
    double: KfpDouble, kfp: KfpClient, posted: str
) -> None:
    await double.advance(5.0)
    await double.lose_workflow(posted)
    await double.advance(26 * 60.0)
    assert await state(kfp, posted) is RUNNING
    assert double.workflows(posted) == []
    assert await kfp.delete(posted)
    assert await kfp.get_run(posted) is None


async def test_only_a_failed_run_can_be_retried_under_its_id(
    double: KfpDouble, kfp: KfpClient, raw: Raw, experiment: str
) -> None:
    double.script(Script(outcome="FAILED"))
    run_id = (await kfp.create_run(run_request(experiment))).run_id
    await double.advance(3.0)
    assert (await raw("POST", f"/runs/{run_id}:retry"))[0] == 409
    await double.advance(30.0)
    assert await state(kfp, run_id) is FAILED
    name = double.workflows(run_id)[0]["name"]
    await double.lose_workflow(run_id)
    assert (await raw("POST", f"/runs/{run_id}:retry"))[0] == 200
    assert await state(kfp, run_id) is RUNNING
    assert [workflow["name"] for workflow in double.workflows(run_id)] == [name]
    await double.advance(30.0)
    assert await state(kfp, run_id) is FAILED
    assert (await raw("POST", f"/runs/{new_id()}:retry"))[0] == 404


async def test_tasks_come_after_the_state_and_as_argos_nodes(
    double: KfpDouble, kfp: KfpClient, raw: Raw, posted: str
) -> None:
    await double.advance(5.0)
    nodes = (await raw("GET", f"/runs/{posted}"))[1]["run_details"]["task_details"]
    assert [node["display_name"] for node in nodes] == ["first-driver", "first", "first(0)", "executor"]
    assert {node["end_time"] for node in nodes[1:]} == {"0001-01-01T00:00:00Z"}
    run = await kfp.get_run(posted)
    assert run is not None
    assert {name: task.state for name, task in run.tasks.items()} == {"first": RUNNING}
    await double.advance(17.0)
    run = await kfp.get_run(posted)
    assert run is not None
    assert run.state is SUCCEEDED
    assert run.tasks["second"].state is RUNNING, "the tasks lag behind"
    await double.advance(0.1)
    run = await kfp.get_run(posted)
    assert run is not None
    assert {name: task.state for name, task in run.tasks.items()} == {"first": SUCCEEDED, "second": SUCCEEDED}
    first, second = run.tasks["first"], run.tasks["second"]
    assert first.start is not None
    assert first.end == second.start
    assert second.end is not None


async def test_a_failed_run_shows_which_task_failed(double: KfpDouble, kfp: KfpClient, experiment: str) -> None:
    double.script(Script(running=None))
    run_id = (await kfp.create_run(run_request(experiment))).run_id
    await double.advance(5.0)
    await double.finish_run(run_id, "FAILED")
    await double.advance(1.0)
    run = await kfp.get_run(run_id)
    assert run is not None
    assert {name: task.state for name, task in run.tasks.items()} == {"first": FAILED}
    assert run.error is None, "KFP never says why"


async def test_a_collected_run_is_404(double: KfpDouble, kfp: KfpClient, posted: str) -> None:
    await double.advance(60.0)
    await double.collect_garbage(posted)
    assert await kfp.get_run(posted) is None
    assert await kfp.list_runs([posted]) == {}


async def test_single_user_mode_ignores_credentials(raw: Raw) -> None:
    assert (await raw("GET", "/runs", headers={"Authorization": "Bearer nonsense"}))[0] == 200


async def test_a_finished_workflow_goes_after_an_hour_and_the_run_stays(
    double: KfpDouble, kfp: KfpClient, posted: str
) -> None:
    await double.advance(4000.0)
    assert double.workflows(posted) == []
    assert await state(kfp, posted) is SUCCEEDED
