"""`perseid chat`: talking to a run's model."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fabricated_results import BETTER, RUN, fabricate
from perseid.api.base import replace
from perseid.api.engine import EngineSpec, ModelSpec
from perseid.cli import chat, exits
from perseid.cli.app import app
from perseid.engines.protocol import Completion, EngineError, Generation, PromptTooLongError, Request, Telling
from perseid.runner.directory import RunDirectory
from tiny_llama import make_model, write_model


class Scripted:
    """Streams one word after the other; remembers what it was asked."""

    model_id = "scripted"

    def __init__(self, *answers: str | Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[Request] = []
        self.closed = False

    async def stream(self, request: Request, tell: Telling) -> Generation:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            tell("so far")
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        text = ""
        for word in str(answer).split(" "):
            text = f"{text} {word}".strip()
            tell(text)
        return Generation((Completion(str(answer), 3, "length" if text.endswith("cut") else "stop"),))

    async def generate(self, request: Request) -> Generation:
        raise AssertionError("an engine that can stream is not asked to wait")

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def run(tmp_path: Path) -> Path:
    RunDirectory(tmp_path).write_status(fabricate(tmp_path, BETTER))
    return tmp_path


def talk(
    monkeypatch: pytest.MonkeyPatch, run: Path, engine: Scripted, said: str, *options: str
) -> tuple[Result, list[Any]]:
    opened: list[Any] = []

    async def open_scripted(of: object, model: object) -> Scripted:
        opened.append(model)
        return engine

    monkeypatch.setattr(chat, "_open", open_scripted)
    return CliRunner().invoke(app, ["chat", str(run), *options], input=said), opened


def test_answers_stream_and_the_history_goes_with_the_next_question(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Scripted("one two", "three")
    result, opened = talk(monkeypatch, run, engine, "first\n\nsecond\n")
    assert result.exit_code == exits.OK, result.output
    assert result.stdout == "one two\nthree\n"
    assert [message.content for message in engine.asked[1].messages] == ["first", "one two", "second"]
    assert engine.asked[0].sampling.seed != engine.asked[1].sampling.seed
    assert opened[0].ref == "/m/0", "the promoted model"
    assert "the model of generation 0 of fabricated" in result.stderr
    assert engine.closed


def test_reset_forgets_exit_leaves_and_other_commands_are_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Scripted("one", "two")
    result, _ = talk(monkeypatch, run, engine, "a\n/reset\n/what\nb\n/exit\nnever\n")
    assert result.exit_code == exits.OK
    assert [len(request.messages) for request in engine.asked] == [1, 1]
    assert "There is no command /what. /reset begins anew" in result.stderr


def test_ctrl_c_stops_an_answer_and_the_talk_goes_on_from_what_was_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Scripted(None, "on")
    result, _ = talk(monkeypatch, run, engine, "long\ngo\n")
    assert result.exit_code == exits.OK, result.output
    assert result.stdout == "so far\non\n"
    assert "stopped" in result.stderr
    assert [message.content for message in engine.asked[1].messages] == ["long", "so far", "go"]
    assert engine.closed


def test_a_talk_that_no_longer_fits_says_so_and_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Scripted(PromptTooLongError("the context holds 9"), "short")
    result, _ = talk(monkeypatch, run, engine, "long\nb\n")
    assert "the context holds 9. /reset begins a new conversation" in result.stderr
    assert [len(request.messages) for request in engine.asked] == [1, 1]


def test_a_dead_engine_ends_the_talk(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = talk(monkeypatch, run, Scripted(EngineError("it died; lower kvCacheGib")), "a\nb\n")
    assert result.exit_code == exits.MISTAKE
    assert "it died; lower kvCacheGib" in result.stderr


def test_an_answer_that_is_cut_off_says_so_and_the_options_count(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Scripted("it is cut")
    result, opened = talk(monkeypatch, run, engine, "a\n", "--model", "base", "--max-tokens", "7", "--temperature", "0")
    assert "cut off at 7 tokens" in result.stderr
    assert (engine.asked[0].sampling.max_tokens, engine.asked[0].sampling.temperature) == (7, 0.0)
    assert (opened[0].ref, opened[0].generation) == ("org/base", None)


def test_what_a_model_says_cannot_steer_the_terminal(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = talk(monkeypatch, run, Scripted("a\x1b[2J"), "a\n")
    assert "\x1b" not in result.stdout


def test_a_generation_without_a_model_is_told_with_those_that_have_one(run: Path) -> None:
    result = CliRunner().invoke(app, ["chat", str(run), "--generation", "4"])
    assert result.exit_code == exits.MISTAKE
    assert "no model of generation 4; there are those of 0, counted from 0" in result.stderr


@pytest.mark.slow  # imports transformers and loads a model
def test_a_real_model_answers_from_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSEID_CACHE", str(tmp_path / "cache"))
    write_model(tmp_path / "model", make_model(max_position_embeddings=2048))
    model = ModelSpec(ref=str(tmp_path / "model"), dtype="float32")
    spec = RUN.spec.model_copy(update={"model": model, "engine": EngineSpec(type="transformers")})
    place = tmp_path / "run"
    RunDirectory(place).write_status(fabricate(place, run=replace(RUN, spec=spec)))
    result = CliRunner().invoke(app, ["chat", str(place), "--max-tokens", "8"], input="hello\nagain\n")
    assert result.exit_code == exits.OK, result.output
    assert "the start model of fabricated" in result.stderr
    assert len(result.stdout) > 2
    (tmp_path / "model" / "config.json").unlink()
    result = CliRunner().invoke(app, ["chat", str(place)], input="hello\n")
    assert result.exit_code == exits.MISTAKE
    assert "lacks config.json" in result.stderr


STARTS_AN_ENGINE = """
import asyncio, multiprocessing, time
from perseid.cli.chat import _interrupts_held

if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    with asyncio.Runner() as runner, _interrupts_held():
        runner.run(asyncio.to_thread(child.start))
    blocked = next(line for line in open(f"/proc/{child.pid}/status") if line.startswith("SigBlk"))
    print(int(blocked.split()[1], 16))
    child.kill()
"""


@pytest.mark.slow  # starts two interpreters
def test_a_terminals_ctrl_c_does_not_reach_the_engines_process(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(STARTS_AN_ENGINE)
    # A fresh interpreter: what starts its first child process with spawn unblocks signals on the way.
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) & 1 << signal.SIGINT - 1


LOADS_FOREVER = """
import asyncio, multiprocessing, threading, time
from perseid.cli import chat

async def load(run, model):
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    await asyncio.to_thread(child.start)
    print(child.pid, flush=True)
    await asyncio.to_thread(threading.Event().wait)

if __name__ == "__main__":
    from fabricated_results import RUN
    chat._open = load
    chat.chat_with(RUN, None, max_tokens=1, temperature=None)
"""


@pytest.mark.slow  # starts two interpreters
def test_ctrl_c_ends_the_command_while_weights_load_and_the_engines_process_with_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(LOADS_FOREVER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=environment)
    with process:
        assert process.stdout is not None
        engine = os.pidfd_open(int(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == exits.INTERRUPTED
    assert select.select([engine], [], [], 120)[0], "the engine's process is gone"
    os.close(engine)
