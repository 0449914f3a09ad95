"""The operator whose watch on EvolutionRuns ends, or says nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster_access import Cluster
from control_plane import ControlPlane
from crd_objects import MANIFESTS
from operator_candidates import IN_A_HURRY, Candidates
from operator_world import OperatorWorld, expected_runs, operator_world, phase, prepare
from silent_proxy import silent_proxy

from kfp_double.simulation import Script

# Each of them starts operators, and waits some seconds for them to notice that nothing comes.
pytestmark = pytest.mark.slow

ACCOUNT = "perseid-operator"
ALONE = {"PERSEID_LEADER_ELECTION": "false"}
SPEC = {"generations": {"max": 2, "patience": 2}}


@pytest.fixture
async def world(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[OperatorWorld]:
    async with operator_world(cluster, namespace, tmp_path / "world") as made:
        made.double.script(Script(pending=0.05, running=None))  # they last until the test ends them
        yield made


@pytest.fixture
async def candidates(world: OperatorWorld) -> AsyncIterator[Candidates]:
    started = Candidates(world)
    yield started
    await started.close()


async def test_an_operator_whose_rights_are_taken_away_says_so_and_ends_and_the_next_one_goes_on(
    own_cluster: ControlPlane, world: OperatorWorld, candidates: Candidates
) -> None:
    first = await candidates.start(ACCOUNT, IN_A_HURRY, **ALONE)
    await world.create("evolve", SPEC)
    run_id = await world.is_under_way()
    await asyncio.to_thread(own_cluster.kubectl, "-n", world.namespace, "delete", "rolebinding", ACCOUNT)
    # A watch that is open stays open whatever becomes of the rights: until the API server ends it.
    await asyncio.to_thread(own_cluster.restart_api_server)
    assert await first.exit_code() == 1
    said = first.words.splitlines()[-1]
    assert "the watch on EvolutionRuns has ended" in said
    assert 'cannot watch resource "evolutionruns"' in said
    assert " CRITICAL " in said

    await prepare(own_cluster)
    role = str(MANIFESTS / "base" / "role.yaml")
    await asyncio.to_thread(own_cluster.kubectl, "apply", "-n", world.namespace, "-f", role)
    await candidates.start(ACCOUNT, IN_A_HURRY, **ALONE)
    world.double.script(Script(pending=0.05, running=0.3))
    await world.double.finish_run(run_id)
    await world.until(lambda objects: phase(objects["evolve"]) == "Completed")
    assert world.double.counters().executions == expected_runs((await world.objects())["evolve"])


async def test_a_watch_that_says_nothing_any_more_is_opened_anew_and_what_it_missed_is_seen(
    world: OperatorWorld, candidates: Candidates, tmp_path: Path
) -> None:
    kubeconfig = await candidates.admit(ACCOUNT)
    async with silent_proxy(kubeconfig, tmp_path) as (proxy, through):
        await candidates.start(ACCOUNT, IN_A_HURRY, **ALONE, KUBECONFIG=str(through))
        await world.create("evolve", SPEC)
        await world.is_under_way()
        proxy.silence()
        await world.patch("evolve", suspend=True, suspendPolicy="terminate")
        await world.create("another", {"generations": {"max": 1}})
        await world.until(lambda objects: phase(objects["evolve"]) == "Suspended")
        await world.until(lambda objects: phase(objects["another"]) == "Running")
        await world.patch("evolve", suspend=False)
        await world.is_under_way()
        assert max(world.double.counters().most_alive.values()) == 1
