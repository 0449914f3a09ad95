from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.engines.errors import NotRecordedError, RecordedAnswersError
from perseid.engines.journal import Journal
from perseid.engines.journaled import JournaledEngine
from perseid.engines.protocol import Completion, EngineError, Generation, Message, Request, Sampling, Usage
from perseid.engines.recorded import RecordedEngine, Recorder, recorded_key
from perseid.engines.scripted import ScriptedEngine

BY_HAND = {"kind": "mentor-answer", "subject": "q017", "answer": "An inch is 2.54 cm."}


def ask(text: str = "how long?", *, subject: str = "q017", kind: str = "mentor-answer", **sampling: object) -> Request:
    return Request((Message("user", text),), Sampling(**{"max_tokens": 9, **sampling}), kind, subject)  # type: ignore[arg-type]


def write(path: Path, *lines: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def texts(generation: Generation) -> list[str]:
    return [one.text for one in generation.completions]


async def record(path: Path, *requests: Request, answer: str = "recorded") -> ScriptedEngine:
    inner = ScriptedEngine(lambda request: [answer])
    recorder = Recorder(inner, path)
    for request in requests:
        await recorder.generate(request)
    await recorder.close()
    return inner


async def test_an_answer_by_subject_stands_whatever_the_prompt_says(tmp_path: Path) -> None:
    engine = RecordedEngine(write(tmp_path / "mentor.jsonl", BY_HAND))
    for guideline in ("Mention units.", "Be brief."):
        generation = await engine.generate(ask(guideline, n=2))
        assert texts(generation) == [BY_HAND["answer"]] * 2
        assert generation.usage == Usage(calls=1)
        assert generation.completions[0].finish_reason == "stop"
        assert generation.completions[0].tokens > 0
    await engine.close()


async def test_an_exact_answer_wins_over_one_by_subject(tmp_path: Path) -> None:
    path = tmp_path / "mentor.jsonl"
    await record(path, ask("the same words"))
    with path.open("a") as file:
        file.write(json.dumps(BY_HAND) + "\n")
    engine = RecordedEngine(path)
    assert texts(await engine.generate(ask("the same words"))) == ["recorded"]
    assert texts(await engine.generate(ask("other words"))) == [BY_HAND["answer"]]


@given(
    text=st.text(st.characters()),
    logprob=st.none() | st.floats(allow_nan=False),
    scores=st.none() | st.dictionaries(st.text(), st.floats(allow_nan=False)),
    usage=st.builds(Usage, *(st.integers(0, 10**9) for _ in range(4))),
)
def test_what_was_recorded_comes_back_exactly_with_its_usage(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    logprob: float | None,
    scores: dict[str, float] | None,
    usage: Usage,
) -> None:
    path = tmp_path_factory.mktemp("recorded") / "mentor.jsonl"
    generation = Generation((Completion(text, 1, "stop", logprob, scores), Completion("", 1, "length")), usage)

    class Fixed(ScriptedEngine):
        async def generate(self, request: Request) -> Generation:
            return generation

    async def record_and_read() -> Generation:
        recorder = Recorder(Fixed(lambda _: []), path)
        await recorder.generate(ask(n=2))
        await recorder.close()
        return await RecordedEngine(path).generate(ask(n=2))

    assert asyncio.run(record_and_read()) == generation


async def test_a_missing_answer_says_what_is_missing_where_and_how_to_record_it(tmp_path: Path) -> None:
    path = write(tmp_path / "mentor.jsonl", BY_HAND)
    engine = RecordedEngine(path)
    with pytest.raises(NotRecordedError) as missing:
        await engine.generate(ask(subject="q018", kind="judge"))
    said = str(missing.value)
    assert str(path) in said
    assert "'judge'" in said
    assert "'q018'" in said
    assert '{"kind": "judge", "subject": "q018", "answer": "..."}' in said
    assert "type openai" in said
    with pytest.raises(NotRecordedError, match="none was given"):
        await engine.generate(ask(subject=""))
    assert texts(await engine.generate(ask())) == [BY_HAND["answer"]]


async def test_a_handwritten_choice_must_be_one_of_the_choices(tmp_path: Path) -> None:
    engine = RecordedEngine(write(tmp_path / "judge.jsonl", {"kind": "judge", "subject": "q1", "answer": "right"}))
    assert texts(await engine.generate(ask(kind="judge", subject="q1", choices=("right", "wrong")))) == ["right"]
    with pytest.raises(RecordedAnswersError, match=r"'right'.*none of the choices \['yes', 'no'\]"):
        await engine.generate(ask(kind="judge", subject="q1", choices=("yes", "no")))


async def test_a_handwritten_answer_ends_at_a_stop_string_as_a_models_does(tmp_path: Path) -> None:
    engine = RecordedEngine(write(tmp_path / "m.jsonl", {**BY_HAND, "answer": "first\nsecond"}))
    assert texts(await engine.generate(ask(stop=("\n",)))) == ["first"]
    assert texts(await engine.generate(ask(stop=("\n",), keep_stop=True))) == ["first\n"]


GOOD = json.dumps(BY_HAND)
EXACT = {
    "key": "a" * 64,
    "kind": "k",
    "subject": "s",
    "completions": [{"text": "t", "tokens": 1, "finish_reason": "stop"}],
    "usage": {},
}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{broken", "not JSON"),
        ("[]", "JSON object is needed, not list"),
        ('{"kind": "a", "subject": "b"}', "lacks answer"),
        ('{"kind": "a", "subject": "b", "answer": 5}', "answer must be a text, not int"),
        ('{"kind": "a", "subject": "b", "answer": " "}', "must not be empty"),
        ('{"kind": "a", "subject": "b", "answer": "c", "note": ""}', "unknown fields: note"),
        (GOOD, "already"),
        (json.dumps(EXACT | {"key": "abc"}), "64 hex digits"),
        (json.dumps({name: value for name, value in EXACT.items() if name != "usage"}), "lacks usage"),
        (json.dumps(EXACT | {"usage": []}), "not as a recorder writes them"),
        (json.dumps(EXACT | {"usage": {"calls": -1}}), "whole numbers from 0"),
        (json.dumps(EXACT | {"completions": []}), "must be answers"),
        (json.dumps(EXACT | {"completions": [{"text": "t"}]}), "not as a recorder writes them"),
        (json.dumps(EXACT | {"completions": ["t"]}), "not as a recorder writes them"),
        (json.dumps(EXACT | {"completions": [{"text": 1, "tokens": 1, "finish_reason": "stop"}]}), "must be answers"),
        (json.dumps(EXACT | {"completions": [{"text": "", "tokens": 1, "finish_reason": "x"}]}), "must be answers"),
    ],
)
def test_a_broken_line_is_named_before_anything_is_asked(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "mentor.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(RecordedAnswersError) as broken:
        RecordedEngine(path)
    assert str(broken.value).startswith(f"{path}:3: ")
    assert why in str(broken.value)


def test_a_file_that_is_absent_empty_or_not_utf_8_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordedAnswersError, match="No such file"):
        RecordedEngine(tmp_path / "absent.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(RecordedAnswersError, match="holds no answers"):
        RecordedEngine(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"kind": "\xe4"}\n')
    with pytest.raises(RecordedAnswersError, match=r"latin.jsonl:1: not UTF-8"):
        RecordedEngine(tmp_path / "latin.jsonl")


async def test_another_answer_is_another_mentor_and_another_place_is_not(tmp_path: Path) -> None:
    first = RecordedEngine(write(tmp_path / "a.jsonl", BY_HAND))
    copy = RecordedEngine(write(tmp_path / "b.jsonl", BY_HAND))
    other = RecordedEngine(write(tmp_path / "c.jsonl", {**BY_HAND, "answer": "No idea."}))
    assert first.model_id == copy.model_id != other.model_id


async def test_a_paid_answer_is_asked_for_once_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "mentor.jsonl"
    first = await record(path, ask("a"), ask("b"), ask("a"))
    again = await record(path, ask("b"), ask("a"), ask("c"), answer="other")
    assert len(first.requests) == 2
    assert [request.messages[0].content for request in again.requests] == ["c"]
    assert len(path.read_text().splitlines()) == 3


async def test_no_answer_is_recorded_of_a_call_that_failed(tmp_path: Path) -> None:
    def fail(_: Request) -> list[str]:
        raise EngineError("down")

    recorder = Recorder(ScriptedEngine(fail), tmp_path / "mentor.jsonl")
    with pytest.raises(EngineError, match="down"):
        await recorder.generate(ask())
    await recorder.close()
    assert (tmp_path / "mentor.jsonl").read_bytes() == b""


async def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mentor.jsonl"
    await record(path, ask())
    with pytest.raises(RecordedAnswersError, match=r"mentor.jsonl:1.*another model than other"):
        Recorder(ScriptedEngine(lambda _: ["x"], model_id="other"), path)


async def test_two_recorders_of_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mentor.jsonl"
    first = Recorder(ScriptedEngine(lambda _: ["x"]), path)
    with pytest.raises(RecordedAnswersError, match="something else records"):
        Recorder(ScriptedEngine(lambda _: ["x"]), path)
    await first.close()
    await Recorder(ScriptedEngine(lambda _: ["x"]), path).close()


async def test_a_closed_recorder_takes_nothing(tmp_path: Path) -> None:
    recorder = Recorder(ScriptedEngine(lambda _: ["x"]), tmp_path / "mentor.jsonl")
    await recorder.close()
    with pytest.raises(RecordedAnswersError, match="closed"):
        await recorder.generate(ask())


async def test_a_write_cut_off_anywhere_loses_only_that_answer(tmp_path: Path) -> None:
    path = tmp_path / "mentor.jsonl"
    await record(path, ask("a"))
    before = path.stat().st_size
    await record(path, ask("b"))
    whole = path.read_bytes()
    await record(tmp_path / "first.jsonl", ask("a"))
    for torn in range(before + 1, len(whole)):
        path.write_bytes(whole[:torn])
        read = RecordedEngine(path)
        assert texts(await read.generate(ask("a"))) == ["recorded"]
        if torn < len(whole) - 1:  # without its line break the line is whole
            assert read.model_id == RecordedEngine(tmp_path / "first.jsonl").model_id
            with pytest.raises(NotRecordedError):
                await read.generate(ask("b"))
        await record(path, ask("b"))
        assert path.read_bytes() == whole


async def test_a_broken_last_line_by_hand_is_an_error_and_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "mentor.jsonl"
    path.write_text(f'{GOOD}\n{{"kind": "mentor-answer", "subj')
    before = path.read_bytes()
    with pytest.raises(RecordedAnswersError, match=r"mentor.jsonl:2: not JSON"):
        RecordedEngine(path)
    with pytest.raises(RecordedAnswersError, match=r"mentor.jsonl:2: not JSON"):
        Recorder(ScriptedEngine(lambda _: ["x"]), path)
    assert path.read_bytes() == before


async def test_a_last_line_by_hand_without_a_line_break_stays_whole_when_more_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "mentor.jsonl"
    path.write_text(GOOD)
    await record(path, ask("exactly"))
    engine = RecordedEngine(path)
    assert texts(await engine.generate(ask("exactly"))) == ["recorded"]
    assert texts(await engine.generate(ask("otherwise"))) == [BY_HAND["answer"]]


_ENDLESS = """
import asyncio, sys
from pathlib import Path
from perseid.engines.protocol import Message, Request, Sampling
from perseid.engines.recorded import Recorder
from perseid.engines.scripted import ScriptedEngine

async def main():
    recorder = Recorder(ScriptedEngine(lambda request: ["answer to " + request.messages[0].content]), Path(sys.argv[1]))
    at = 0
    while True:
        await recorder.generate(Request((Message("user", str(at)),), Sampling(9)))
        print(at, flush=True)
        at += 1

asyncio.run(main())
"""


async def test_after_a_kill_every_answer_that_was_handed_out_is_in_the_file(tmp_path: Path) -> None:
    # Starts a Python of its own, because only another process can be killed: about a second.
    path = tmp_path / "mentor.jsonl"
    with subprocess.Popen([sys.executable, "-c", _ENDLESS, str(path)], stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    engine = RecordedEngine(path)
    for at in range(20):
        generation = await engine.generate(Request((Message("user", str(at)),), Sampling(9)))
        assert texts(generation) == [f"answer to {at}"]
    await record(path, ask("more"))
    assert texts(await RecordedEngine(path).generate(ask("more"))) == ["recorded"]


async def test_what_a_kill_took_from_the_journal_the_recorder_still_has(tmp_path: Path) -> None:
    async def run(journal: Path) -> ScriptedEngine:
        inner = ScriptedEngine(lambda _: ["paid"])
        engine = JournaledEngine(Recorder(inner, tmp_path / "mentor.jsonl"), Journal(journal))
        assert texts(await engine.generate(ask())) == ["paid"]
        await engine.close()
        return inner

    assert len((await run(tmp_path / "journal.jsonl")).requests) == 1
    assert (await run(tmp_path / "lost-and-new.jsonl")).requests == []


def test_the_key_is_of_the_request_alone_and_the_file_holds_no_prompt(tmp_path: Path) -> None:
    assert recorded_key(ask("a")) == recorded_key(ask("a", subject="other", kind="other"))
    assert recorded_key(ask("a")) != recorded_key(ask("b"))
    assert recorded_key(ask("a", seed=1)) != recorded_key(ask("a", seed=2))
    asyncio.run(record(tmp_path / "m.jsonl", ask("the secret plan")))
    assert "secret plan" not in (tmp_path / "m.jsonl").read_text()
