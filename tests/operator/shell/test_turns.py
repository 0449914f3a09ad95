from __future__ import annotations

import asyncio
import copy
from pathlib import Path

import pytest
from shell_world import UID, open_world

from perseid_operator.kube.protocol import UnavailableError
from perseid_operator.turns import Turns


async def test_who_comes_first_is_served_first_and_the_next_one_is_woken() -> None:
    woken: list[str] = []
    turns = Turns(2, woken.append)
    assert [await turns.take(key, 0) for key in "abcd"] == [True, True, False, False]
    turns.give_back("a")
    assert woken == ["c"]
    assert not await turns.take("d", 0), "c was there before"
    assert await turns.take("c", 0)
    assert not await turns.take("d", 0)


async def test_a_turn_is_held_until_it_is_given_back_and_taken_only_once() -> None:
    turns = Turns(1, lambda key: None)
    assert await turns.take("a", 0)
    assert await turns.take("a", 0)
    turns.give_back("a")
    assert await turns.take("b", 0)


async def test_who_leaves_the_queue_holds_nobody_up() -> None:
    woken: list[str] = []
    turns = Turns(1, woken.append)
    assert [await turns.take(key, 0) for key in "abc"] == [True, False, False]
    turns.give_back("b")
    turns.give_back("a")
    assert woken == ["c"]
    assert await turns.take("c", 0)


async def test_who_waits_gets_the_turn_as_soon_as_it_is_given_back_and_needs_no_waking() -> None:
    woken: list[str] = []
    turns = Turns(1, woken.append)
    assert await turns.take("a", 0)
    waiting = asyncio.create_task(turns.take("b", 60))
    await asyncio.sleep(0)
    turns.give_back("a")
    assert await waiting
    assert not woken


async def test_who_is_cancelled_while_waiting_may_leave_and_the_next_one_goes_on() -> None:
    turns = Turns(1, lambda key: None)
    assert await turns.take("a", 0)
    waiting, other = (asyncio.create_task(turns.take(key, 60)) for key in "bc")
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    turns.give_back("b")
    turns.give_back("a")
    assert await other


async def test_a_pass_that_fails_does_not_keep_its_place_in_the_queue(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline) as world:
        world.start()
        assert world.reconciler is not None
        turns = world.reconciler._actions.turns
        turns._at_once = 1
        assert await turns.take("another", 0)
        assert not await turns.take(UID, 0)

        async def broken(*_: object) -> None:
            raise UnavailableError("the API server is away")

        world.reconciler._observer.observe = broken  # type: ignore[method-assign, assignment]
        with pytest.raises(UnavailableError):
            await world.reconciler.reconcile(copy.deepcopy(world.kube.run))
        assert not await turns.take("behind", 0)
        turns.give_back("another")
        assert await turns.take("behind", 0)
