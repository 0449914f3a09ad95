"""METEOR's first stage with a mentor behind a real HTTP endpoint in trouble: one question's are not the others'."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from chat_endpoint import ChatEndpoint, completion
from meteor_world import MeteorWorld, number_of, right, world
from perseid.engines import factory, roles
from perseid.stages.errors import StageError

__all__ = ["world"]

STAGE = "mentor-supervised"
KEY = "sk-a-secret-of-the-tests"


class Mentor(ChatEndpoint):
    """Answers by `script`: from a question's number and how often it was asked to a response, or to silence."""

    def __init__(self) -> None:
        super().__init__()
        self.script: Callable[[int, int], web.Response | None] = lambda number, time: completion([right(number)])
        self.asked: Counter[int] = Counter()

    async def answer(self, body: dict[str, Any]) -> web.StreamResponse:
        number = number_of(body["messages"][-1]["content"])
        self.asked[number] += 1
        said = self.script(number, self.asked[number])
        if said is None:
            await asyncio.Event().wait()
        assert said is not None
        return said


@pytest.fixture
def mentor(world: MeteorWorld, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mentor]:
    monkeypatch.setattr(roles, "open_endpoint", factory.open_endpoint)
    monkeypatch.setenv("MENTOR_KEY", KEY)
    with Mentor() as made:
        yield made


def spec_of(world: MeteorWorld, mentor: Mentor) -> dict[str, Any]:
    endpoint = {
        "baseUrl": mentor.base_url,
        "model": "mentor",
        "apiKeyEnv": "MENTOR_KEY",
        "timeoutSeconds": 0.5,
        "maxRetries": 1,
    }
    price = {"prompt": 1.0, "completion": 1.0}
    return world.spec(mentor={"type": "openai", "openai": endpoint, "price": price})


def places_with(text: str, root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


# Three seconds: a time-out and a second one, with the pause between them.
def test_a_slow_rate_limited_or_babbling_mentor_costs_only_the_questions_that_it_fails_on(
    world: MeteorWorld, mentor: Mentor
) -> None:
    def script(number: int, time: int) -> web.Response | None:
        if number == 0 and time == 1:
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"})
        if number == 1 and time == 1:
            return web.Response(text="overloaded", status=503, headers={"Retry-After": "0"})
        if number == 2:
            return None
        troubles = {
            3: web.Response(text="<html>a proxy's own page</html>", content_type="text/html"),
            4: completion(["I'm sorry, but I can't help with that."]),
            5: completion([""]),
            6: completion(["9 and"], finish="length"),
        }
        return troubles.get(number) or completion([right(number)])

    mentor.script = script
    attempt = world.attempt(spec_of(world, mentor))
    result = world.run(STAGE, attempt)
    reasons = {one["problem_id"]: one["reason"] for one in world.lines(STAGE, attempt, "dropped.jsonl")}
    assert reasons == {
        "train-2": "mentor-failed",
        "train-3": "mentor-failed",
        "train-4": "answer-refused",
        "train-5": "answer-empty",
        "train-6": "answer-truncated",
    }
    assert [one["problem_id"] for one in world.lines(STAGE, attempt, "samples.jsonl")] == [
        f"train-{number}" for number in (0, 1, 7, 8, 9)
    ]
    assert (mentor.asked[0], mentor.asked[1], mentor.asked[2]) == (2, 2, 2)
    assert result.usage.paid_tokens == 12 * 8, "of the eight calls that were answered"
    assert places_with(KEY, world.root) == []


def test_a_refused_key_fails_the_stage_and_is_shown_nowhere(world: MeteorWorld, mentor: Mentor) -> None:
    mentor.script = lambda number, time: web.json_response({"error": {"message": f"bad key {KEY}"}}, status=401)
    attempt = world.attempt(spec_of(world, mentor))
    with pytest.raises(StageError, match="MENTOR_KEY") as error:
        world.run(STAGE, attempt)
    assert KEY not in str(error.value)
    assert places_with(KEY, world.root) == []
    assert world.trainings == []
