"""Lists, experiments and what is refused: more of what test_kfp_double_behaviour.py has in its table."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import kfp_server_api
import pytest
from kfp_samples import PIPELINE, PLATFORM, body, new_id, run_request, state

from kfp_double import KfpDouble
from perseid_operator.kfp import KfpClient, KfpRunState

Raw = Callable[..., Awaitable[tuple[int, Any]]]
RUNNING, SUCCEEDED, FAILED = KfpRunState.RUNNING, KfpRunState.SUCCEEDED, KfpRunState.FAILED
CANCELING, PENDING = KfpRunState.CANCELING, KfpRunState.PENDING
LONG_AGO = "2020-01-01T00:00:00Z"


async def test_an_empty_list_is_an_empty_object(raw: Raw) -> None:
    assert await raw("GET", "/runs") == (200, {})


def predicate(key: str, operation: str, **value: Any) -> dict[str, Any]:
    return {"predicates": [{"key": key, "operation": operation, **value}]}


@pytest.mark.parametrize(
    ("query", "status", "found"),
    [
        ({"filter": predicate("run_id", "IN", string_values={"values": ["one", "missing"]})}, 200, {"one"}),
        ({"filter": predicate("id", "IN", stringValues={"values": ["two"]})}, 200, {"two"}),
        ({"filter": predicate("name", "EQUALS", string_value="100%+")}, 200, {"two"}),
        ({"filter": predicate("display_name", "IS_SUBSTRING", string_value="n")}, 200, {"one"}),
        ({"filter": predicate("state", "NOT_EQUALS", string_value="PENDING")}, 200, set()),
        ({"filter": predicate("storage_state", "EQUALS", string_value="ARCHIVED")}, 200, {"two"}),
        ({"filter": predicate("created_at", "GREATER_THAN", timestamp_value=LONG_AGO)}, 200, {"one", "two"}),
        ({"filter": predicate("finished_at", "GREATER_THAN", timestamp_value=LONG_AGO)}, 200, set()),
        ({"filter": predicate("uuid", "EQUALS", string_value="one")}, 400, None),
        ({"filter": {"predicates": [{"key": "run_id", "op": "IN", "string_value": "one"}]}}, 400, None),
        ({"filter": predicate("run_id", "EQUALS")}, 400, None),
        ({"filter": "{"}, 400, None),
        ({"page_size": "-1"}, 400, None),
        ({"page_size": "many"}, 400, None),
        ({"page_token": "nonsense"}, 400, None),
        ({"sort_by": "created_at desc"}, 200, {"one", "two"}),
        ({"sort_by": "nonsense"}, 400, None),
        ({"experiment_id": "nonsense"}, 404, None),
        ({"namespace": "nonsense"}, 200, {"one", "two"}),
    ],
)  # fmt: skip
async def test_lists_are_filtered_as_kfp_filters(
    raw: Raw, query: dict[str, Any], status: int, found: set[str] | None
) -> None:
    await raw("POST", "/runs", json=body(run_id="one", display_name="n"))
    await raw("POST", "/runs", json=body(run_id="two", display_name="100%+"))
    await raw("POST", "/runs/two:archive")
    if isinstance(query.get("filter"), dict):
        # Decoded twice: what a client means literally, it must say in JSON's own escapes.
        text = json.dumps(query["filter"]).replace("%", "\\u0025").replace("+", "\\u002b")
        query = {**query, "filter": text}
    answered, page = await raw("GET", "/runs", params=query)
    assert answered == status
    if found is not None:
        assert {run["run_id"] for run in page.get("runs", [])} == found


async def test_a_filter_is_decoded_twice(raw: Raw) -> None:
    await raw("POST", "/runs", json=body(run_id="one", display_name="a b"))
    plus = json.dumps(predicate("name", "EQUALS", string_value="a+b"))
    assert {run["run_id"] for run in (await raw("GET", "/runs", params={"filter": plus}))[1]["runs"]} == {"one"}


async def test_a_page_has_at_most_200_runs_each_of_them_whole(double: KfpDouble, raw: Raw) -> None:
    # Takes two seconds: no page is full with fewer runs.
    for number in range(201):
        await raw("POST", "/runs", json=body(run_id=f"run-{number}"))
    await double.advance(60.0)
    started = double.clock.now()
    page = (await raw("GET", "/runs", params={"page_size": "1000"}))[1]
    assert double.clock.now() - started > 0.8, "88 runs took 0.38 s"
    assert (len(page["runs"]), page["total_size"]) == (200, 201)
    for run in page["runs"]:
        assert run["pipeline_spec"] == {"pipeline_spec": PIPELINE, "platform_spec": PLATFORM}
        assert len(run["run_details"]["task_details"]) == 7
    assert len((await raw("GET", "/runs"))[1]["runs"]) == 20


async def test_archived_runs_are_listed_and_go_on(double: KfpDouble, kfp: KfpClient, raw: Raw, posted: str) -> None:
    assert (await raw("POST", f"/runs/{posted}:archive"))[0] == 200
    listed = (await raw("GET", "/runs"))[1]["runs"]
    assert [(run["run_id"], run["storage_state"]) for run in listed] == [(posted, "ARCHIVED")]
    await double.advance(60.0)
    assert await state(kfp, posted) is SUCCEEDED
    for _ in range(2):
        assert (await raw("POST", f"/runs/{posted}:unarchive"))[0] == 200


async def test_archived_experiments_take_runs_and_deleted_ones_leave_theirs(
    kfp: KfpClient, raw: Raw, experiment: str, posted: str
) -> None:
    await raw("POST", f"/experiments/{experiment}:archive")
    run = await kfp.get_run(posted)
    assert run is not None
    assert run.archived
    assert run.state is PENDING
    await kfp.create_run(run_request(experiment))
    assert (await raw("DELETE", f"/experiments/{experiment}"))[0] == 200
    assert await kfp.get_run(posted) is not None
    assert (await raw("GET", f"/experiments/{experiment}"))[0] == 404


async def test_experiments_are_named_once_in_any_case(raw: Raw) -> None:
    wanted = {"display_name": "Name", "experiment_id": new_id()}
    status, made = await raw("POST", "/experiments", json=wanted)
    assert status == 200
    assert made["experiment_id"] != wanted["experiment_id"]
    status, answer = await raw("POST", "/experiments", json={"display_name": "nAME"})
    assert (status, answer["code"]) == (409, 6)
    for name in ("", "x" * 129):
        assert (await raw("POST", "/experiments", json={"display_name": name}))[0] == 500


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"text": "a"}, 200),
        ({"text": "a", "number": 2.7, "data": {}}, 200),
        ({"text": "a", "number": "2"}, 400),
        ({"text": "a", "number": True}, 400),
        ({"text": "a", "data": []}, 400),
        ({"text": "a", "surplus": 1}, 400),
        ({"text": None}, 400),
        ({}, 400),
    ],
)
async def test_parameters_are_checked(double: KfpDouble, raw: Raw, parameters: dict[str, Any], status: int) -> None:
    answered, answer = await raw("POST", "/runs", json=body(runtime_config={"parameters": parameters}))
    assert answered == status
    if status == 400:
        assert answer["code"] == 3
        assert double.workflows() == []


def pipeline(**changes: Any) -> dict[str, Any]:
    return {"pipeline_spec": PIPELINE | changes, "platform_spec": PLATFORM}


def platform(kubernetes: dict[str, Any]) -> dict[str, Any]:
    return {"pipeline_spec": PIPELINE, "platform_spec": {"platforms": {"kubernetes": kubernetes}}}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"pipeline_spec": pipeline(nonsense=1)}, 500),
        ({"pipeline_spec": pipeline(root=5)}, 500),
        ({"pipeline_spec": pipeline(pipelineInfo={})}, 500),
        ({"pipeline_spec": None}, 500),
        ({"pipeline_spec": platform({"deploymentSpec": {"executors": {"exec-first": {"nonsense": 1}}}})}, 500),
        ({"pipeline_spec": platform({"nonsense": 1})}, 200),
        ({"pipeline_spec": PIPELINE}, 200),
        ({"display_name": ""}, 500),
        ({"experiment_id": "missing"}, 404),
        ({"nonsense": 1}, 400),
        ({"runtime_config": {"nonsense": 1}}, 400),
        ({"runtime_config": []}, 400),
    ],
)
async def test_a_wrong_body_leaves_nothing(double: KfpDouble, raw: Raw, changes: dict[str, Any], status: int) -> None:
    answered, _ = await raw("POST", "/runs", json=body(**changes))
    assert answered == status
    assert len(double.workflows()) == (1 if status == 200 else 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"display_name": "x" * 256},
        {"description": "x" * 256},
        {"description": "\U0001f680"},
        {"runtime_config": {"parameters": {"text": "\U0001f680"}}},
    ],
    ids=["long name", "long description", "emoji", "emoji in a parameter"],
)
async def test_texts_that_the_database_refuses_leave_a_workflow_without_a_row(
    double: KfpDouble, raw: Raw, changes: dict[str, Any]
) -> None:
    wanted = body(**changes)
    assert (await raw("POST", "/runs", json=wanted))[0] == 500
    assert (await raw("GET", f"/runs/{wanted['run_id']}"))[0] == 404
    assert double.alive(wanted["run_id"]) == 1


@pytest.mark.parametrize(("size", "status"), [(1_400_000, 200), (1_650_000, 500), (4_300_000, 500)])
async def test_bodies_have_their_limits(double: KfpDouble, raw: Raw, size: int, status: int) -> None:
    wanted = body(runtime_config={"parameters": {"text": "x" * size}})
    assert (await raw("POST", "/runs", json=wanted))[0] == status
    assert len(double.workflows()) == (1 if status == 200 else 0)


async def test_what_a_client_may_set_is_honoured_and_the_rest_is_not(raw: Raw) -> None:
    made = (
        await raw(
            "POST",
            "/runs",
            json=body(
                state="SUCCEEDED",
                created_at="2001-01-01T00:00:00Z",
                scheduled_at="2002-02-02T00:00:00Z",
                storage_state="ARCHIVED",
            ),
        )
    )[1]
    assert (made["state"], made["storage_state"]) == ("PENDING", "ARCHIVED")
    assert made["scheduled_at"] == "2002-02-02T00:00:00Z"
    assert made["finished_at"] == "1970-01-01T00:00:00Z"
    assert not made["created_at"].startswith("2001")


class Generated:
    """KFP's own generated client, in a thread."""

    def __init__(self, url: str) -> None:
        self._api = kfp_server_api.ApiClient(kfp_server_api.Configuration(host=url))
        self.runs = kfp_server_api.RunServiceApi(self._api)
        self.experiments = kfp_server_api.ExperimentServiceApi(self._api)


@pytest.fixture
def generated(double: KfpDouble) -> Generated:
    return Generated(double.url)


async def test_kfps_own_client_works_with_the_double(
    double: KfpDouble, generated: Generated, kfp: KfpClient, experiment: str
) -> None:
    request = replace(run_request(experiment), description="ä")

    def drive() -> tuple[Any, Any, Any]:
        wanted = kfp_server_api.V2beta1Run(
            run_id=request.run_id,
            display_name=request.display_name,
            experiment_id=experiment,
            pipeline_spec={"pipeline_spec": PIPELINE, "platform_spec": PLATFORM},
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=request.parameters),
        )
        made = generated.runs.run_service_create_run(wanted)
        listed = generated.runs.run_service_list_runs(page_size=5, sort_by="created_at desc")
        generated.runs.run_service_terminate_run(request.run_id)
        return made, listed, generated.experiments.experiment_service_list_experiments()

    made, listed, experiments = await asyncio.to_thread(drive)
    assert made.run_id == request.run_id
    assert [run.run_id for run in listed.runs] == [request.run_id]
    assert {one.display_name for one in experiments.experiments} == {"Default", "tests"}
    assert await state(kfp, request.run_id) is CANCELING
