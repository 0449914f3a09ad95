"""Against a real HTTP server on this machine, whose answers each test scripts."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from perseid.api.engine import OpenAISpec
from perseid.engines.errors import (
    EndpointAuthError,
    EndpointError,
    EndpointModelError,
    EndpointUnreachableError,
    UnsupportedSamplingError,
)
from perseid.engines.openai_engine import OpenAIEngine
from perseid.engines.protocol import Message, PromptTooLongError, Request, Sampling, Usage

KEY = "sk-very-secret"
Answer = Callable[[dict[str, Any]], Any]


class Endpoint:
    """Keeps what was sent; answers from `script`, one entry a call, the last one for ever."""

    def __init__(self) -> None:
        self.script: list[Answer] = [lambda body: chat(["fine"] * body.get("n", 1))]
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.times: list[float] = []
        self.in_flight = self.most_in_flight = 0
        self.gate: asyncio.Event | None = None
        self.arrived = asyncio.Condition()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.times.append(time.monotonic())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            body = await request.json()
            self.bodies.append(body)
            self.keys.append(request.headers["Authorization"])
            answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            async with self.arrived:
                self.arrived.notify_all()
            if self.gate is not None:
                await self.gate.wait()
            given = answer(body)
            return given if isinstance(given, web.StreamResponse) else web.json_response(given)
        finally:
            self.in_flight -= 1

    async def reached(self, in_flight: int) -> None:
        async with self.arrived:
            await self.arrived.wait_for(lambda: self.in_flight >= in_flight)

    def engine(self, **fields: Any) -> OpenAIEngine:
        return OpenAIEngine(OpenAISpec(base_url=self.url, model="big", **fields))


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.handle)
    async with TestServer(app) as server:
        endpoint.url = str(server.make_url("/v1"))
        yield endpoint


def chat(texts: list[str], logprobs: list[float] | None = None, top: dict[str, float] | None = None) -> dict[str, Any]:
    tops = [{"token": token, "logprob": value, "bytes": None} for token, value in (top or {}).items()]
    content = [{"token": "t", "logprob": value, "bytes": None, "top_logprobs": tops} for value in logprobs or []]
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "big",
        "choices": [
            {
                "index": index,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
                "logprobs": {"content": content} if logprobs else None,
            }
            for index, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }


def failure(status: int, message: str = "no", **headers: str) -> Answer:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: web.json_response({"error": {"message": message}}, status=status, headers=headers)


def ask(text: str = "q", **sampling: Any) -> Request:
    return Request((Message("user", text),), Sampling(**{"max_tokens": 9, **sampling}))


async def test_a_request_says_everything_and_the_answer_is_read(endpoint: Endpoint) -> None:
    endpoint.script = [lambda _: chat(["one", "two"], logprobs=[-0.5, -0.25])]
    engine = endpoint.engine()
    generation = await engine.generate(ask(temperature=0.7, top_p=0.9, n=2, stop=("\n",), seed=3))
    body = endpoint.bodies[0]
    assert body["messages"] == [{"role": "user", "content": "q"}]
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["n"]) == (9, 0.7, 0.9, 2)
    assert body["stop"] == ["\n"]
    assert 0 <= body["seed"] < 2**31
    assert [completion.text for completion in generation.completions] == ["one", "two"]
    assert generation.completions[0].logprob == -0.75
    assert generation.completions[0].tokens == 2
    assert (generation.usage.calls, generation.usage.prompt_tokens) == (1, 7)
    assert engine.model_id == f"{endpoint.url}#big"
    await engine.close()


async def test_a_stop_string_that_is_to_stay_is_cut_here_because_the_api_cannot_keep_it(endpoint: Endpoint) -> None:
    endpoint.script = [lambda _: chat(["code\n```\n\nand more", "whole"])]
    engine = endpoint.engine()
    generation = await engine.generate(ask(temperature=0.7, n=2, stop=("\n```\n\n",), keep_stop=True))
    assert "stop" not in endpoint.bodies[0]
    assert [completion.text for completion in generation.completions] == ["code\n```\n\n", "whole"]
    await engine.close()


async def test_retry_after_is_honoured(endpoint: Endpoint) -> None:
    # Waits the second that the server asks for: that is what is tested.
    endpoint.script = [failure(429, Retry_After="1"), lambda _: chat(["fine"])]
    engine = endpoint.engine()
    assert (await engine.generate(ask())).completions[0].text == "fine"
    assert endpoint.times[1] - endpoint.times[0] >= 1.0
    await engine.close()


async def test_a_server_error_is_retried_and_a_lasting_one_reported(endpoint: Endpoint) -> None:
    # Waits half a second, the client's first back-off.
    endpoint.script = [failure(500), lambda _: chat(["fine"]), failure(503, "overloaded", retry_after_ms="1")]
    engine = endpoint.engine(max_retries=2)
    assert (await engine.generate(ask())).completions[0].text == "fine"
    with pytest.raises(EndpointError, match=r"503.*overloaded"):
        await engine.generate(ask())
    assert len(endpoint.bodies) == 5
    await engine.close()


async def test_a_refused_key_is_reported_without_showing_it(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("BIG_KEY", KEY)
    endpoint.script = [failure(401, f"wrong key {KEY}"), failure(400, f"bad {KEY}")]
    engine = endpoint.engine(api_key_env="BIG_KEY")
    with pytest.raises(EndpointAuthError, match="BIG_KEY") as refused:
        await engine.generate(ask())
    with pytest.raises(EndpointError, match="400") as bad:
        await engine.generate(ask())
    assert endpoint.keys[0] == f"Bearer {KEY}"
    shown = f"{refused.value}{bad.value}{engine!r}{engine.__dict__['_spec']!r}{engine.model_id}"
    assert KEY not in shown
    assert KEY not in "".join(record.getMessage() for record in caplog.records if record.name.startswith("perseid"))
    assert refused.value.__cause__ is None
    assert len(endpoint.bodies) == 2
    await engine.close()


def test_a_key_variable_that_is_not_set_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIG_KEY", raising=False)
    with pytest.raises(EndpointAuthError, match="BIG_KEY"):
        OpenAIEngine(OpenAISpec(base_url="http://x/v1", model="m", api_key_env="BIG_KEY"))


async def test_an_unknown_model_and_an_overlong_prompt_have_their_own_errors(endpoint: Endpoint) -> None:
    endpoint.script = [
        failure(404, "no such model"),
        failure(400, "This model's maximum context length is 10 tokens"),
    ]
    engine = endpoint.engine()
    with pytest.raises(EndpointModelError, match=r"404.*no such model"):
        await engine.generate(ask())
    with pytest.raises(PromptTooLongError, match="maximum context length is 10"):
        await engine.generate(ask())
    await engine.close()


async def test_a_closed_port_is_reported(unused_tcp_port_factory: Callable[[], int]) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port_factory()}/v1"
    engine = OpenAIEngine(OpenAISpec(base_url=url, model="big", max_retries=0))
    with pytest.raises(EndpointUnreachableError, match=r"cannot be reached.*is the server running"):
        await engine.generate(ask())
    await engine.close()


async def test_silence_is_a_time_out(endpoint: Endpoint) -> None:
    endpoint.gate = asyncio.Event()
    engine = endpoint.engine(timeout_seconds=0.2, max_retries=0)
    with pytest.raises(EndpointUnreachableError, match=r"no answer within 0\.2 s"):
        await engine.generate(ask())
    endpoint.gate.set()
    await engine.close()


async def test_the_cap_on_requests_in_flight_is_reached_and_kept(endpoint: Endpoint) -> None:
    endpoint.gate = asyncio.Event()
    engine = endpoint.engine(max_requests_in_flight=3)
    tasks = [asyncio.create_task(engine.generate(ask(str(index)))) for index in range(10)]
    await endpoint.reached(3)
    endpoint.gate.set()
    await asyncio.gather(*tasks)
    assert endpoint.most_in_flight == 3
    assert len(endpoint.bodies) == 10
    await engine.close()


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda _: {"hello": "world"},
        lambda _: chat([]),
        lambda _: web.Response(text="<html>proxy</html>", content_type="text/html"),
        lambda _: web.Response(text="{broken", content_type="application/json"),
    ],
)
async def test_a_malformed_answer_is_an_error_not_a_crash(endpoint: Endpoint, nonsense: Answer) -> None:
    endpoint.script = [nonsense]
    engine = endpoint.engine(max_retries=0)
    with pytest.raises(EndpointError, match=r"answered"):
        await engine.generate(ask())
    await engine.close()


async def test_a_filtered_answer_is_no_answer(endpoint: Endpoint) -> None:
    filtered = chat(["half"])
    filtered["choices"][0]["finish_reason"] = "content_filter"
    endpoint.script = [lambda _: filtered]
    engine = endpoint.engine()
    with pytest.raises(EndpointError, match="content_filter"):
        await engine.generate(ask())
    await engine.close()


async def test_a_server_without_logprobs_is_asked_once(endpoint: Endpoint) -> None:
    endpoint.script = [failure(400, "logprobs are not supported"), lambda _: chat(["fine"])]
    engine = endpoint.engine()
    assert (await engine.generate(ask())).completions[0].logprob is None
    await engine.generate(ask())
    assert ["logprobs" in body for body in endpoint.bodies] == [True, False, False]
    await engine.close()


async def test_a_server_that_ignores_n_is_asked_for_the_rest_and_all_that_it_answers_is_kept_and_counted(
    endpoint: Endpoint,
) -> None:
    endpoint.script = [lambda _: chat(["only one"])]
    engine = endpoint.engine()
    for _ in range(2):
        generation = await engine.generate(ask(n=3, temperature=1.0))
        assert len(generation.completions) == 3
        assert generation.usage == Usage(1, 21, 0, 15), "three answers of 7 and 5 tokens"
    assert [body["n"] for body in endpoint.bodies] == [3, 1, 1, 1, 1, 1]
    first, second = (tuple(body["seed"] for body in endpoint.bodies[at : at + 3]) for at in (0, 3))
    assert len(set(first)) == 3
    assert second == first, "the same samples, however it was found out how to ask for them"
    await engine.close()


async def test_the_way_to_constrain_is_found_once_and_remembered(endpoint: Endpoint) -> None:
    endpoint.script = [
        failure(400, "unknown field"),
        failure(400, "unknown field"),
        lambda _: chat(['{"answer": "no"}']),
    ]
    engine = endpoint.engine()
    for _ in range(2):
        assert (await engine.generate(ask(choices=("yes", "no")))).completions[0].text == "no"
    first, second, third, fourth = endpoint.bodies
    assert first["structured_outputs"] == {"choice": ["yes", "no"]}
    assert second["guided_choice"] == ["yes", "no"]
    for body in (third, fourth):
        schema = body["response_format"]["json_schema"]["schema"]
        assert schema["properties"]["answer"]["enum"] == ["yes", "no"]
    await engine.close()


async def test_a_server_that_ignores_constraints_is_noticed(endpoint: Endpoint) -> None:
    endpoint.script = [lambda _: chat(["Well, yes."])]
    engine = endpoint.engine()
    with pytest.raises(EndpointError, match=r"'Well, yes.' and none of the choices \['yes', 'no'\], 4 times"):
        await engine.generate(ask(choices=("yes", "no")))
    assert len(endpoint.bodies) == 4
    assert len({body["seed"] for body in endpoint.bodies}) == 4
    await engine.close()


async def test_choice_logprobs_are_normalised_where_the_server_gives_all(endpoint: Endpoint) -> None:
    top = {"yes": math.log(0.3), "no": math.log(0.1), "maybe": math.log(0.2)}
    endpoint.script = [lambda _: chat(["yes"], logprobs=[top["yes"]], top=top)]
    engine = endpoint.engine()
    scores = (await engine.generate(ask(choices=("yes", "no")))).completions[0].choice_logprobs
    assert scores == pytest.approx({"yes": math.log(0.75), "no": math.log(0.25)})
    assert (await engine.generate(ask(choices=("yes", "never")))).completions[0].choice_logprobs is None
    await engine.close()


async def test_an_opened_answer_is_sent_as_one_to_continue(endpoint: Endpoint) -> None:
    engine = endpoint.engine()
    await engine.generate(Request((Message("user", "q"), Message("assistant", "Step 1:")), Sampling(max_tokens=5)))
    assert endpoint.bodies[0]["continue_final_message"] is True
    assert endpoint.bodies[0]["add_generation_prompt"] is False
    assert json.dumps(endpoint.bodies[0]["messages"][-1]) == '{"role": "assistant", "content": "Step 1:"}'
    await engine.close()


async def test_a_beam_search_is_refused_before_anything_is_sent(endpoint: Endpoint) -> None:
    engine = endpoint.engine()
    with pytest.raises(UnsupportedSamplingError, match=r"model big\) cannot be asked for a beam search.*best-of-n"):
        await engine.generate(ask(beams=4))
    assert endpoint.bodies == []
    await engine.close()
