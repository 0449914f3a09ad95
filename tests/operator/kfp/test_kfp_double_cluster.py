"""The double's Workflows as objects of a real cluster."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cluster_access import Cluster
from control_plane import ControlPlane
from kfp_processes import double_process, eventually
from kfp_samples import run_request

from kfp_double import KfpDouble, Script, VirtualClock
from kfp_double.cluster_objects import ClusterObjects
from perseid_operator.kfp import KfpAmbiguousError, KfpClient, KfpRunState

pytestmark = pytest.mark.slow  # A control plane starts, if none has yet.


@pytest.fixture
async def objects(cluster: Cluster, namespace: str) -> ClusterObjects:
    return await ClusterObjects.connect(cluster.kubeconfig, namespace)


@pytest.fixture
async def double(objects: ClusterObjects) -> AsyncIterator[KfpDouble]:
    async with KfpDouble(clock=VirtualClock(), objects=objects) as running:
        running.script(Script(pending=1.0, running=20.0))
        yield running


@pytest.fixture
def workflows(cluster: Cluster, namespace: str) -> Any:
    def listed(run_id: str) -> list[dict[str, Any]]:
        text = cluster.kubectl(
            "get", "workflows.argoproj.io", "-n", namespace, "-l", f"pipeline/runid={run_id}", "-o", "json"
        )
        return json.loads(text)["items"]

    return listed


async def test_a_runs_workflow_is_found_by_its_label_and_shows_how_it_goes(
    double: KfpDouble, kfp: KfpClient, experiment: str, workflows: Any
) -> None:
    run_id = (await kfp.create_run(run_request(experiment))).run_id
    (workflow,) = workflows(run_id)
    assert workflow["metadata"]["name"].startswith("sample-")
    assert workflow["status"]["phase"] == "Pending"
    await double.advance(5.0)
    assert workflows(run_id)[0]["status"]["phase"] == "Running"
    await double.advance(20.0)
    (workflow,) = workflows(run_id)
    assert workflow["status"]["phase"] == "Succeeded"
    labels = workflow["metadata"]["labels"]
    assert labels["workflows.argoproj.io/completed"] == labels["pipeline/persistedFinalState"] == "true"
    await kfp.delete(run_id)
    assert workflows(run_id) == []


async def test_a_workflow_that_is_deleted_in_the_cluster_is_lost(
    double: KfpDouble,
    kfp: KfpClient,
    experiment: str,
    workflows: Any,
    cluster: Cluster,
    namespace: str,
) -> None:
    run_id = (await kfp.create_run(run_request(experiment))).run_id
    await double.advance(5.0)
    cluster.kubectl("delete", "workflows.argoproj.io", "-n", namespace, "-l", f"pipeline/runid={run_id}")
    await double.advance(3600.0)
    run = await kfp.get_run(run_id)
    assert run is not None
    assert run.state is KfpRunState.RUNNING
    assert double.workflows(run_id) == []


async def test_a_workflow_without_a_row_can_be_seen_until_it_is_collected(
    double: KfpDouble, kfp: KfpClient, experiment: str, workflows: Any
) -> None:
    request = run_request(experiment)
    double.drop_next_create("workflow", "reset")
    with pytest.raises(KfpAmbiguousError):
        await kfp.create_run(request)
    assert await kfp.get_run(request.run_id) is None
    assert len(workflows(request.run_id)) == 1
    await double.advance(140.0)
    assert workflows(request.run_id) == []


async def test_without_its_cluster_the_double_reads_and_creates_nothing(
    double: KfpDouble,
    kfp: KfpClient,
    experiment: str,
    workflows: Any,
    objects: ClusterObjects,
    own_cluster: ControlPlane,
) -> None:
    run_id = (await kfp.create_run(run_request(experiment))).run_id
    objects.patience = 1.0
    with own_cluster.api_server_paused():
        await double.advance(60.0)
        run = await kfp.get_run(run_id)
        assert run is not None
        assert run.state is KfpRunState.PENDING
        request = run_request(experiment)
        with pytest.raises(KfpAmbiguousError, match="Failed to create a workflow"):
            await kfp.create_run(request)
    objects.patience = 10.0
    await double.settle()
    await double.advance(1.0)
    run = await kfp.get_run(run_id)
    assert run is not None
    assert run.state is KfpRunState.SUCCEEDED
    assert workflows(run_id)[0]["status"]["phase"] == "Succeeded"


async def test_the_double_as_a_process_makes_objects_too(
    cluster: Cluster,
    namespace: str,
    clients: Callable[..., KfpClient],
    workflows: Any,
) -> None:
    arguments = ("--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace, "--scale", "0.01")
    async with double_process(*arguments) as process:
        kfp = clients(process.url)
        run_id = (await kfp.create_run(run_request(await kfp.ensure_experiment("objects", "")))).run_id

        async def has_succeeded() -> bool:
            return [workflow["status"]["phase"] for workflow in workflows(run_id)] == ["Succeeded"]

        await eventually(has_succeeded)
