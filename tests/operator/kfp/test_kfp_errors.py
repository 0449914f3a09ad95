"""What the client makes of answers that are no success. All of it needs the double's faults."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Callable
from email.utils import format_datetime

import pytest
from kfp_calls import CALLS, ID, SERVED_AS, every_call, every_read
from kfp_samples import new_id, run_request

from kfp_double import KfpDouble
from perseid_operator.kfp import (
    KfpAmbiguousError,
    KfpClient,
    KfpExperimentMissingError,
    KfpRateLimitedError,
    KfpServerError,
    RunRejectedError,
)

Clients = Callable[..., KfpClient]


@pytest.mark.parametrize(("after", "rows"), [("request", 0), ("workflow", 0), ("row", 1)])
async def test_a_creation_whose_connection_breaks_is_ambiguous(
    double: KfpDouble, kfp: KfpClient, experiment: str, after: str, rows: int
) -> None:
    request = run_request(experiment)
    double.drop_next_create(after, "reset")
    with pytest.raises(KfpAmbiguousError, match=f"nobody knows whether the run {request.run_id}") as caught:
        await kfp.create_run(request)
    assert (caught.value.status, caught.value.duplicate) == (None, False)
    assert sum(double.counters().rows.values()) == rows
    assert double.counters().requests["create_run"] == 1, "a creation must be sent once"


@pytest.mark.parametrize("after", ["request", "workflow", "row"])
async def test_a_creation_without_an_answer_in_time_is_ambiguous_and_the_run_comes_to_exist(
    double: KfpDouble, clients: Clients, kfp: KfpClient, experiment: str, after: str
) -> None:
    request = run_request(experiment)
    double.drop_next_create(after, "hang")
    impatient = clients(double.url, request_timeout=0.5)
    with pytest.raises(KfpAmbiguousError, match="no answer within"):
        await impatient.create_run(request)
    await double.idle()
    assert await kfp.get_run(request.run_id) is not None
    assert double.counters().executions == {request.run_id: 1}


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 504])
async def test_a_creation_answered_with_doubt_is_ambiguous_and_carries_kfps_words(
    double: KfpDouble, kfp: KfpClient, experiment: str, status: int
) -> None:
    double.fail_next("create_run", status, text="the database has gone away")
    with pytest.raises(KfpAmbiguousError, match="the database has gone away") as caught:
        await kfp.create_run(run_request(experiment))
    assert (caught.value.status, caught.value.text) == (status, "the database has gone away")


async def test_a_second_creation_under_one_id_is_ambiguous_and_known_as_a_duplicate(
    double: KfpDouble, kfp: KfpClient, experiment: str
) -> None:
    request = run_request(experiment)
    await kfp.create_run(request)
    with pytest.raises(KfpAmbiguousError, match="Error 1062") as caught:
        await kfp.create_run(request)
    assert caught.value.duplicate
    assert double.counters().executions[request.run_id] == 2


async def test_a_pipeline_that_is_none_is_ambiguous_because_kfp_answers_500(
    double: KfpDouble, kfp: KfpClient, experiment: str
) -> None:
    request = run_request(experiment, pipeline_spec={"nonsense": 1})
    with pytest.raises(KfpAmbiguousError, match="invalid pipeline spec") as caught:
        await kfp.create_run(request)
    assert not caught.value.duplicate
    assert await kfp.get_run(request.run_id) is None
    assert double.workflows() == []


async def test_a_success_that_shows_no_run_is_ambiguous(double: KfpDouble, kfp: KfpClient, experiment: str) -> None:
    for body in ("<html>welcome</html>", "[]", "{}"):
        double.answer_next("create_run", 200, body)
        with pytest.raises(KfpAmbiguousError, match="no run"):
            await kfp.create_run(run_request(experiment))


async def test_a_mistake_in_the_parameters_is_rejected_with_kfps_words(kfp: KfpClient, experiment: str) -> None:
    with pytest.raises(RunRejectedError, match="surplus") as caught:
        await kfp.create_run(run_request(experiment, parameters={"text": "a", "surplus": 1}))
    assert "surplus" in caught.value.text


async def test_a_body_that_a_proxy_finds_too_large_is_rejected(
    double: KfpDouble, kfp: KfpClient, experiment: str
) -> None:
    double.answer_next("create_run", 413, "<html>Request Entity Too Large</html>")
    with pytest.raises(RunRejectedError, match=r"413.*Too Large"):
        await kfp.create_run(run_request(experiment))


@pytest.mark.parametrize("status", [400, 405])
async def test_a_proxys_refusal_is_no_mistake_of_the_users(
    double: KfpDouble, kfp: KfpClient, experiment: str, status: int
) -> None:
    double.answer_next("create_run", status, "<html>The plain HTTP request was sent to HTTPS port</html>")
    with pytest.raises(KfpServerError, match="HTTPS port"):
        await kfp.create_run(run_request(experiment))
    double.answer_next("create_experiment", status, "<html>The plain HTTP request was sent to HTTPS port</html>")
    with pytest.raises(KfpServerError, match="HTTPS port"):
        await kfp.ensure_experiment("another", "")


async def test_two_who_make_one_experiment_at_once_get_the_same(double: KfpDouble, kfp: KfpClient) -> None:
    one, two = await asyncio.gather(kfp.ensure_experiment("shared", ""), kfp.ensure_experiment("shared", ""))
    assert one == two
    assert double.counters().requests == {"list_experiments": 3, "create_experiment": 2}


async def test_an_experiment_that_exists_and_is_not_listed_is_an_error(double: KfpDouble, kfp: KfpClient) -> None:
    double.fail_next("create_experiment", 409, text="it exists")
    with pytest.raises(KfpServerError, match="does not list it"):
        await kfp.ensure_experiment("hidden", "")


async def test_a_run_of_an_experiment_that_has_gone_says_so(kfp: KfpClient) -> None:
    gone = new_id()
    with pytest.raises(KfpExperimentMissingError, match=f"no experiment {gone}"):
        await kfp.create_run(run_request(gone))


@every_read
@pytest.mark.parametrize("status", [500, 503])
async def test_a_read_answered_with_5xx_is_a_server_error(
    double: KfpDouble, kfp: KfpClient, name: str, status: int
) -> None:
    double.fail_next(SERVED_AS.get(name, name), status, text="no database")
    with pytest.raises(KfpServerError, match=f"{status}: 'no database'; look at the logs") as caught:
        await CALLS[name](kfp)
    assert (caught.value.status, caught.value.text) == (status, "no database")


@every_call
async def test_a_404_that_is_not_kfps_own_is_no_missing_run(double: KfpDouble, kfp: KfpClient, name: str) -> None:
    # An ingress without a backend, and the API's gateway for a path that it does not know.
    for body in ("<html>default backend</html>", json.dumps({"code": 5, "message": "Not Found", "details": []})):
        double.answer_next(SERVED_AS.get(name, name), 404, body)
        with pytest.raises(KfpServerError, match=r"404.*is the endpoint the root"):
            await CALLS[name](kfp)


@every_read
async def test_an_answer_that_is_no_json_is_a_server_error(double: KfpDouble, kfp: KfpClient, name: str) -> None:
    double.answer_next(SERVED_AS.get(name, name), 200, "<html>welcome</html>")
    with pytest.raises(KfpServerError, match=r"200: '<html>welcome</html>'; is the endpoint"):
        await CALLS[name](kfp)


async def test_terminating_with_another_400_than_the_known_one_is_an_error(double: KfpDouble, kfp: KfpClient) -> None:
    double.fail_next("terminate_run", 400, text="something else")
    with pytest.raises(KfpServerError, match="something else"):
        await kfp.terminate(ID)


@every_call
async def test_429_says_how_long_to_wait(double: KfpDouble, kfp: KfpClient, name: str) -> None:
    operation = SERVED_AS.get(name, name)
    double.fail_next(operation, 429, retry_after="17")
    with pytest.raises(KfpRateLimitedError, match="for 17 s") as caught:
        await CALLS[name](kfp)
    assert caught.value.retry_after == 17.0
    for unusable in (None, "soon"):
        double.fail_next(operation, 429, retry_after=unusable)
        with pytest.raises(KfpRateLimitedError) as caught:
            await CALLS[name](kfp)
        assert caught.value.retry_after is None


async def test_a_date_to_retry_after_becomes_seconds(double: KfpDouble, kfp: KfpClient) -> None:
    for hours, low, high in ((1, 3500.0, 3600.0), (-1, 0.0, 0.0)):
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
        double.fail_next("get_run", 429, retry_after=format_datetime(moment, usegmt=True))
        with pytest.raises(KfpRateLimitedError) as caught:
            await kfp.get_run(ID)
        assert caught.value.retry_after is not None
        assert low <= caught.value.retry_after <= high
