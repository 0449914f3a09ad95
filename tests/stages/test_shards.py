"""A search in shards finds what one search finds, and a shard is as durable as a stage."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from perseid.api.attempt import Attempt
from perseid.api.base import replace
from perseid.api.files import DROPPED, PLANS, TREES
from perseid.api.layout import JOURNAL, RESULT, Layout, may_be_taken_over, parts_in, read_stage_result
from perseid.api.result import StageResult
from perseid.api.spec import EvolutionRun
from perseid.api.stages import shard_name, stage_of
from perseid.data.records import Problem
from perseid.engines.journal import read_journal
from perseid.stages import synthesize
from perseid.stages.context import StageContext
from perseid.stages.errors import StageError
from perseid.stages.runtime import run_stage
from perseid.stages.shards import split_problems
from tiny_run import build_model, problem

NAMES = ["same", "itself", "unchanged", "identity"]
FILES = (TREES, PLANS, DROPPED)


def problems(names: list[str]) -> list[Problem]:
    return [Problem.model_validate(problem(name)) for name in names]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny") / "model"
    build_model(directory)
    return directory


def attempt(root: Path, model: Path, *, shards: int, number: int = 0, names: list[str] = NAMES) -> Attempt:
    seeds = root / "train.jsonl"
    root.mkdir(parents=True, exist_ok=True)
    seeds.write_text("".join(json.dumps(problem(name)) + "\n" for name in names))
    spec: dict[str, Any] = {
        "model": {"ref": str(model), "dtype": "float32"},
        # One request at a time: an answer depends on it alone, and the end is the same byte for byte.
        "engine": {"type": "transformers", "transformers": {"batchSize": 1}},
        "problems": {"train": {"source": "jsonl", "path": str(seeds)}},
        "synthesis": {
            "search": {"rounds": 1, "branch": 2, "maxDepth": 1, "minPlanWords": 2, "maxStepTokens": 8},
            "plansPerProblem": 2,
        },
        "sandbox": {"workers": 1},
        "pipeline": {"shards": shards},
    }
    return Attempt(
        run=EvolutionRun.model_validate({"metadata": {"name": "sharded"}, "spec": spec}),
        run_id="6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11",
        generation=0,
        number=number,
        storage=str(root),
        start_model=str(model),
    )


def run_shard(given: Attempt, shard: int) -> StageResult:
    return run_stage(shard_name(shard), given, functools.partial(synthesize.run_shard, shard=shard))


def join(given: Attempt) -> StageResult:
    return run_stage("synthesize", given, synthesize.run)


def in_shards(given: Attempt) -> StageResult:
    for shard in range(given.run.spec.pipeline.shards):
        run_shard(given, shard)
    return join(given)


def written(given: Attempt) -> dict[str, bytes]:
    directory = Layout.of(given).stage("synthesize")
    return {name: (directory / name).read_bytes() for name in FILES}


async def fails(context: StageContext) -> StageResult:
    raise StageError("its node is gone")


async def must_not_run(context: StageContext) -> StageResult:
    raise AssertionError(f"{context.directory} was run again")


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 32])
def test_every_problem_is_in_one_shard_and_shards_are_of_a_size(shards: int) -> None:
    every = problems([f"problem_{number}" for number in range(31)])
    split = split_problems(every, shards)
    assert sorted(one.id for part in split for one in part) == sorted(one.id for one in every)
    assert max(map(len, split)) - min(map(len, split)) <= 1
    order = [one.id for one in every]
    assert all(sorted(part, key=lambda one: order.index(one.id)) == part for part in split), "not in their order"


def test_a_problems_shard_depends_on_no_order_and_no_text() -> None:
    def shards_of(given: list[Problem]) -> list[set[str]]:
        return [{one.id for one in part} for part in split_problems(given, 3)]

    every = problems(NAMES)
    reworded = [one.model_copy(update={"statement": "Another."}) for one in reversed(every)]
    assert shards_of(reworded) == shards_of(every)


# Slow (15 s): imports torch, and searches with a small model of random weights three times over.
@pytest.mark.slow
def test_shards_write_together_what_one_search_writes(tmp_path: Path, model: Path) -> None:
    whole = attempt(tmp_path / "one", model, shards=1)
    expected = join(whole)
    assert len(written(whole)[PLANS].splitlines()) > 0
    assert len(written(whole)[DROPPED].splitlines()) > 0
    for shards in (2, 5):  # 5 are more than there are problems
        given = attempt(tmp_path / str(shards), model, shards=shards)
        found = in_shards(given)
        assert written(given) == written(whole), shards
        assert (found.counts, found.metrics) == (expected.counts, expected.metrics)
        assert replace(found.usage, seconds=0) == replace(expected.usage, seconds=0)
        assert found.usage.calls > 0
        journals = [read_journal(Layout.of(one).stage("synthesize") / JOURNAL) for one in (given, whole)]
        assert journals[0] == journals[1], "conversion would ask again what the search has asked"


# Slow (5 s): loads a model in two of the shards.
@pytest.mark.slow
def test_a_failed_shard_fails_the_attempt_and_the_next_one_takes_the_others_over(tmp_path: Path, model: Path) -> None:
    first = attempt(tmp_path, model, shards=3)
    before = run_shard(first, 0)
    with pytest.raises(StageError, match="its node is gone"):
        run_stage(shard_name(1), first, fails)
    run_shard(first, 2)
    with pytest.raises(StageError, match="synthesize-shard-01 has not finished"):
        join(first)

    second = attempt(tmp_path, model, shards=3, number=1)
    assert run_stage(shard_name(0), second, must_not_run) == before
    assert run_shard(second, 1).state == "done"
    run_stage(shard_name(2), second, must_not_run)
    found = join(second)
    assert found.counts["problems"] == len(NAMES)
    assert len(written(second)[TREES].splitlines()) == len(NAMES)
    parts = [part.name for part in parts_in(Layout.of(second).attempt_directory, "synthesize")]
    assert parts == [*map(shard_name, range(3)), "synthesize"]


def test_a_shard_without_problems_is_done_at_once_and_asks_no_model(tmp_path: Path) -> None:
    given = attempt(tmp_path, tmp_path / "there-is-no-model", shards=5, names=["same"])
    sizes = [len(part) for part in split_problems(problems(["same"]), 5)]
    empty = sizes.index(0)
    result = run_shard(given, empty)
    assert (result.state, result.counts, result.usage.calls) == ("done", {"problems": 0, "steps": 0, "plans": 0}, 0)
    assert (Layout.of(given).stage(shard_name(empty)) / TREES).read_bytes() == b""


def test_where_every_search_has_failed_in_every_shard_the_stage_fails_and_nothing_of_it_is_taken_over(
    tmp_path: Path,
) -> None:
    given = attempt(tmp_path, tmp_path, shards=2, names=NAMES[:3])
    split = split_problems(problems(NAMES[:3]), 2)
    for shard, part in enumerate(split):
        write_failed(Layout.of(given).stage(shard_name(shard)), [one.id for one in part])
    with pytest.raises(StageError, match="failed on every problem; on the first with engine-error: unauthorized"):
        join(given)
    result = read_stage_result(Layout.of(given).stage(shard_name(0)))
    assert result is not None
    assert not may_be_taken_over(shard_name(0), result), "the endpoint's key may be right by then"
    one_good = replace(result, metrics={**result.metrics, "stopped_failed": result.counts["problems"] - 1})
    assert may_be_taken_over(shard_name(0), one_good)


@pytest.mark.parametrize("now", [NAMES[:2], [*NAMES[:2], "another"]])
def test_shards_of_other_problems_are_not_joined(tmp_path: Path, now: list[str]) -> None:
    given = attempt(tmp_path, tmp_path, shards=1, names=now)
    given = replace(given, run=replace(given.run, spec=replace(given.run.spec, pipeline={"shards": 2})))
    for shard, part in enumerate(split_problems(problems(NAMES[:3]), 2)):
        write_failed(Layout.of(given).stage(shard_name(shard)), [one.id for one in part])
    with pytest.raises(StageError, match=r"trees\.jsonl does not fit problems\.train .*make a new EvolutionRun"):
        join(given)


def write_failed(directory: Path, ids: list[str]) -> None:
    """What a shard leaves of which every search has failed."""
    directory.mkdir(parents=True)
    tree = {"stop_reason": "failed", "solved": None, "failure": "engine-error: unauthorized", "paths": [], "counts": {}}
    (directory / TREES).write_text("".join(json.dumps({"problem_id": one, **tree, "tree": {}}) + "\n" for one in ids))
    for name in (PLANS, DROPPED):
        (directory / name).write_text("")
    counts = {"problems": len(ids), "steps": 0, "plans": 0}
    metrics = {**counts, "plans_dropped": 0, "stopped_failed": len(ids)}
    result = StageResult(stage="synthesize", state="done", counts=counts, metrics=metrics)
    (directory / RESULT).write_text(result.model_dump_json(by_alias=True))


def test_a_shards_name_is_of_its_stage_and_no_other_name_is() -> None:
    assert [stage_of(name) for name in ("synthesize-shard", shard_name(31), "synthesize", "self-assessment")] == [
        "synthesize",
        "synthesize",
        "synthesize",
        "self-assessment",
    ]
    assert [stage_of(name) for name in ("synthesize-shards", "synthesize-shard-1x", "root", "")] == [None] * 4
