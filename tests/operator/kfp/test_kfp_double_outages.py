"""What breaks behind the API, and what then is seen of it: more of the table in test_kfp_double_behaviour.py."""

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


async def test_runs_can_be_held_pending(double: KfpDouble, kfp: KfpClient, posted: str) -> None:
    double.hold_pending()
    await double.advance(3600.0)
    assert await state(kfp, posted) is PENDING
    double.hold_pending(False)
    await double.advance(1.0)
    assert await state(kfp, posted) is RUNNING


async def test_an_insert_is_finished_though_its_client_has_gone(
    double: KfpDouble, clients: Callable[..., KfpClient], kfp: KfpClient, experiment: str
) -> None:
    request = run_request(experiment)
    double.drop_next_create("workflow", "hang")
    with pytest.raises(KfpAmbiguousError):
        await clients(double.url, request_timeout=0.5).create_run(request)
    await double.idle()
    assert await state(kfp, request.run_id) is PENDING


async def test_a_server_that_died_before_the_row_leaves_a_workflow_and_a_second_post_makes_two(
    double: KfpDouble, kfp: KfpClient, experiment: str
) -> None:
    request = run_request(experiment)
    double.drop_next_create("workflow", "reset")
    with pytest.raises(KfpAmbiguousError):
        await kfp.create_run(request)
    await double.advance(30.0)
    assert await kfp.get_run(request.run_id) is None
    assert [workflow["phase"] for workflow in double.workflows(request.run_id)] == ["Succeeded"], "it has executed"
    await kfp.create_run(request)
    assert double.counters().executions[request.run_id] == 2


async def test_a_database_that_dies_during_a_creation_leaves_a_workflow(
    double: KfpDouble, kfp: KfpClient, experiment: str
) -> None:
    request = run_request(experiment)
    double.drop_next_create("workflow", "error")
    with pytest.raises(KfpAmbiguousError) as caught:
        await kfp.create_run(request)
    assert caught.value.status == 500
    assert double.alive(request.run_id) == 1


async def test_without_a_controller_a_terminated_run_is_canceling_for_ever(
    double: KfpDouble, kfp: KfpClient, posted: str
) -> None:
    double.set_controller(False)
    await kfp.terminate(posted)
    await double.advance(3600.0)
    assert await state(kfp, posted) is CANCELING
    double.set_controller(True)
    await double.advance(2.0)
    assert await state(kfp, posted) is FAILED


async def test_terminating_without_kubernetes_is_500_and_the_run_goes_on(
    double: KfpDouble, kfp: KfpClient, experiment: str
) -> None:
    double.script(Script(running=None))
    run_id = (await kfp.create_run(run_request(experiment))).run_id
    await double.advance(5.0)
    double.set_kubernetes(False)
    started = double.clock.now()
    with pytest.raises(KfpServerError):
        await kfp.terminate(run_id)
    assert double.clock.now() - started >= 11.5
    await double.advance(2.0)
    assert await state(kfp, run_id) is RUNNING
    double.set_kubernetes(True)
    assert await kfp.terminate(run_id)
    await double.advance(15.0)
    assert await state(kfp, run_id) is FAILED


async def test_deleting_without_kubernetes_leaves_the_workflow(double: KfpDouble, kfp: KfpClient, posted: str) -> None:
    double.set_kubernetes(False)
    assert await kfp.delete(posted)
    assert await kfp.get_run(posted) is None
    assert double.alive(posted) == 1


async def test_a_state_can_be_absent(double: KfpDouble, kfp: KfpClient, raw: Raw, posted: str) -> None:
    double.hide_state(posted)
    answer = (await raw("GET", f"/runs/{posted}"))[1]
    assert "state" not in answer
    assert "state" not in answer["state_history"][-1]
    assert await state(kfp, posted) is None
    double.hide_state(posted, False)
    assert await state(kfp, posted) is PENDING


async def test_healthz_knows_nothing(double: KfpDouble, kfp: KfpClient, raw: Raw, posted: str) -> None:
    double.set_database(False)
    double.set_kubernetes(False)
    assert (await raw("GET", "/healthz"))[0] == 200
    with pytest.raises(KfpServerError):
        await kfp.check()
    for path in ("/runs", f"/runs/{posted}", "/experiments"):
        assert (await raw("GET", path))[0] == 500


async def test_without_kubernetes_reads_work_and_creation_leaves_nothing(
    double: KfpDouble, kfp: KfpClient, experiment: str, posted: str
) -> None:
    double.set_kubernetes(False)
    await kfp.check()
    assert set(await kfp.list_runs([posted])) == {posted}
    request = run_request(experiment)
    with pytest.raises(KfpAmbiguousError):
        await kfp.create_run(request)
    assert await kfp.get_run(request.run_id) is None
    assert double.workflows(request.run_id) == []


async def test_sixty_creations_take_ten_seconds(double: KfpDouble, raw: Raw) -> None:
    started = double.clock.now()
    answers = await asyncio.gather(*(raw("POST", "/runs", json=body(run_id=new_id())) for _ in range(60)))
    assert {status for status, _ in answers} == {200}
    assert 9.9 <= double.clock.now() - started <= 11.5


async def test_an_outage_delays_states_for_longer_than_it_lasts(double: KfpDouble, kfp: KfpClient, posted: str) -> None:
    await double.advance(5.0)
    await double.go_down()
    await double.advance(150.0)
    await double.come_up()
    assert await state(kfp, posted) is RUNNING, "it has ended two minutes ago"
    late = 0
    while await state(kfp, posted) is RUNNING:
        await double.advance(1.0)
        late += 1
        assert late < 360
    assert late > 60
    assert await state(kfp, posted) is SUCCEEDED


async def test_without_its_agent_the_api_shows_nothing_new(double: KfpDouble, kfp: KfpClient, posted: str) -> None:
    double.set_agent(False)
    await double.advance(300.0)
    assert await state(kfp, posted) is PENDING
    assert double.workflows(posted)[0]["phase"] == "Succeeded"
    double.set_agent(True)
    await double.advance(1.0)
    assert await state(kfp, posted) is SUCCEEDED


async def test_faults_of_others_are_not_taken(double: KfpDouble, kfp: KfpClient, posted: str) -> None:
    double.fail_next("get_run", 503, times=2)
    await kfp.check()
    for _ in range(2):
        with pytest.raises(KfpServerError):
            await kfp.get_run(posted)
    await kfp.get_run(posted)
    double.delay_next("*", 25.0)
    started = double.clock.now()
    await kfp.check()
    assert double.clock.now() - started == 25.0


async def test_down_and_up_again_nothing_is_lost(double: KfpDouble, kfp: KfpClient, raw: Raw, posted: str) -> None:
    before, port = await raw("GET", f"/runs/{posted}"), double.port
    await double.go_down()
    with pytest.raises(Exception, match=r"Disconnected|reset|refused|connect"):
        await raw("GET", f"/runs/{posted}")
    await double.come_up()
    assert double.port == port
    assert await raw("GET", f"/runs/{posted}") == before
