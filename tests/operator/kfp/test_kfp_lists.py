"""Lists in chunks and pages. Needs the double, which counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kfp_samples import new_id, run_request

from kfp_double import KfpDouble
from perseid_operator.kfp import KfpClient, KfpServerError


@pytest.mark.parametrize(("count", "requests"), [(0, 0), (1, 1), (100, 1), (101, 2), (250, 3)])
async def test_a_list_goes_out_in_chunks_of_100_ids(
    double: KfpDouble, kfp: KfpClient, count: int, requests: int
) -> None:
    assert await kfp.list_runs(new_id() for _ in range(count)) == {}
    assert double.counters().requests.get("list_runs", 0) == requests


async def test_ids_that_come_twice_are_asked_for_once(double: KfpDouble, kfp: KfpClient) -> None:
    ids = [new_id() for _ in range(60)]
    await kfp.list_runs(ids + ids)
    assert double.counters().requests["list_runs"] == 1


async def test_runs_of_all_chunks_are_found(double: KfpDouble, kfp: KfpClient, experiment: str) -> None:
    made = [run_request(experiment) for _ in range(3)]
    for request in made:
        await kfp.create_run(request)
    others = [new_id() for _ in range(297)]
    wanted = [made[0].run_id, *others[:100], made[1].run_id, *others[100:], made[2].run_id]
    assert set(await kfp.list_runs(wanted)) == {request.run_id for request in made}


class Pages:
    """Answers each list with the next of some pages, and remembers what was asked."""

    def __init__(self, double: KfpDouble, pages: list[dict[str, Any]]) -> None:
        for page in pages:
            double.answer_next("list_runs", 200, json.dumps(page))


async def test_all_pages_are_followed(double: KfpDouble, kfp: KfpClient) -> None:
    ids = [new_id() for _ in range(3)]
    Pages(
        double,
        [
            {"runs": [{"run_id": ids[0]}], "next_page_token": "one"},
            {"next_page_token": "two"},
            {"runs": [{"run_id": ids[2]}]},
        ],
    )
    assert set(await kfp.list_runs(ids)) == {ids[0], ids[2]}
    assert double.counters().requests["list_runs"] == 3


async def test_real_pages_are_followed_to_the_last_run(double: KfpDouble, kfp: KfpClient, experiment: str) -> None:
    ids = [(await kfp.create_run(run_request(experiment))).run_id for _ in range(5)]
    double.limit_pages(2)
    assert set(await kfp.list_runs(ids)) == set(ids)
    assert double.counters().requests["list_runs"] == 3


async def test_pages_that_never_end_are_an_error(double: KfpDouble, kfp: KfpClient) -> None:
    Pages(double, [{"next_page_token": "one"}, {"next_page_token": "one"}])
    with pytest.raises(KfpServerError, match="never end"):
        await kfp.list_runs([new_id()])


async def test_a_run_that_was_not_asked_for_is_an_error(double: KfpDouble, kfp: KfpClient) -> None:
    Pages(double, [{"runs": [{"run_id": new_id()}]}])
    with pytest.raises(KfpServerError, match="does not honour filters"):
        await kfp.list_runs([new_id()])


@pytest.mark.parametrize("page", [{"runs": "x"}, {"runs": ["x"]}, {"runs": [{}]}, []])
async def test_a_list_of_something_else_is_an_error(double: KfpDouble, kfp: KfpClient, page: Any) -> None:
    Pages(double, [page])
    with pytest.raises(KfpServerError):
        await kfp.list_runs([new_id()])


async def test_the_real_page_token_belongs_to_its_filter(
    double: KfpDouble, kfp: KfpClient, experiment: str, raw: Callable[..., Any]
) -> None:
    ids = []
    for _ in range(3):
        ids.append((await kfp.create_run(run_request(experiment))).run_id)
    first = (await raw("GET", "/runs", params={"page_size": "2"}))[1]
    assert len(first["runs"]) == 2
    assert first["total_size"] == 3
    second = (await raw("GET", "/runs", params={"page_size": "2", "page_token": first["next_page_token"]}))[1]
    assert {run["run_id"] for run in first["runs"] + second["runs"]} == set(ids)
    assert "next_page_token" not in second
    other = json.dumps({"predicates": [{"key": "state", "operation": "EQUALS", "string_value": "PENDING"}]})
    status, _ = await raw("GET", "/runs", params={"filter": other, "page_token": first["next_page_token"]})
    assert status == 400


def test_a_full_chunk_fits_into_a_request_line() -> None:
    from yarl import URL

    from perseid_operator.kfp.client import MAX_IDS_PER_LIST, _filter

    ids = [new_id() for _ in range(MAX_IDS_PER_LIST)]
    text = _filter([{"key": "run_id", "operation": "IN", "string_values": {"values": ids}}])
    url = str(URL("http://kfp/apis/v2beta1/runs").with_query({"filter": text, "page_size": "100"}))
    assert json.loads(parse_qs(urlsplit(url).query)["filter"][0])["predicates"][0]["string_values"]["values"] == ids
    assert len(url) < 8000, "servers and proxies take 8 KiB"
