"""What the watch keeps of a run is what was seen last, in whatever order answers come in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from perseid_operator.kfp import KfpRun
from perseid_operator.kfp.runs import parse_run
from perseid_operator.watch import RunWatch

NEW, OTHER = "new", "other"


def run(run_id: str) -> KfpRun:
    return parse_run(
        {"run_id": run_id, "display_name": run_id, "experiment_id": "e", "created_at": "2026-01-01T00:00:00Z"}
    )


class SlowKfp:
    """Answers from what there was when it was asked, and only when it is let."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.may_answer: dict[str, asyncio.Event] = {}
        self.asked: dict[str, asyncio.Event] = {}

    def hold(self, run_id: str) -> None:
        """Keep the answer to the next question after that very run."""
        self.may_answer[run_id], self.asked[run_id] = asyncio.Event(), asyncio.Event()

    async def list_runs(self, run_ids: Iterable[str]) -> dict[str, KfpRun]:
        return {run_id: run(run_id) for run_id in run_ids if run_id in self.there}

    async def get_run(self, run_id: str) -> KfpRun | None:
        answer = run(run_id) if run_id in self.there else None
        if run_id in self.asked:
            self.asked[run_id].set()
            await self.may_answer[run_id].wait()
        return answer


def watch_on(kfp: SlowKfp) -> RunWatch:
    client: Any = kfp
    watch = RunWatch(client, lambda key: None, clock=itertools.count().__next__, gather_seconds=0)
    watch.follow("a", [NEW])
    watch.follow("b", [OTHER])
    return watch


@pytest.mark.parametrize(
    ("known", "held"),
    [(False, NEW), (False, OTHER), (True, OTHER)],
    ids=["asked for by itself", "asked for before another", "known not to be there"],
)
async def test_a_run_that_was_created_during_a_round_is_there_although_the_round_did_not_see_it(
    known: bool, held: str
) -> None:
    kfp = SlowKfp()
    watch = watch_on(kfp)
    if known:
        await watch.look([NEW], since=0)
    kfp.hold(held)
    round_ = asyncio.create_task(watch.round())
    await kfp.asked[held].wait()
    kfp.there.add(NEW)
    watch.note(run(NEW), NEW)  # the answer to its creation
    kfp.may_answer[held].set()
    await round_
    look = watch.last(NEW)
    assert look is not None
    assert look.run is not None, "what was asked before its creation was answered after it"
