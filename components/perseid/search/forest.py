"""Many searches at once on one engine: each is a coroutine, and the engine batches what they ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable

from perseid.data.records import Problem
from perseid.search.outcome import Failure, Search, SearchResult
from perseid.search.tree import Tree


async def grow_forest(
    search: Search, problems: Iterable[Problem], *, seed: int, trees_in_flight: int
) -> AsyncGenerator[SearchResult, None]:
    """Search every problem, `trees_in_flight` at once, and yield each result as it comes.

    A new search starts as soon as one ends. Whatever fails in one problem is its result, and the others go on. The
    results do not depend on `trees_in_flight`, only their order does. When the caller stops reading (`aclose`) or is
    cancelled, every search is cancelled and waited for.
    """
    if trees_in_flight < 1:
        raise ValueError(f"trees_in_flight must be at least 1, but is {trees_in_flight}")
    waiting = iter(problems)
    running: dict[asyncio.Task[SearchResult], Problem] = {}
    try:
        while True:
            while len(running) < trees_in_flight and (problem := next(waiting, None)) is not None:
                running[asyncio.ensure_future(_start(search, problem, seed))] = problem
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task in done]:
                yield _result(task, running.pop(task))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _start(search: Search, problem: Problem, seed: int) -> SearchResult:
    return await search.search(problem, seed)


def _result(task: asyncio.Task[SearchResult], problem: Problem) -> SearchResult:
    error = task.exception()
    if error is None:
        return task.result()
    if not isinstance(error, Exception):
        raise error
    return SearchResult(
        problem_id=problem.id,
        tree=Tree(problem.statement).to_dict(),
        paths=(),
        stop_reason="failed",
        failure=Failure("internal-error", f"{type(error).__name__}: {error}"),
    )
