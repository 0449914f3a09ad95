"""The operator as its own process on a real API server, with exactly the rights that manifests/ ships."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from audited_rights import rights_in, rights_used
from cluster_access import Cluster, KubectlError
from control_plane import ControlPlane
from crd_objects import MANIFESTS
from operator_world import OperatorWorld, expected_runs, is_over, kill, operator_world, phase, prepare

from kfp_double.simulation import Script

# Each of them starts operators, which takes a second at least, and lets runs go by in real time.
pytestmark = pytest.mark.slow


def _wait_for_rights(cluster: Cluster, namespace: str) -> None:
    """The API server takes a moment to notice a new Role, and refuses until then."""
    account = f"--as=system:serviceaccount:{namespace}:perseid-operator"
    for right in ("watch evolutionruns.perseid.dev", "create configmaps", "create events"):
        deadline = time.monotonic() + 30
        while True:
            try:
                cluster.kubectl("auth", "can-i", *right.split(), account, "-n", namespace)
                break
            except KubectlError:  # it answers no by its exit code
                assert time.monotonic() < deadline, f"the Role does not allow to {right}"
                time.sleep(0.1)


@pytest.fixture
async def world(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[OperatorWorld]:
    """A namespace in which the operator has its Role and nothing else."""
    for file in ("service-account.yaml", "role.yaml"):
        cluster.kubectl("apply", "-n", namespace, "-f", str(MANIFESTS / "base" / file))
    async with operator_world(cluster, namespace, tmp_path / "world") as made:
        made.kubeconfig = cluster.service_account_kubeconfig(namespace, "perseid-operator")
        await asyncio.to_thread(_wait_for_rights, cluster, namespace)
        yield made


async def kubectl(world: OperatorWorld, *arguments: str) -> str:
    return await asyncio.to_thread(world.cluster.kubectl, "-n", world.namespace, *arguments)


async def test_kubectl_apply_and_wait_is_all_that_a_user_needs(world: OperatorWorld) -> None:
    pid = await world.fork_operator()
    await world.create("evolve", {"generations": {"max": 2, "patience": 2}})
    await kubectl(world, "wait", "--for=condition=Complete", "--timeout=60s", "evorun/evolve")
    item = (await world.objects())["evolve"]
    assert world.double.counters().executions == expected_runs(item)
    # A finished object must be deletable without an operator: soon after the end nothing holds it any more.
    await world.until(lambda objects: "finalizers" not in objects["evolve"]["metadata"])
    assert "annotations" not in item["metadata"], "nobody's annotations but the user's"
    shown = await kubectl(world, "get", "evorun", "evolve", "-o", "wide")
    assert "Completed" in shown
    assert "2/2" in shown
    assert "0.450" in shown
    events = await kubectl(world, "get", "events", "-o", "jsonpath={.items[*].reason}")
    assert "MaxGenerations" in events.split()
    assert set(events.split()) <= {"AwaitingPods", "GenerationInProgress", "InProgress", "MaxGenerations"}
    refused = [line for line in world.log.read_text().lower().splitlines() if "forbidden" in line]
    assert all("workflows" in line for line in refused), "its Role lacks something"

    # An edit that is allowed after the end does not make kubectl wait for ever.
    await kubectl(world, "patch", "evorun", "evolve", "--type=merge", "-p", '{"spec":{"ttlSecondsAfterFinished":9000}}')
    await kubectl(world, "wait", "--for=condition=Complete", "--timeout=30s", "evorun/evolve")
    os.kill(pid, signal.SIGTERM)


async def test_an_operator_that_is_killed_is_gone_on_with_by_the_next(world: OperatorWorld) -> None:
    world.double.script(Script(pending=0.05, running=1.0))
    for number in range(3):
        await world.create(f"evolve-{number}", {"generations": {"max": 2, "patience": 2}})
    for wanted in (1, 3, 4):
        pid = await world.fork_operator()
        await world.until(lambda _, wanted=wanted: len(world.double.counters().executions) >= wanted)
        kill(pid)
    await world.fork_operator()
    await world.until(lambda objects: all(map(is_over, objects.values())))
    expected: dict[str, int] = {}
    for item in (await world.objects()).values():
        expected |= expected_runs(item)
    assert world.double.counters().executions == expected


async def test_a_suspended_run_holds_still_and_goes_on(world: OperatorWorld) -> None:
    world.double.script(Script(pending=0.05, running=2.0))
    await world.fork_operator()
    await world.create("evolve", {"generations": {"max": 2, "patience": 2}, "suspendPolicy": "terminate"})
    await world.until(lambda _: bool(world.double.counters().executions))
    await kubectl(world, "patch", "evorun", "evolve", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    await world.until(lambda objects: phase(objects["evolve"]) == "Suspended")
    assert sum(world.double.alive(run_id) for run_id in world.double.run_ids()) == 0
    await kubectl(world, "patch", "evorun", "evolve", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    await world.until(lambda objects: phase(objects["evolve"]) == "Completed")
    assert max(world.double.counters().most_alive.values()) == 1


async def test_an_object_that_is_deleted_while_no_operator_runs_goes_when_its_run_is_stopped(
    world: OperatorWorld,
) -> None:
    world.double.script(Script(pending=0.05, running=600.0))
    pid = await world.fork_operator()
    await world.create("evolve", {"generations": {"max": 2, "patience": 2}})
    await world.until(lambda _: any(world.double.alive(run_id) for run_id in world.double.run_ids()))
    kill(pid)
    await kubectl(world, "delete", "evorun", "evolve", "--wait=false")
    assert "evolve" in await world.objects(), "the finalizer holds it"
    await world.fork_operator()
    await world.until(lambda objects: "evolve" not in objects)
    assert sum(world.double.alive(run_id) for run_id in world.double.run_ids()) == 0


async def test_files_are_deleted_before_the_object_where_its_spec_says_so_also_after_the_end(
    world: OperatorWorld, tmp_path: Path
) -> None:
    world.double.script(Script(pending=0.05, running=0.2))
    await world.fork_operator()
    root = tmp_path / "files"
    await world.create("evolve", {"reclaimPolicy": "delete", "storage": {"uri": str(root)}, "generations": {"max": 1}})
    await world.until(lambda objects: phase(objects["evolve"]) == "Completed")
    assert (root / "generations").is_dir()
    # Whoever deletes it by its time to live does it like this, too.
    await kubectl(world, "delete", "evorun", "evolve", "--wait=false")
    await world.until(lambda objects: "evolve" not in objects)
    assert not (root / "generations").exists()


async def test_a_deleted_object_goes_in_the_end_although_kfp_never_answers(world: OperatorWorld) -> None:
    world.double.script(Script(pending=0.05, running=600.0))
    await world.fork_operator(PERSEID_CLEANUP_SECONDS="3")
    await world.create("evolve", {"generations": {"max": 2, "patience": 2}})
    await world.until(lambda _: any(world.double.alive(run_id) for run_id in world.double.run_ids()))
    world.double.fail_next("terminate_run", 500, times=1000)
    await kubectl(world, "delete", "evorun", "evolve", "--wait=false")
    await world.until(lambda objects: "evolve" not in objects)
    events = await kubectl(world, "get", "events", "-o", "jsonpath={.items[*].reason}")
    assert "CleanupFailed" in events.split()


async def test_an_object_of_the_same_name_as_one_that_was_deleted_has_runs_of_its_own(world: OperatorWorld) -> None:
    world.double.script(Script(pending=0.05, running=0.2))
    await world.fork_operator()
    expected: dict[str, int] = {}
    for _ in range(2):
        await world.create("evolve", {"generations": {"max": 1}})
        await world.until(lambda objects: phase(objects["evolve"]) == "Completed")
        expected |= expected_runs((await world.objects())["evolve"])
        await world.delete("evolve")
        await world.until(lambda objects: "evolve" not in objects)
    assert len(expected) == 2
    assert world.double.counters().executions == expected


async def test_a_namespace_that_is_deleted_goes_with_its_runs(
    cluster_with_controllers: Cluster, tmp_path: Path
) -> None:
    """Nothing can be created in it any more: no ConfigMap, and no Event."""
    cluster, name = cluster_with_controllers, "perseid-test-deleted"
    await asyncio.to_thread(cluster.kubectl, "create", "namespace", name)
    async with operator_world(cluster, name, tmp_path / "world") as world:
        world.double.script(Script(pending=0.05, running=600.0))
        await world.fork_operator()
        await world.create("evolve", {"generations": {"max": 2, "patience": 2}})
        await world.until(lambda _: any(world.double.alive(run_id) for run_id in world.double.run_ids()))
        await asyncio.to_thread(cluster.kubectl, "delete", "namespace", name, "--timeout=60s")
        assert sum(world.double.alive(run_id) for run_id in world.double.run_ids()) == 0


async def test_a_run_is_carried_on_when_the_api_server_comes_back(
    own_cluster: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    async with operator_world(own_cluster, namespace, tmp_path / "world") as world:
        world.double.script(Script(pending=0.05, running=1.0))
        await world.fork_operator()
        await world.create("evolve", {"generations": {"max": 3, "patience": 3}})
        await world.until(lambda _: len(world.double.counters().executions) == 2)
        await asyncio.to_thread(own_cluster.restart_api_server)
        await prepare(own_cluster)  # it is up some moments before it serves EvolutionRuns
        await world.until(lambda objects: phase(objects["evolve"]) == "Completed", 90)
        assert world.double.counters().executions == expected_runs((await world.objects())["evolve"])


async def test_a_hostile_object_neither_stops_the_operator_nor_blocks_the_others(world: OperatorWorld) -> None:
    await world.fork_operator()
    labels = {f"label-{number}": "x" * 63 for number in range(32)}
    stages = {stage: {"labels": labels, "nodeSelector": labels} for stage in ("synthesize", "convert", "finetune")}
    await world.create("huge", {"pipeline": {"image": "x" * 1000, "stages": stages}})
    await world.create("emoji", {"pipeline": {"image": "registry/\N{ROCKET}"}})
    await world.create("plain", {"generations": {"max": 1}})
    await world.until(lambda objects: phase(objects["plain"]) == "Completed")
    await world.until(lambda objects: phase(objects["emoji"]) == "Failed")
    message = await kubectl(
        world, "get", "evorun", "emoji", "-o", 'jsonpath={.status.conditions[?(@.type=="Failed")].message}'
    )
    assert "Basic Multilingual Plane" in message


async def test_the_rights_that_ship_are_those_that_are_used(own_cluster: ControlPlane, world: OperatorWorld) -> None:
    # Half a minute: more generations than the status holds, a restart in the middle, and the sweep of finished objects.
    pid = await world.fork_operator()
    await world.create("evolve", {"generations": {"max": 24, "patience": 24}})
    await world.until(lambda _: len(world.double.counters().executions) >= 3)
    kill(pid)
    pid = await world.fork_operator()
    await world.create("heir", {"model": {"evolutionRun": "evolve"}, "ttlSecondsAfterFinished": 0})
    await world.until(lambda objects: phase(objects["evolve"]) == "Completed", seconds=120)
    await world.until(lambda objects: "heir" not in objects, seconds=120)
    os.kill(pid, signal.SIGTERM)
    with pytest.raises(KubectlError, match="forbidden"):
        await asyncio.to_thread(
            world.cluster.kubectl, "-n", world.namespace, "get", "secrets", kubeconfig=world.kubeconfig
        )
    user = f"system:serviceaccount:{world.namespace}:perseid-operator"
    shipped = rights_in(MANIFESTS / "base" / "role.yaml")
    await world.until(lambda _: ("evolutionruns", "watch") in rights_used(own_cluster, user))
    assert rights_used(own_cluster, user) == shipped
