"""What the client relies on, against the double; and against a live KFP where PERSEID_KFP_ENDPOINT names one.

Nothing here needs a run to get further than RUNNING, so that any KFP will do. PERSEID_KFP_NAMESPACE is the profile
namespace of a multi-user one. Runs and experiments of the tests stay behind where a test fails.
"""

from __future__ import annotations

import pytest
from kfp_calls import archive
from kfp_samples import new_id, run_request

from perseid_operator.kfp import KfpClient, KfpRunState, RunRejectedError

NAME = "perseid-contract-tests"


@pytest.fixture
async def experiment(any_kfp: KfpClient) -> str:
    return await any_kfp.ensure_experiment(NAME, "made by Perseid's contract tests")


async def test_a_working_server_passes_the_check(any_kfp: KfpClient) -> None:
    await any_kfp.check()


async def test_an_experiment_is_found_again_by_its_name_in_any_case(any_kfp: KfpClient, experiment: str) -> None:
    assert await any_kfp.ensure_experiment(NAME, "") == experiment
    assert await any_kfp.ensure_experiment(NAME.upper(), "") == experiment


async def test_an_experiments_name_may_look_like_an_encoded_url(any_kfp: KfpClient) -> None:
    made = await any_kfp.ensure_experiment("perseid 100%25+1 \"&'\\ tests", "")
    assert await any_kfp.ensure_experiment("perseid 100%25+1 \"&'\\ tests", "") == made


async def test_a_run_keeps_the_id_that_the_client_gives_it(any_kfp: KfpClient, experiment: str) -> None:
    request = run_request(experiment)
    assert await any_kfp.get_run(request.run_id) is None
    made = await any_kfp.create_run(request)
    assert (made.run_id, made.state, made.display_name) == (
        request.run_id,
        KfpRunState.PENDING,
        request.display_name,
    )
    assert made.experiment_id == experiment
    assert made.created_at is not None
    assert made.finished_at is None
    assert not made.was_terminating
    again = await any_kfp.get_run(request.run_id)
    assert again is not None
    assert again.run_id == request.run_id
    assert await any_kfp.delete(request.run_id)
    assert await any_kfp.get_run(request.run_id) is None


async def test_a_list_has_the_runs_that_exist_by_the_ids_that_were_asked_for(
    any_kfp: KfpClient, experiment: str
) -> None:
    one, two, missing = run_request(experiment), run_request(experiment), new_id()
    for request in (one, two):
        await any_kfp.create_run(request)
    await archive(any_kfp, two.run_id)
    listed = await any_kfp.list_runs([one.run_id.upper(), missing, two.run_id])
    assert set(listed) == {one.run_id.upper(), two.run_id}
    assert not listed[one.run_id.upper()].archived
    assert listed[two.run_id].archived
    assert await any_kfp.list_runs([missing]) == {}
    for request in (one, two):
        await any_kfp.delete(request.run_id)


async def test_terminating_twice_is_no_error(any_kfp: KfpClient, experiment: str) -> None:
    request = run_request(experiment)
    await any_kfp.create_run(request)
    assert await any_kfp.terminate(request.run_id)
    run = await any_kfp.get_run(request.run_id)
    assert run is not None
    assert run.was_terminating
    assert not await any_kfp.terminate(request.run_id)
    await any_kfp.delete(request.run_id)


async def test_what_is_not_there_can_be_terminated_and_deleted(any_kfp: KfpClient) -> None:
    missing = new_id()
    assert not await any_kfp.terminate(missing)
    assert not await any_kfp.delete(missing)


async def test_deleting_twice_is_no_error(any_kfp: KfpClient, experiment: str) -> None:
    request = run_request(experiment)
    await any_kfp.create_run(request)
    assert await any_kfp.delete(request.run_id)
    assert not await any_kfp.delete(request.run_id)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({}, "text"),
        ({"text": "a", "surplus": 1}, "surplus"),
        ({"text": 5}, "text"),
        ({"text": None}, "text"),
    ],
    ids=["missing", "surplus", "wrong type", "null"],
)
async def test_a_wrong_parameter_is_rejected_with_its_name(
    any_kfp: KfpClient, experiment: str, parameters: dict[str, object], named: str
) -> None:
    request = run_request(experiment, parameters=parameters)
    with pytest.raises(RunRejectedError, match=named) as caught:
        await any_kfp.create_run(request)
    assert named in caught.value.text
    assert await any_kfp.get_run(request.run_id) is None
