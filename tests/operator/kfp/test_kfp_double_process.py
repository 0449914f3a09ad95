"""The double as a process: what survives its death, and what is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kfp_processes import double_process, eventually
from kfp_samples import run_request

from perseid_operator.kfp import KfpAmbiguousError, KfpClient, KfpRunState, KfpUnreachableError

Clients = Callable[..., KfpClient]


@pytest.mark.slow  # Three starts of a process that imports KFP's library.
async def test_runs_survive_the_doubles_death_and_orphans_of_it_are_collected(clients: Clients, tmp_path: Path) -> None:
    arguments = ("--state", str(tmp_path), "--scale", "0.05", "--running", "100000")
    async with double_process(*arguments) as first:
        kfp = clients(first.url)
        experiment = await kfp.ensure_experiment("survivor", "")
        run = await kfp.create_run(run_request(experiment))
        await first.kill()
    with pytest.raises(KfpUnreachableError):
        await kfp.get_run(run.run_id)
    lost = run_request(experiment)
    async with double_process(*arguments) as second:
        kfp = clients(second.url)
        assert await kfp.ensure_experiment("survivor", "") == experiment

        async def runs() -> bool:
            found = await kfp.get_run(run.run_id)
            return found is not None and found.state is KfpRunState.RUNNING

        await eventually(runs)
        await second.control("drop_next_create", after="workflow", how="kill")
        with pytest.raises(KfpAmbiguousError, match="connection broke"):
            await kfp.create_run(lost)
        assert await second.process.wait() == -9
    async with double_process(*arguments) as third:
        kfp = clients(third.url)
        assert await kfp.get_run(lost.run_id) is None
        state = await third.state()
        assert state["counters"]["executions"] == {run.run_id: 1, lost.run_id: 1}
        assert state["counters"]["rows"] == {run.run_id: 1}

        async def is_collected() -> bool:
            return (await third.state())["counters"]["collected"] == {lost.run_id: 1}

        await eventually(is_collected)
        assert await kfp.terminate(run.run_id)

        async def has_failed() -> bool:
            found = await kfp.get_run(run.run_id)
            return found is not None and found.state is KfpRunState.FAILED

        await eventually(has_failed)


@pytest.mark.slow  # Starts a process that imports KFP's library.
async def test_everything_can_be_ordered_over_http(clients: Clients) -> None:
    async with double_process("--scale", "0.001") as process:
        kfp = clients(process.url)
        experiment = await kfp.ensure_experiment("ordered", "")
        await process.control("script", pending=0, running=None)
        run = await kfp.create_run(run_request(experiment))

        async def runs() -> bool:
            return (await process.state())["runs"][run.run_id] == "RUNNING"

        await eventually(runs)
        assert (await process.control("finish_run", run_id=run.run_id, outcome="FAILED"))["runs"] == {
            run.run_id: "FAILED"
        }
        await process.control("go_down", seconds=0.3)
        with pytest.raises(KfpUnreachableError):
            await clients(process.url).check()

        async def is_up() -> bool:
            try:
                await kfp.check()
            except KfpUnreachableError:
                return False
            return True

        await eventually(is_up)
        with pytest.raises(AssertionError, match="no such method"):
            await process.control("nonsense")
        with pytest.raises(AssertionError, match="not found"):
            await process.control("lose_workflow", run_id="nonsense")
