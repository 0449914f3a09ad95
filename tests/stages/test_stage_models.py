"""Models in a stage: started when asked, journalled, and honest about their death."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perseid.engines.errors import EngineDiedError, EngineStartError
from perseid.engines.journal import Journal
from perseid.engines.lazy import LazyEngine
from perseid.engines.protocol import Engine, Generation, Message, Request, Sampling
from perseid.engines.scripted import ScriptedEngine
from perseid.stages.models import StageModel
from perseid.stages.spending import stage_usage


def ask(text: str = "hello") -> Request:
    return Request((Message("user", text),), Sampling(max_tokens=4))


class Dead:
    """An engine whose process is gone."""

    model_id = "scripted"

    async def generate(self, request: Request) -> Generation:
        raise EngineDiedError("the process is gone")

    async def close(self) -> None:
        pass


async def never() -> Engine:
    raise AssertionError("nobody asked for an engine")


async def test_an_engine_is_started_once_by_the_first_call_and_closed_with_it() -> None:
    starts = 0

    async def start() -> Engine:
        nonlocal starts
        starts += 1
        return ScriptedEngine(lambda request: ["yes"])

    engine = LazyEngine("scripted", start)
    await engine.generate(ask("a"))
    await engine.generate(ask("b"))
    await engine.close()
    assert starts == 1


async def test_a_stage_whose_calls_are_all_journalled_starts_no_engine(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        first = StageModel(ScriptedEngine(lambda request: ["yes"]), journal, in_flight=2)
        answer = await first.generate(ask())
    with Journal(tmp_path / "journal.jsonl") as journal:
        again = StageModel(LazyEngine("scripted", never), journal, in_flight=2)
        assert await again.generate(ask()) == answer
        assert stage_usage(again.usage) == stage_usage(first.usage)


async def test_an_engine_that_is_never_asked_is_closed_without_a_start() -> None:
    await LazyEngine("scripted", never).close()


async def test_a_dead_engine_is_remembered_so_that_it_does_not_look_like_bad_problems(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        model = StageModel(Dead(), journal, in_flight=2)
        model.raise_if_dead()
        with pytest.raises(EngineDiedError):
            await model.generate(ask())
        with pytest.raises(EngineDiedError, match="the process is gone"):
            model.raise_if_dead()


async def test_an_engine_that_does_not_start_is_tried_once_and_not_for_every_call(tmp_path: Path) -> None:
    tries = 0

    async def start() -> Engine:
        nonlocal tries
        tries += 1
        raise EngineStartError("no memory")

    with Journal(tmp_path / "journal.jsonl") as journal:
        model = StageModel(LazyEngine("scripted", start), journal, in_flight=2)
        together = await asyncio.gather(*(model.generate(ask(str(n))) for n in range(3)), return_exceptions=True)
        assert [type(error) for error in together] == [EngineStartError] * 3
        with pytest.raises(EngineStartError):
            await model.generate(ask("later"))
    assert tries == 1


async def test_calls_are_told_as_they_are_answered(tmp_path: Path) -> None:
    told: list[int] = []
    with Journal(tmp_path / "journal.jsonl") as journal:
        model = StageModel(ScriptedEngine(lambda request: ["yes"]), journal, in_flight=2)
        model.on_call = told.append
        await model.generate(ask("a"))
        await model.generate(ask("b"))
    assert told == [1, 2]
