from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.engines.errors import JournalCorruptError, JournalError, JournalLockedError
from perseid.engines.journal import Journal, read_journal, request_key
from perseid.engines.journaled import JournaledEngine
from perseid.engines.protocol import Completion, EngineError, Generation, Message, Request, Sampling, Usage
from perseid.engines.scripted import ScriptedEngine
from perseid.engines.wrappers import CALL_LOG_VARIABLE, LimitedEngine, with_call_log

ANSWER = Generation(
    (Completion("ein Text\n \N{EARTH GLOBE EUROPE-AFRICA}", 3, "stop", -0.1), Completion("", 1, "length")),
    Usage(1, 2, 0, 4),
)


def ask(text: str = "hello", *, kind: str = "generate", seed: int = 0, n: int = 1) -> Request:
    return Request((Message("user", text),), Sampling(max_tokens=5, seed=seed, n=n), kind)


def test_what_was_appended_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "calls.jsonl"
    with Journal(path) as journal:
        journal.append("a", ANSWER)
    with Journal(path) as journal:
        assert journal.get("a") == ANSWER
        assert journal.get("b") is None
        assert len(journal) == 1


@given(
    text=st.text(),
    logprob=st.none() | st.floats(allow_nan=False),
    scores=st.none() | st.dictionaries(st.text(), st.floats(allow_nan=False)),
    usage=st.builds(Usage, *(st.integers(0, 10**9) for _ in range(4))),
)
def test_every_answer_survives_the_file_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    logprob: float | None,
    scores: dict[str, float] | None,
    usage: Usage,
) -> None:
    path = tmp_path_factory.mktemp("journal") / "calls.jsonl"
    generation = Generation((Completion(text, 1, "stop", logprob, scores),), usage)
    with Journal(path) as journal:
        journal.append("k", generation)
    with Journal(path) as journal:
        assert journal.get("k") == generation


@given(cut=st.integers(min_value=1))
def test_a_write_cut_off_anywhere_loses_only_that_call(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "calls.jsonl"
    with Journal(path) as journal:
        journal.append("a", ANSWER)
        before = path.stat().st_size
        journal.append("b", ANSWER)
    whole = path.read_bytes()
    torn = before + cut % (len(whole) - before)
    path.write_bytes(whole[:torn])
    with Journal(path) as journal:
        assert journal.get("a") == ANSWER
        assert journal.get("b") is None
        journal.append("b", ANSWER)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", [2, 3])
def test_a_damaged_whole_line_is_an_error_that_names_it(tmp_path: Path, line: int) -> None:
    path = tmp_path / "calls.jsonl"
    with Journal(path) as journal:
        journal.append("a", ANSWER)
        journal.append("b", ANSWER)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b"ein Text", b"kein Text")
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalCorruptError, match=rf"line {line} .*calls.jsonl.*head -n {line - 1}"):
        Journal(path)
    assert path.read_bytes() == b"".join(lines)


def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\nmore\n")
    with pytest.raises(JournalError, match=r"line 1 .*notes\.txt"):
        Journal(path)
    assert path.read_text() == "my notes\nmore\n"


def test_two_processes_cannot_write_one_journal(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    with Journal(path), pytest.raises(JournalLockedError, match="another process"):
        Journal(path)
    Journal(path).close()


def _append_until_killed(path: str, ready: multiprocessing.synchronize.Event) -> None:  # type: ignore[name-defined]
    journal = Journal(Path(path))
    for index in range(10**9):
        journal.append(str(index), ANSWER)
        if index == 50:
            ready.set()


def test_a_killed_writer_loses_no_finished_call(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    writer = context.Process(target=_append_until_killed, args=(str(path), ready))
    writer.start()
    assert ready.wait(timeout=30)
    assert writer.pid
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    with Journal(path) as journal:
        assert len(journal) >= 51
        assert list(journal.calls()) == [str(index) for index in range(len(journal))]


def test_the_key_ignores_the_kind_and_nothing_else() -> None:
    base = request_key("m", ask())
    assert request_key("m", ask(kind="score")) == base
    others = [
        request_key("other", ask()),
        request_key("m", ask("bye")),
        request_key("m", ask(seed=1)),
        request_key("m", ask(n=2)),
        request_key("m", Request((Message("system", "hello"),), ask().sampling)),
        request_key("m", Request(ask().messages, Sampling(max_tokens=5, choices=("a",)))),
    ]
    assert len({base, *others}) == 7


def test_the_key_is_the_same_in_every_process() -> None:
    program = (
        "from perseid.engines.journal import request_key\n"
        "from perseid.engines.protocol import Message, Request, Sampling\n"
        "print(request_key('m', Request((Message('user', 'hello'),), Sampling(max_tokens=5))))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert printed.stdout.strip() == request_key("m", ask())


async def test_a_resumed_run_makes_no_call_twice_and_counts_the_same_usage(tmp_path: Path) -> None:
    requests = [ask(text, kind=kind) for text in ("one", "two", "one") for kind in ("propose", "score")]

    async def run(path: Path, upto: int) -> tuple[ScriptedEngine, JournaledEngine, list[Generation]]:
        inner = ScriptedEngine(lambda request: [request.messages[0].content.upper()])
        engine = JournaledEngine(inner, Journal(path))
        answers = [await engine.generate(request) for request in requests[:upto]]
        await engine.close()
        return inner, engine, answers

    _, undisturbed, expected = await run(tmp_path / "a", len(requests))
    await run(tmp_path / "b", 1)
    inner, resumed, answers = await run(tmp_path / "b", len(requests))
    assert answers == expected
    assert [request.messages[0].content for request in inner.requests] == ["two"]
    assert (resumed.counts.made, resumed.counts.replayed) == (1, 5)
    assert resumed.counts.usage_by_kind == undisturbed.counts.usage_by_kind
    assert resumed.counts.usage_by_kind["propose"].calls == 3
    assert inner.closed


async def test_identical_requests_in_flight_become_one_call(tmp_path: Path) -> None:
    inner = ScriptedEngine(lambda _: ["yes"])
    engine = JournaledEngine(inner, Journal(tmp_path / "calls"))
    answers = await asyncio.gather(*(engine.generate(ask()) for _ in range(5)))
    assert len(inner.requests) == 1
    assert len(set(answers)) == 1
    assert (engine.counts.made, engine.counts.replayed) == (1, 4)
    await engine.close()


async def test_the_first_caller_may_leave_without_taking_the_call_along(tmp_path: Path) -> None:
    inner = ScriptedEngine(lambda _: ["yes"])
    engine = JournaledEngine(inner, Journal(tmp_path / "calls"))
    first = asyncio.create_task(engine.generate(ask()))
    second = asyncio.create_task(engine.generate(ask()))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).completions[0].text == "yes"
    assert first.cancelled() or await asyncio.wait([first])
    assert len(inner.requests) == 1
    await engine.close()


async def test_a_call_that_nobody_waits_for_is_cancelled_and_can_be_made_again(tmp_path: Path) -> None:
    inner = ScriptedEngine(lambda _: ["yes"])
    engine = JournaledEngine(inner, Journal(tmp_path / "calls"))
    only = asyncio.create_task(engine.generate(ask()))
    for _ in range(2):
        await asyncio.sleep(0)
    only.cancel()
    await asyncio.wait([only])
    assert (await engine.generate(ask())).completions[0].text == "yes"
    assert engine.counts.made == 1
    await engine.close()


async def test_a_failed_call_is_not_recorded(tmp_path: Path) -> None:
    failures = [EngineError("broken")]

    def answer(_: Request) -> list[str]:
        if failures:
            raise failures.pop()
        return ["fine"]

    engine = JournaledEngine(ScriptedEngine(answer), Journal(tmp_path / "calls"))
    with pytest.raises(EngineError, match="broken"):
        await engine.generate(ask())
    assert (await engine.generate(ask())).completions[0].text == "fine"
    await engine.close()


async def test_the_cap_is_reached_and_never_exceeded() -> None:
    inner = ScriptedEngine(lambda _: ["yes"])
    engine = LimitedEngine(inner, 3)
    await asyncio.gather(*(engine.generate(ask(str(index))) for index in range(10)))
    assert inner.most_in_flight == 3
    assert len(inner.requests) == 10


async def test_the_call_log_holds_real_calls_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv(CALL_LOG_VARIABLE, str(log))
    engine = JournaledEngine(with_call_log(ScriptedEngine(lambda _: ["yes"])), Journal(tmp_path / "calls"))
    for text in ("a", "b", "a"):
        await engine.generate(ask(text))
    assert log.read_text().split() == [request_key("scripted", ask(text)) for text in ("a", "b")]
    await engine.close()


async def test_a_full_disk_is_an_error_and_leaves_the_journal_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "calls"
    journal = Journal(path)
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real_write(file, data[: len(data) // 2]))
    with pytest.raises(JournalError, match="make room"):
        journal.append("a", ANSWER)
    monkeypatch.undo()
    journal.append("b", ANSWER)
    journal.close()
    with Journal(path) as reopened:
        assert (reopened.get("a"), reopened.get("b")) == (None, ANSWER)


def test_a_finished_journal_is_read_as_a_whole_and_an_absent_one_is_empty(tmp_path: Path) -> None:
    with Journal(tmp_path / "calls.jsonl") as journal:
        journal.append("a", ANSWER)
    assert read_journal(tmp_path / "calls.jsonl") == {"a": ANSWER}
    assert read_journal(tmp_path / "absent.jsonl") == {}
