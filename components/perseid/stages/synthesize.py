"""Stage 1: search for plans. Reads the train problems; writes `trees.jsonl`, `plans.jsonl` and `dropped.jsonl`.

With `spec.pipeline.shards` the problems are searched in shards, each in a directory of its own, and the stage itself
joins what they have found to the files that one search of all problems writes.
"""

from __future__ import annotations

import json

from perseid.api.files import TREES
from perseid.api.result import StageResult
from perseid.data.problems import load_problems
from perseid.stages.context import ANYWHERE, StageContext
from perseid.stages.errors import StageError
from perseid.stages.searching import search_problems
from perseid.stages.shards import join_shards, split_problems


async def run(context: StageContext) -> StageResult:
    """Search every train problem, or join what the shards have found. Raises StageError where every search failed."""
    problems = load_problems(context.spec.problems.train, ANYWHERE)
    shards = context.spec.pipeline.shards
    result = await search_problems(context, problems) if shards == 1 else join_shards(context, problems)
    if result.metrics.get("stopped_failed") == len(problems):
        with (context.directory / TREES).open("rb") as trees:
            first = json.loads(trees.readline())
        raise StageError(f"the search failed on every problem; on the first with {first['failure']}")
    return result


async def run_shard(context: StageContext, shard: int) -> StageResult:
    """Search the problems of one shard, counted from 0."""
    problems = load_problems(context.spec.problems.train, ANYWHERE)
    return await search_problems(context, split_problems(problems, context.spec.pipeline.shards)[shard])
