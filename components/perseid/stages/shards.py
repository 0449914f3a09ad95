"""A search in shards: which problems each of them gets, and how what they found becomes one again.

A problem's search depends on the problem and the seed alone, so that the shards together find what one search of all
problems finds; with an engine that batches, but for rounding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from perseid.api.files import DROPPED, PLANS, TREES
from perseid.api.layout import JOURNAL, RESULT, read_stage_result
from perseid.api.result import StageResult, StageUsage
from perseid.api.stages import shard_name
from perseid.data.jsonl import write_lines
from perseid.data.records import Problem
from perseid.engines.journal import Journal, read_journal
from perseid.stages.context import StageContext
from perseid.stages.errors import StageError


def split_problems(problems: Sequence[Problem], shards: int) -> list[list[Problem]]:
    """The problems of each shard, in their order; sizes differ by one at most.

    Which shard a problem is in depends on the ids of the problems and the number of shards alone: not on the problems'
    order, their texts or the seed.
    """
    ids = sorted((one.id for one in problems), key=lambda one: (hashlib.sha256(one.encode()).digest(), one))
    shard_of = {one: place * shards // len(ids) for place, one in enumerate(ids)}
    return [[one for one in problems if shard_of[one.id] == shard] for shard in range(shards)]


def join_shards(context: StageContext, problems: Sequence[Problem]) -> StageResult:
    """Write the files that one search of all problems writes, from those of the shards; their counts and usage add up.

    Raises StageError where a shard has not finished, or has searched other problems than it has to.
    """
    split = split_problems(problems, context.spec.pipeline.shards)
    context.progress.begin("joining shards", total=len(split), unit="shards")
    names = [shard_name(shard) for shard in range(len(split))]
    results = [_finished(context, name) for name in names]
    shard_of = {problem.id: shard for shard, part in enumerate(split) for problem in part}
    for file in (TREES, PLANS, DROPPED):
        sources = [_Records(context.output(name, file)) for name in names]
        lines = _in_order(sources, shard_of, [problem.id for problem in problems], one_each=file == TREES)
        write_lines(context.directory / file, lines)
    # Conversion looks there for answers that the search has paid for already.
    with Journal(context.directory / JOURNAL) as journal:
        for done, name in enumerate(names, start=1):
            for key, generation in read_journal(context.output(name, JOURNAL)).items():
                if journal.get(key) is None:
                    journal.append(key, generation)
            context.progress.update(done)
    return StageResult(
        stage=context.stage,
        state="done",
        counts=_added(result.counts for result in results),
        metrics=_added(result.metrics for result in results),
        usage=StageUsage(**_added(result.usage.model_dump() for result in results)),
    )


def _finished(context: StageContext, name: str) -> StageResult:
    result = read_stage_result(context.output(name, RESULT).parent)
    if result is None or result.state != "done":
        raise StageError(f"{name} has not finished; start it again before its stage")
    return result


class _Records:
    """A file of records that are read in the order of their problems."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = self._read()
        self._next = next(self._lines, None)

    def _read(self) -> Iterator[tuple[str, bytes]]:
        with self.path.open("rb") as file:
            for line in file:
                yield json.loads(line)["problem_id"], line

    def of(self, problem_id: str) -> Iterator[bytes]:
        """The records of a problem, where they come next."""
        while self._next is not None and self._next[0] == problem_id:
            yield self._next[1]
            self._next = next(self._lines, None)

    @property
    def left(self) -> str | None:
        """The problem of the next record; None at the end."""
        return None if self._next is None else self._next[0]


def _in_order(
    sources: Sequence[_Records], shard_of: Mapping[str, int], order: Sequence[str], *, one_each: bool
) -> Iterator[bytes]:
    for problem_id in order:
        source = sources[shard_of[problem_id]]
        count = 0
        for line in source.of(problem_id):
            count += 1
            yield line
        if one_each and count != 1:
            raise _changed(source, problem_id)
    for source in sources:
        if source.left is not None:
            raise _changed(source, source.left)


def _changed(source: _Records, problem_id: str) -> StageError:
    return StageError(
        f"{source.path} does not fit problems.train (problem {problem_id}): the problems have changed since they were"
        " searched; put them back, or make a new EvolutionRun of the new ones"
    )


def _added(parts: Iterator[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total
