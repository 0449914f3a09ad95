"""Mentors and judges against a real HTTP server on this machine, whose answers each test scripts."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from test_openai_engine import Endpoint, chat, failure

from perseid.api.engine import EngineSpec, OpenAISpec, TransformersSpec
from perseid.api.meteor import JudgeSpec, MentorSpec, PriceSpec
from perseid.engines.budget import Budget, Limits, Spent
from perseid.engines.errors import (
    BudgetExceededError,
    EndpointAuthError,
    EndpointError,
    EndpointUnreachableError,
    EngineClosedError,
    EngineStartError,
    ModelNotFoundError,
    RecordedAnswersError,
)
from perseid.engines.factory import open_endpoint
from perseid.engines.journal import Journal
from perseid.engines.journaled import JournaledEngine
from perseid.engines.lazy import LazyEngine
from perseid.engines.protocol import EngineError, Generation, Message, Request, Sampling
from perseid.engines.recorded import RecordedEngine
from perseid.engines.roles import LocalSettings, open_judge_engine, open_mentor, price_of

KEY = 'sk-very"secret\\key+/='
PRICE = PriceSpec(prompt=2.0, completion=10.0)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.handle)
    async with TestServer(app) as server:
        endpoint.url = str(server.make_url("/v1"))
        yield endpoint


def ask(text: str = "q", subject: str = "q1") -> Request:
    return Request((Message("user", text),), Sampling(max_tokens=50), "mentor-answer", subject)


def mentor(endpoint: Endpoint, **fields: Any) -> MentorSpec:
    return MentorSpec(type="openai", price=PRICE, openai=OpenAISpec(base_url=endpoint.url, model="big", **fields))


def contents(path: Path) -> str:
    return path.read_text()


def echo_key(status: int) -> Callable[[dict[str, Any]], web.Response]:
    """What a careless gateway says: the request's headers, in its words and in its own headers."""

    def answer(_: dict[str, Any]) -> web.Response:
        said = {"message": f"headers were Authorization: Bearer {KEY}", "Authorization": f"Bearer {KEY}"}
        return web.json_response({"error": said}, status=status)

    return answer


async def test_an_endpoint_mentor_answers_records_and_is_repeated_by_anybody(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.script = [lambda _: chat(["by the mentor"])]
    path = tmp_path / "mentor.jsonl"
    budget = Budget(Limits(cost=1.0))
    engine = await open_mentor(mentor(endpoint), budget=budget, record_to=path)
    given = await engine.generate(ask())
    await engine.close()
    assert given.completions[0].text == "by the mentor"
    assert budget.spent == Spent.of(given.usage, PRICE)
    recorded = await open_mentor(MentorSpec(type="recorded", path=str(path)), budget=Budget(Limits(cost=0.0)))
    assert await recorded.generate(ask()) == given
    assert len(endpoint.bodies) == 1
    assert endpoint.url not in path.read_text()


async def test_a_judge_is_an_engine_and_a_verifier_is_none(endpoint: Endpoint, tmp_path: Path) -> None:
    assert await open_judge_engine(JudgeSpec(type="verifier")) is None
    judge = await open_judge_engine(JudgeSpec(type="openai", openai=OpenAISpec(base_url=endpoint.url, model="big")))
    assert judge is not None
    assert (await judge.generate(ask())).completions[0].text == "fine"
    await judge.close()
    path = tmp_path / "judge.jsonl"
    path.write_text('{"kind": "mentor-answer", "subject": "q1", "answer": "right"}\n')
    recorded = await open_judge_engine(JudgeSpec(type="recorded", path=str(path)))
    assert isinstance(recorded, RecordedEngine)


async def test_the_pack_s_own_answers_are_a_mentor() -> None:
    from perseid.data.questions import pack_answers_path

    engine = await open_mentor(MentorSpec(type="recorded", path="pack"))
    line = json.loads(contents(Path(pack_answers_path())).splitlines()[0])
    generation = await engine.generate(Request((Message("user", "?"),), Sampling(512), line["kind"], line["subject"]))
    assert generation.completions[0].text == line["answer"]


async def test_recorded_answers_in_object_storage_or_nowhere_are_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RecordedAnswersError, match=r"s3://bucket/answers.jsonl.*copy them"):
        await open_mentor(MentorSpec(type="recorded", path="s3://bucket/answers.jsonl"))
    with pytest.raises(RecordedAnswersError, match="No such file"):
        await open_mentor(MentorSpec(type="recorded", path=str(tmp_path / "absent.jsonl")))


def test_what_is_recorded_or_verified_costs_nothing() -> None:
    euros = PriceSpec(currency="EUR", prompt=3.0)
    assert price_of(MentorSpec(type="recorded", path="pack", price=euros)) == PriceSpec(currency="EUR")
    assert price_of(JudgeSpec(price=euros)) == PriceSpec(currency="EUR")
    assert price_of(MentorSpec(type="model", ref="./m", price=euros)) == euros


# Loads PyTorch: several seconds the first time in a process.
async def test_a_model_of_this_machine_is_a_mentor_that_is_loaded_by_its_first_call(tiny_model: Path) -> None:
    spec = EngineSpec(type="transformers", transformers=TransformersSpec(batch_size=1, max_model_len=512))
    engine = await open_mentor(
        MentorSpec(type="model", ref=str(tiny_model)),
        budget=Budget(Limits(tokens=10_000)),
        local=LocalSettings(spec, "float32"),
    )
    assert len(engine.model_id) == 64
    assert (await engine.generate(ask())).completions[0].tokens >= 1
    await engine.close()
    with pytest.raises(ModelNotFoundError, match="no directory"):
        await open_mentor(MentorSpec(type="model", ref=str(tiny_model / "absent")))


async def test_a_model_that_does_not_start_fails_every_call_and_is_started_once() -> None:
    starts = 0

    async def start() -> Any:
        nonlocal starts
        starts += 1
        raise EngineStartError("no memory")

    model = LazyEngine("m", start)
    failures = await asyncio.gather(*(model.generate(ask()) for _ in range(3)), return_exceptions=True)
    assert [str(one) for one in failures] == ["no memory"] * 3
    assert starts == 1
    await model.close()
    with pytest.raises(EngineClosedError):
        await model.generate(ask())


async def test_a_mentor_that_is_down_is_a_clear_error_and_the_budget_waits_for_no_one(
    unused_tcp_port_factory: Callable[[], int],
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port_factory()}/v1"
    spec = MentorSpec(type="openai", price=PRICE, openai=OpenAISpec(base_url=url, model="big", max_retries=0))
    engine = await open_mentor(spec, budget=Budget(Limits(cost=1.0)))
    failures = await asyncio.gather(*(engine.generate(ask(str(at))) for at in range(5)), return_exceptions=True)
    assert all(isinstance(one, EndpointUnreachableError) for one in failures)
    assert "is the server running" in str(failures[0])
    await engine.close()


async def test_a_slow_mentor_is_a_time_out_that_may_have_been_charged(endpoint: Endpoint) -> None:
    endpoint.gate = asyncio.Event()
    budget = Budget(Limits(cost=1.0))
    engine = await open_mentor(mentor(endpoint, timeout_seconds=0.2, max_retries=0), budget=budget)
    with pytest.raises(EndpointUnreachableError, match=r"no answer within 0\.2 s"):
        await engine.generate(ask())
    assert budget.failures == 1
    endpoint.gate.set()
    await engine.close()


async def test_a_mentor_that_limits_the_rate_is_asked_again_when_it_says(endpoint: Endpoint, tmp_path: Path) -> None:
    # Waits the second that the server asks for: that is what is tested.
    endpoint.script = [failure(429, Retry_After="1"), lambda _: chat(["fine"])]
    budget = Budget(Limits(cost=1.0))
    engine = await open_mentor(mentor(endpoint), budget=budget, record_to=tmp_path / "m.jsonl")
    generation = await engine.generate(ask())
    assert endpoint.times[1] - endpoint.times[0] >= 1.0
    assert budget.spent == Spent.of(generation.usage, PRICE)
    assert budget.failures == 0
    await engine.close()


async def test_one_nonsense_answer_and_one_filtered_one_do_not_stop_the_others(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    filtered = chat(["half"])
    filtered["choices"][0]["finish_reason"] = "content_filter"
    said = {"nonsense": {"hello": "world"}, "filtered": filtered}
    endpoint.script = [lambda body: said.get(body["messages"][0]["content"], chat(["fine"]))]
    budget = Budget(Limits(cost=1.0))
    engine = await open_mentor(mentor(endpoint, max_retries=0), budget=budget, record_to=tmp_path / "m.jsonl")
    texts = ("a", "nonsense", "b", "filtered", "c")
    answers = await asyncio.gather(*(engine.generate(ask(text)) for text in texts), return_exceptions=True)
    assert [isinstance(one, Generation) for one in answers] == [True, False, True, False, True]
    assert isinstance(answers[1], EndpointError)
    assert "no chat completion" in str(answers[1])
    assert "content_filter" in str(answers[3])
    assert budget.failures == 2
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 3
    await engine.close()


async def test_an_empty_answer_was_paid_so_it_is_handed_on_and_never_asked_for_again(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    refusal = chat([""])
    refusal["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    endpoint.script = [lambda _: refusal]
    for _ in range(2):
        engine = await open_mentor(mentor(endpoint), budget=Budget(Limits(cost=1.0)), record_to=tmp_path / "m.jsonl")
        assert (await engine.generate(ask())).completions[0].text == ""
        await engine.close()
    assert len(endpoint.bodies) == 1


async def test_a_budget_of_zero_sends_nothing(endpoint: Endpoint) -> None:
    engine = await open_mentor(mentor(endpoint), budget=Budget(Limits(cost=0.0)))
    with pytest.raises(BudgetExceededError, match=r"spec\.budget\.mentorCost"):
        await engine.generate(ask())
    assert endpoint.bodies == []
    await engine.close()


async def test_a_second_recorder_of_a_file_is_refused_and_leaves_no_client_open(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    first = await open_mentor(mentor(endpoint), record_to=tmp_path / "m.jsonl")
    with pytest.raises(RecordedAnswersError, match="something else records"):
        await open_mentor(mentor(endpoint), record_to=tmp_path / "m.jsonl")
    await first.close()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 422, 429, 500, 200])
async def test_a_key_that_an_endpoint_repeats_stands_nowhere(
    endpoint: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MENTOR_KEY", KEY)
    endpoint.script = [echo_key(status)]
    inner = await open_mentor(
        mentor(endpoint, api_key_env="MENTOR_KEY", max_retries=0),
        budget=Budget(Limits(tokens=400)),
        record_to=tmp_path / "mentor.jsonl",
    )
    engine = JournaledEngine(inner, Journal(tmp_path / "journal.jsonl"))
    shown = []
    for _ in range(5):  # until the budget's own error repeats what the last failure said, where calls are charged
        with pytest.raises(EngineError) as failed:
            await engine.generate(ask())
        shown += [str(failed.value), repr(failed.value), *traceback.format_exception(failed.value)]
        logging.getLogger("perseid.test").error("a stage says so", exc_info=failed.value)
    await engine.close()
    assert endpoint.keys[0] == f"Bearer {KEY}"
    shown += [caplog.text, contents(tmp_path / "mentor.jsonl"), contents(tmp_path / "journal.jsonl")]
    hidden = "\n".join(shown)
    for spelling in (KEY, json.dumps(KEY)[1:-1], repr(KEY)[1:-1]):
        assert spelling not in hidden


async def test_a_beginning_of_the_key_does_not_stay_where_an_error_cuts_what_was_said(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-0123456789-abcdefghij"
    monkeypatch.setenv("MENTOR_KEY", key)
    engine = await open_mentor(mentor(endpoint, api_key_env="MENTOR_KEY", max_retries=0))
    for room in range(8, len(key) + 1):
        said = f"{'x' * (200 - room)}{key} and more"
        endpoint.script = [lambda _, said=said: web.Response(text=said, content_type="text/html")]
        with pytest.raises(EndpointError, match=r"x\*\*\*") as failed:
            await engine.generate(ask())
        assert key[:8] not in str(failed.value)
    await engine.close()


async def test_a_key_in_an_answer_is_taken_out_before_anybody_writes_it_down(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MENTOR_KEY", KEY)
    endpoint.script = [lambda _: chat([f"Your key is {KEY}."])]
    inner = await open_mentor(mentor(endpoint, api_key_env="MENTOR_KEY"), record_to=tmp_path / "mentor.jsonl")
    engine = JournaledEngine(inner, Journal(tmp_path / "journal.jsonl"))
    assert (await engine.generate(ask())).completions[0].text == "Your key is ***."
    await engine.close()
    for name in ("mentor.jsonl", "journal.jsonl"):
        assert "***" in contents(tmp_path / name)
        assert "secret" not in contents(tmp_path / name)


async def test_a_word_that_local_servers_take_for_a_key_stays_in_answers(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MENTOR_KEY", "EMPTY")
    endpoint.script = [lambda _: chat(["The set is EMPTY."])]
    engine = await open_mentor(mentor(endpoint, api_key_env="MENTOR_KEY"))
    assert (await engine.generate(ask())).completions[0].text == "The set is EMPTY."
    await engine.close()


async def test_a_key_comes_from_a_file_and_loses_the_line_break_at_its_end(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.delenv("MENTOR_KEY", raising=False)
    monkeypatch.setenv("MENTOR_KEY_FILE", str(tmp_path / "key"))
    engine = await open_mentor(mentor(endpoint, api_key_env="MENTOR_KEY"))
    await engine.generate(ask())
    await engine.close()
    monkeypatch.setenv("MENTOR_KEY", "from-the-variable\n")
    engine = await open_mentor(mentor(endpoint, api_key_env="MENTOR_KEY"))
    await engine.generate(ask())
    await engine.close()
    assert endpoint.keys == [f"Bearer {KEY}", "Bearer from-the-variable"]


def test_a_key_from_a_file_does_not_stay_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(KEY)
    monkeypatch.delenv("MENTOR_KEY", raising=False)
    monkeypatch.setenv("MENTOR_KEY_FILE", str(tmp_path / "key"))
    open_endpoint(OpenAISpec(base_url="http://x/v1", model="m", api_key_env="MENTOR_KEY"))
    assert "MENTOR_KEY" not in os.environ


@pytest.mark.parametrize(
    ("variable", "content", "why"),
    [
        (None, None, "neither is set"),
        ("  ", None, "neither is set"),
        (None, b"\n", "is empty"),
        (None, b"\xff", "cannot be read.*UnicodeDecodeError"),
        ("sk-very secret", None, "cannot be sent"),
        ("sk-very\x1fsecret", None, "cannot be sent"),
    ],
)
def test_a_key_that_is_absent_or_cannot_be_sent_is_an_error_at_once_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, content: bytes | None, why: str
) -> None:
    for name in ("MENTOR_KEY", "MENTOR_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv("MENTOR_KEY", variable)
    if content is not None:
        (tmp_path / "key").write_bytes(content)
        monkeypatch.setenv("MENTOR_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(EndpointAuthError, match=why) as refused:
        open_endpoint(OpenAISpec(base_url="http://x/v1", model="m", api_key_env="MENTOR_KEY"))
    assert "MENTOR_KEY" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_key_file_that_is_absent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MENTOR_KEY", raising=False)
    monkeypatch.setenv("MENTOR_KEY_FILE", str(tmp_path / "absent"))
    with pytest.raises(EndpointAuthError, match=r"absent.*FileNotFoundError"):
        open_endpoint(OpenAISpec(base_url="http://x/v1", model="m", api_key_env="MENTOR_KEY"))
