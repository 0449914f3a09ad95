"""Shards whose files are objects: each is written on a machine of its own, and joined on another."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from s3_server import S3Server

from perseid.api.attempt import Attempt
from perseid.api.files import DROPPED, PLANS, TREES
from perseid.api.layout import RESULT, SCRATCH_DIRECTORY
from perseid.api.result import StageResult
from perseid.api.spec import EvolutionRun
from perseid.api.stages import shard_name
from perseid.data.jsonl import write_lines
from perseid.data.problems import load_problems
from perseid.stages import synthesize
from perseid.stages.context import ANYWHERE, StageContext
from perseid.stages.errors import StageError
from perseid.stages.runtime import run_stage
from perseid.stages.shards import split_problems
from perseid.storage.objects import Objects

KEY = "generations/000/attempts/{}/{}"


def attempt(root: str, seeds: Path, number: int = 0) -> Attempt:
    train = {"source": "jsonl", "path": str(seeds)}
    spec = {"problems": {"train": train}, "pipeline": {"shards": 3}}
    return Attempt(
        run=EvolutionRun.model_validate({"metadata": {"name": "sharded"}, "spec": spec}),
        run_id="6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11",
        generation=0,
        number=number,
        storage=root,
        start_model="org/name",
    )


async def search(context: StageContext, shard: int, error: Exception | None = None) -> StageResult:
    """Stands in for a model: a tree and a plan for each of the shard's problems."""
    if error is not None:
        raise error
    problems = load_problems(context.spec.problems.train, ANYWHERE)
    mine = [one.id for one in split_problems(problems, context.spec.pipeline.shards)[shard]]
    for name in (TREES, PLANS, DROPPED):
        lines = [] if name == DROPPED else [json.dumps({"problem_id": one}).encode() + b"\n" for one in mine]
        write_lines(context.directory / name, lines)
    counts = {"problems": len(mine), "plans": len(mine)}
    return StageResult(stage="synthesize", state="done", counts=counts, metrics=counts)


@pytest.mark.usefixtures("server")
def test_shards_are_joined_from_the_bucket_and_the_next_attempt_takes_over_those_that_were_done(
    root: str, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = tmp_path / "train.jsonl"
    names = [f"problem_{number}" for number in range(7)]
    seeds.write_text("".join(json.dumps({"id": one, "statement": "x", "entry_point": one}) + "\n" for one in names))
    machines = iter(range(100))

    def on_another_machine(name: str, number: int, body: Callable[[StageContext], object]) -> StageResult:
        monkeypatch.setenv(SCRATCH_DIRECTORY, str(tmp_path / f"machine-{next(machines)}"))
        return run_stage(name, attempt(root, seeds, number), body)  # type: ignore[arg-type]

    on_another_machine(shard_name(0), 0, functools.partial(search, shard=0))
    with pytest.raises(StageError, match="its node is gone"):
        on_another_machine(shard_name(1), 0, functools.partial(search, shard=1, error=StageError("its node is gone")))
    on_another_machine(shard_name(2), 0, functools.partial(search, shard=2))
    with pytest.raises(StageError, match="synthesize-shard-01 has not finished"):
        on_another_machine("synthesize", 0, synthesize.run)

    must_not_run = functools.partial(search, error=AssertionError("run again"))
    on_another_machine(shard_name(0), 1, functools.partial(must_not_run, shard=0))
    on_another_machine(shard_name(1), 1, functools.partial(search, shard=1))
    on_another_machine(shard_name(2), 1, functools.partial(must_not_run, shard=2))
    assert on_another_machine("synthesize", 1, synthesize.run).counts == {"problems": 7, "plans": 7}
    plans = Objects(root).read(f"{KEY.format(1, 'synthesize')}/{PLANS}")
    assert plans is not None
    assert [json.loads(line)["problem_id"] for line in plans[0].splitlines()] == names
    for shard in range(3):
        assert Objects(root).read(f"{KEY.format(1, shard_name(shard))}/{RESULT}") is not None, "the join removed it"
