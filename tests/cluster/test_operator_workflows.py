"""The operator that sees Argo's Workflows, as real objects, with the rights that the component argo-workflows gives."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_access import Cluster, KubectlError
from crd_objects import MANIFESTS
from operator_world import OperatorWorld, operator_world, phase

from kfp_double.cluster_objects import ClusterObjects
from kfp_double.parts import Script, Timing
from perseid.decide import run_id_of

# Grace times and lost runs are waited for in real time.
pytestmark = pytest.mark.slow

COMPONENT = MANIFESTS / "components" / "argo-workflows" / "kustomization.yaml"
WORKFLOWS = "workflows.argoproj.io"


def give_rights(cluster: Cluster, namespace: str) -> Path:
    """The base's Role with the component's rule in it; the kubeconfig of the operator's account."""
    for file in ("service-account.yaml", "role.yaml"):
        cluster.kubectl("apply", "-n", namespace, "-f", str(MANIFESTS / "base" / file))
    (patch,) = yaml.safe_load(COMPONENT.read_text())["patches"]
    rule = json.dumps(yaml.safe_load(patch["patch"]))
    cluster.kubectl("patch", "role", "perseid-operator", "-n", namespace, "--type=json", "-p", rule)
    deadline = time.monotonic() + 30
    for right in (f"delete {WORKFLOWS}", "watch evolutionruns.perseid.dev"):
        while True:
            try:
                account = f"--as=system:serviceaccount:{namespace}:perseid-operator"
                cluster.kubectl("auth", "can-i", *right.split(), account, "-n", namespace)
                break
            except KubectlError:  # it answers no by its exit code, until the API server has noticed the Role
                assert time.monotonic() < deadline, f"the Role does not allow to {right}"
                time.sleep(0.1)
    return cluster.service_account_kubeconfig(namespace, "perseid-operator")


@pytest.fixture
async def world(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[OperatorWorld]:
    objects = await ClusterObjects.connect(cluster.kubeconfig, namespace)
    # KFP's own collection of Workflows without a run is far away: whatever clears one up is the operator.
    timing = replace(Timing().scaled(0.02), orphan=600.0)
    settings = {
        "PERSEID_WORKFLOWS": "on",
        "PERSEID_WORKFLOWS_NAMESPACE": namespace,
        "PERSEID_LOST_RUN_SECONDS": "3",
    }
    directory = tmp_path / "world"
    async with operator_world(cluster, namespace, directory, timing=timing, objects=objects, **settings) as made:
        made.kubeconfig = await asyncio.to_thread(give_rights, cluster, namespace)
        yield made
        words = made.log.read_text().lower()
        assert "forbidden" not in words


async def workflows(world: OperatorWorld) -> list[dict[str, Any]]:
    """All that there are in the cluster."""
    listed = await asyncio.to_thread(world.cluster.kubectl, "get", WORKFLOWS, "-n", world.namespace, "-o", "json")
    return list(json.loads(listed)["items"])


def run_of(item: dict[str, Any], attempt: int = 0) -> str:
    return run_id_of(item["metadata"]["uid"], 0, attempt)


def first_attempt(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    generations = objects["evolve"].get("status", {}).get("generations", [])
    return generations[0]["attempts"][0] if generations else {}


async def test_a_workflow_that_kfp_made_and_lost_is_deleted_before_the_run_is_submitted_again(
    world: OperatorWorld,
) -> None:
    world.double.drop_next_create("workflow", "reset")
    world.double.script(Script(pending=0.05, running=None))
    await world.fork_operator()
    await world.create("evolve", {"generations": {"max": 1}})
    await world.until(lambda _: len(world.double.workflows()) == 1)
    (orphan,) = await workflows(world)
    # The time in which it may be sent (15 s), the grace time (2 s), and a look every 15 s, twice.
    await world.until(lambda _: bool(world.double.run_ids()), seconds=90)
    (alive,) = await workflows(world)
    assert alive["metadata"]["name"] != orphan["metadata"]["name"]
    item = (await world.objects())["evolve"]
    run_id = run_of(item)
    assert {one["metadata"]["labels"]["pipeline/runid"] for one in (orphan, alive)} == {run_id}
    counters = world.double.counters()
    assert counters.most_alive == {run_id: 1}, "both were alive at once"
    assert counters.collected == {}
    await world.double.finish_run(run_id)
    await world.until(lambda objects: phase(objects["evolve"]) == "Completed")


async def test_a_run_whose_workflow_somebody_deletes_is_lost_and_tried_again_without_being_charged(
    world: OperatorWorld,
) -> None:
    world.double.script(Script(pending=0.05, running=None))
    await world.fork_operator()
    # With a budget a run is looked at every 15 s, without one every minute. One look misses the Workflow, one is sure.
    await world.create("evolve", {"generations": {"max": 1, "maxAttempts": 1}, "budget": {"gpuHours": 1000}})
    await world.until(lambda objects: first_attempt(objects).get("state") == "Running")
    (workflow,) = await workflows(world)
    name = workflow["metadata"]["name"]
    await asyncio.to_thread(world.cluster.kubectl, "delete", WORKFLOWS, name, "-n", world.namespace)
    await world.until(lambda objects: first_attempt(objects).get("reason") == "RunLost", seconds=75)
    assert not first_attempt(await world.objects()).get("charged")
    run_id = run_of((await world.objects())["evolve"], attempt=1)
    await world.until(lambda _: bool(world.double.alive(run_id)))
    await world.double.finish_run(run_id)
    await world.until(lambda objects: phase(objects["evolve"]) == "Completed")
