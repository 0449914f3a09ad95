"""A deleted object stops its run before it goes, and takes its files along where its spec says so."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from shell_world import FIRST, NAME, UID, World, open_world

from perseid_operator.objects import leaves_files


async def clean_up(world: World) -> None:
    """The object is being deleted: passes until nothing is left of it."""
    assert world.kube.run is not None
    if world.reconciler is None:
        world.start()
    assert world.reconciler is not None
    for _ in range(1000):
        wait = await world.reconciler.clean_up(copy.deepcopy(world.kube.run))
        if wait is None:
            return
        await world.double.advance(wait)
        if world.watch is not None:
            await world.watch.round()
    raise AssertionError("nothing ends")


async def test_a_deleted_object_stops_its_run_before_it_goes_also_when_no_operator_was_there(
    tmp_path: Path, pipeline: str
) -> None:
    async with open_world(tmp_path, pipeline) as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        world.reconciler = None  # the operator was down meanwhile
        await clean_up(world)
        assert world.alive() == 0


async def test_a_deleted_object_takes_its_files_along_where_its_spec_says_so_once_its_run_is_stopped(
    tmp_path: Path, pipeline: str
) -> None:
    async with open_world(tmp_path, pipeline, reclaimPolicy="delete") as world:
        await world.until(lambda: world.double.alive(FIRST) == 1)
        root = tmp_path / "team" / f"{NAME}-{UID}"
        for name in ("generations/000/attempts/0/finetune/model", "evaluations/dev/scores.json", "notes.md"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        assert world.kube.run is not None
        assert leaves_files(world.kube.run)
        world.reconciler = None
        await clean_up(world)
        assert world.alive() == 0
        assert [path.name for path in root.iterdir()] == ["notes.md"], "what is not the run's stays"
        await clean_up(world)  # a crash after it: once more


async def test_the_files_of_a_finished_run_can_be_deleted_although_kfp_has_gone(tmp_path: Path, pipeline: str) -> None:
    async with open_world(tmp_path, pipeline, reclaimPolicy="delete") as world:
        await world.to_the_end()
        root = tmp_path / "team" / f"{NAME}-{UID}"
        assert (root / "generations").is_dir()
        world.double.fail_next("list_runs", 500, times=1000)
        await clean_up(world)
        assert not (root / "generations").exists()


@pytest.mark.parametrize("spec", [{}, {"reclaimPolicy": "retain"}])
async def test_files_stay_where_nobody_asked_to_delete_them(
    tmp_path: Path, pipeline: str, spec: dict[str, str]
) -> None:
    async with open_world(tmp_path, pipeline, **spec) as world:
        await world.to_the_end()
        assert world.kube.run is not None
        assert not leaves_files(world.kube.run)
        await clean_up(world)
        assert (tmp_path / "team" / f"{NAME}-{UID}" / "generations").is_dir()


@pytest.mark.parametrize("sees_workflows", [True, False])
async def test_a_deleted_object_waits_for_a_submission_in_doubt(
    tmp_path: Path, pipeline: str, sees_workflows: bool
) -> None:
    async with open_world(tmp_path, pipeline, sees_workflows=sees_workflows) as world:
        world.double.drop_next_create("row", "reset")
        await world.until(lambda: world.submissions["ambiguous"] == 1)
        await clean_up(world)
        assert world.alive() == 0
