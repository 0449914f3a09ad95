"""A search in shards as KFP shows it: a loop and what joins its shards are one stage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perseid.api.layout import RESULT, Layout
from perseid.api.pipeline import PipelineSpec
from perseid.api.reasons import StageState
from perseid.api.result import StageResult
from perseid.api.stages import shard_name
from perseid.decide import StageTime
from perseid_operator.kfp.runs import KfpRun, KfpRunState, KfpTask
from perseid_operator.results import ResultReader, StageFailure
from perseid_operator.sight import observed, stages_of, times_of

START = datetime(2026, 1, 1, tzinfo=UTC)
IN_SHARDS = PipelineSpec.model_validate({"shards": 8, "stages": {"synthesize": {"gpus": 2}}})


def task(state: KfpRunState, seconds: int | None = None) -> KfpTask:
    return KfpTask(state, START, None if seconds is None else START + timedelta(seconds=seconds))


def run(**tasks: KfpTask) -> KfpRun:
    return KfpRun("r", KfpRunState.RUNNING, tasks={name.replace("_", "-"): one for name, one in tasks.items()})


@pytest.mark.parametrize(
    ("shards", "joined", "seen"),
    [
        (KfpRunState.RUNNING, None, StageState.RUNNING),
        (KfpRunState.SUCCEEDED, None, StageState.RUNNING),
        (KfpRunState.SUCCEEDED, KfpRunState.RUNNING, StageState.RUNNING),
        (KfpRunState.SUCCEEDED, KfpRunState.SUCCEEDED, StageState.SUCCEEDED),
        (KfpRunState.SUCCEEDED, KfpRunState.FAILED, StageState.FAILED),
        (KfpRunState.FAILED, None, StageState.FAILED),
    ],
)
def test_the_stage_runs_until_its_shards_are_joined(
    shards: KfpRunState, joined: KfpRunState | None, seen: StageState
) -> None:
    own = {} if joined is None else {"synthesize": task(joined)}
    assert stages_of(run(synthesize_shards=task(shards), **own)) == {"synthesize": seen}


def test_before_the_loop_begins_there_is_no_stage() -> None:
    assert (
        stages_of(run()) == stages_of(KfpRun("r", None, tasks={"synthesize-shards": KfpTask(None, None, None)})) == {}
    )


def test_each_shard_has_its_gpus_until_the_last_one_ends_and_what_joins_them_has_none() -> None:
    seen = run(synthesize_shards=task(KfpRunState.SUCCEEDED, 100), synthesize=task(KfpRunState.RUNNING))
    assert times_of(seen, IN_SHARDS, START + timedelta(hours=1)) == {"synthesize": StageTime(3600, 8 * 2 * 100)}


def test_a_search_in_shards_takes_as_long_as_its_slowest_shard_and_joining_them() -> None:
    joining = KfpTask(KfpRunState.SUCCEEDED, START + timedelta(seconds=110), START + timedelta(seconds=130))
    seen = run(synthesize_shards=task(KfpRunState.SUCCEEDED, 100), synthesize=joining)
    assert times_of(seen, IN_SHARDS, START + timedelta(hours=1))["synthesize"].seconds == 130
    failed = run(synthesize_shards=task(KfpRunState.FAILED, 100))
    assert times_of(failed, IN_SHARDS, START + timedelta(hours=1))["synthesize"].seconds == 100


def test_each_node_of_a_trainjob_has_the_gpus_of_its_stage() -> None:
    nodes = PipelineSpec.model_validate(
        {"trainJob": {"numNodes": 4}, "stages": {"finetune": {"gpus": 8}, "evaluate": {"gpus": 1}}}
    )
    seen = run(finetune=task(KfpRunState.SUCCEEDED, 10), evaluate=task(KfpRunState.SUCCEEDED, 10))
    assert observed(seen, nodes, None, START + timedelta(hours=1)).gpu_seconds == 4 * 8 * 10 + 10


async def test_the_shard_that_failed_says_why(tmp_path: Path) -> None:
    for shard, error in ((0, None), (3, "its node is gone")):
        directory = Layout(tmp_path, 0, 0).stage(shard_name(shard))
        directory.mkdir(parents=True)
        result = StageResult(stage="synthesize", state="failed" if error else "done", error=error)
        (directory / RESULT).write_text(result.model_dump_json(by_alias=True))
    told = await ResultReader().failure(str(tmp_path), 0, 0, shards=8)
    assert told == StageFailure("synthesize", "synthesize-shard-03: its node is gone")
    assert await ResultReader().failure(str(tmp_path), 0, 0, shards=1) is None
