"""METEOR's first stage with a mentor behind a real HTTP endpoint in trouble: one question's are not the others'."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from meteor_world import MeteorWorld, number_of, right, world
from perseid.engines import factory, roles
from perseid.stages.errors import StageError

__all__ = ["world"]

STAGE = "mentor-supervised"
KEY = "sk-a-secret-of-the-tests"


def chat(text: str, finish: str = "stop") -> bytes:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "mentor", "choices": [choice]}
    return json.dumps({**answer, "usage": usage}).encode()


class Mentor:
    """Answers by `script`: from a question's number and how often it was asked to status and body, or to silence."""

    def __init__(self) -> None:
        self.script: Callable[[int, int], tuple[int, bytes] | None] = lambda number, time: (200, chat(right(number)))
        self.asked: Counter[int] = Counter()
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.url = ""

    def handler(mentor) -> type[BaseHTTPRequestHandler]:  # noqa: N805  # the handler has a self of its own
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                number = number_of(body["messages"][-1]["content"])
                with mentor.lock:
                    mentor.asked[number] += 1
                    said = mentor.script(number, mentor.asked[number])
                if said is None:
                    mentor.over.wait()
                    return
                self.send_response(said[0])
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said[1])))
                self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(said[1])

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def mentor(world: MeteorWorld, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mentor]:
    monkeypatch.setattr(roles, "open_endpoint", factory.open_endpoint)
    monkeypatch.setenv("MENTOR_KEY", KEY)
    made = Mentor()
    with ThreadingHTTPServer(("127.0.0.1", 0), made.handler()) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield made
        made.over.set()
        server.shutdown()


def spec_of(world: MeteorWorld, mentor: Mentor) -> dict[str, Any]:
    endpoint = {
        "baseUrl": mentor.url,
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
    def script(number: int, time: int) -> tuple[int, bytes] | None:
        if number == 0 and time == 1:
            return 429, b'{"error": {"message": "slow down"}}'
        if number == 1 and time == 1:
            return 503, b"overloaded"
        said: dict[int, tuple[int, bytes] | None] = {
            2: None,
            3: (200, b"<html>a proxy's own page</html>"),
            4: (200, chat("I'm sorry, but I can't help with that.")),
            5: (200, chat("")),
            6: (200, chat("9 and", finish="length")),
        }
        return said.get(number, (200, chat(right(number))))

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
    assert result.usage.paid_tokens == 10 * 8, "of the eight calls that were answered"
    assert places_with(KEY, world.root) == []


def test_a_refused_key_fails_the_stage_and_is_shown_nowhere(world: MeteorWorld, mentor: Mentor) -> None:
    mentor.script = lambda number, time: (401, json.dumps({"error": {"message": f"bad key {KEY}"}}).encode())
    attempt = world.attempt(spec_of(world, mentor))
    with pytest.raises(StageError, match="MENTOR_KEY") as error:
        world.run(STAGE, attempt)
    assert KEY not in str(error.value)
    assert places_with(KEY, world.root) == []
    assert world.trainings == []
