"""Not one lost and not one double run, wherever the operator's process ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell_world import expected, open_world

from perseid.api.reasons import Phase


async def count_awaits(storage: Path, pipeline: str, *, sees_workflows: bool) -> int:
    async with open_world(storage, pipeline, sees_workflows=sees_workflows) as world:
        status = await world.to_the_end()
        assert status.phase is Phase.COMPLETED
        assert world.executions == expected(2)
        return world.awaits


# A few seconds: some seventy histories, each with the process ending at another await, twice over (before what it
# asks for is sent, and after it was carried out and before the answer is read).
@pytest.mark.slow
@pytest.mark.parametrize("sees_workflows", [True, False], ids=["Workflows in sight", "Workflows out of sight"])
async def test_a_crash_at_any_await_loses_no_run_and_makes_none_twice(
    tmp_path: Path, pipeline: str, sees_workflows: bool
) -> None:
    awaits = await count_awaits(tmp_path / "calm", pipeline, sees_workflows=sees_workflows)
    points = set()
    for crash_at in range(1, awaits + 1):
        async with open_world(tmp_path / str(crash_at), pipeline, sees_workflows=sees_workflows) as world:
            world.crash_at = crash_at
            status = await world.to_the_end()
            assert len(world.crashes) == 1
            points.add(world.crashes[0])
            assert status.phase is Phase.COMPLETED, world.crashes
            assert world.executions == expected(2), world.crashes
            assert world.alive() == 0
            assert [generation.index for generation in status.generations] == [0, 1]
    assert {"before create_run", "after create_run", "before write_status", "after write_status"} <= points


@pytest.mark.parametrize("after", ["request", "workflow", "row"])
@pytest.mark.parametrize("how", ["reset", "error"])
@pytest.mark.parametrize("sees_workflows", [True, False], ids=["Workflows in sight", "Workflows out of sight"])
async def test_a_creation_without_an_answer_ends_in_one_run(
    tmp_path: Path, pipeline: str, after: str, how: str, sees_workflows: bool
) -> None:
    async with open_world(tmp_path, pipeline, sees_workflows=sees_workflows) as world:
        world.double.drop_next_create(after, how)
        status = await world.to_the_end()
        assert status.phase is Phase.COMPLETED
        assert world.submissions["ambiguous"] == 1
        counters = world.double.counters()
        assert set(counters.most_alive.values()) == {1}, "two were alive at once"
        assert set(counters.rows.values()) == {1}
        if after != "workflow":
            assert world.executions == expected(2)
