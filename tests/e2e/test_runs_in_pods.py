"""EvolutionRuns carried out in pods, and what they survive. Each test does what a user or a fault would do."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_cluster import SPARE, eventually
from e2e_images import previous_tree
from e2e_world import SYSTEM, World, runs_stage

from perseid.decide import run_id_of

STAGES = ["synthesize", "convert", "finetune", "evaluate"]
USED = """
import os, pathlib
for status in pathlib.Path("/proc").glob("[0-9]*/status"):
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    command = status.with_name("cmdline").read_text().replace("\\0", " ")
    times = status.with_name("stat").read_text().rpartition(")")[2].split()
    seconds = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    print(lines["VmHWM"].strip(), f"{seconds:.0f} s of CPU", command[:60], end="; ")
"""
"""Each process of a pod with the most memory that it has held, and the CPU time that it has had."""
# Each carries out one to three generations of the embedded model, whose pods take minutes on two cores.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_an_applied_run_becomes_complete_though_the_operator_is_killed_and_upgraded_meanwhile(
    installed: World, namespace: str, tmp_path: Path
) -> None:
    cluster = installed.cluster
    # With the engine that runs have which name none; the others have one that starts sooner.
    vllm = {"type": "vllm", "vllm": {"kvCacheGib": 1, "maxNumSeqs": 16}}
    cluster.apply(installed.run("whole", engine=vllm), namespace=namespace)
    run_id = installed.wait_for_run("whole", namespace)
    installed.wait_for_stage(run_id, "synthesize")

    killed = installed.operator_pod()["metadata"]["name"]
    cluster.kubectl("delete", "pod", killed, "--namespace", SYSTEM, "--grace-period=0", "--force")
    installed.wait_for_stage(run_id, "finetune")
    before = installed.operator_pod()["metadata"]["name"]
    installed.helm_apply(SYSTEM, tmp_path, pollSeconds=3)
    assert installed.operator_pod()["metadata"]["name"] not in (killed, before), "other settings make another pod"

    done = installed.wait_complete("whole", namespace)
    assert cluster.kubectl("wait", "--for=condition=Complete", "evorun/whole", "--namespace", namespace)
    (generation,) = done["status"]["generations"]
    assert generation["phase"] == "Promoted"
    assert done["status"]["promoted"]["uri"].startswith(f"{installed.storage}/")
    assert run_id == run_id_of(done["metadata"]["uid"], 0, 0)
    assert [len(generation["attempts"]), generation["attempts"][0]["runId"]] == [1, run_id]
    pods = installed.stage_pods(run_id)
    assert len(pods) == len(STAGES), "no stage was carried out twice"
    assert all(pod["status"]["phase"] == "Succeeded" for pod in pods)
    run = installed.kfp_run(run_id)
    assert run is not None
    assert run["state"] == "SUCCEEDED"
    printed = cluster.kubectl("get", "evorun", "whole", "--namespace", namespace)
    assert "Completed" in printed


def test_a_run_of_the_previous_version_goes_on_under_this_one_and_loses_nothing(
    installed: World, namespace: str, tiny_model: str, tmp_path: Path
) -> None:
    if installed.images.previous_operator is None:
        pytest.skip("the previous version is not to be had: fetch the repository with its history")
    cluster, old = installed.cluster, previous_tree(tmp_path) / "charts" / "perseid"
    values = installed.first_values(installed.images.previous_operator)
    installed.helm_apply_values(SYSTEM, tmp_path, old, values)
    try:
        before = installed.operator_pod()
        assert before["spec"]["containers"][0]["image"] == installed.images.previous_operator
        cluster.apply(installed.run_of_its_own("older", model={"ref": tiny_model}), namespace=namespace)
        run_id = installed.wait_for_run("older", namespace)
        installed.wait_for_stage(run_id, "synthesize")
    finally:
        installed.helm_apply(SYSTEM, tmp_path)
    assert installed.operator_pod()["spec"]["containers"][0]["image"] == installed.images.operator

    done = installed.wait_complete("older", namespace)
    (generation,) = done["status"]["generations"]
    assert [attempt["runId"] for attempt in generation["attempts"]] == [run_id], "nothing was submitted again"
    assert len(installed.stage_pods(run_id)) == len(STAGES)
    assert done["status"]["promoted"]["uri"].startswith(f"{installed.storage}/")


def test_a_claim_is_the_cache_of_pods_that_are_not_root(installed: World, namespace: str) -> None:
    cluster, pipelines = installed.cluster, installed.kfp_namespace
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "cache"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    cluster.apply(claim, namespace=pipelines)
    # What docs/install.md has its readers do: the root directory of a new volume is root's.
    give = installed.pod("give-cache", ["chown", "65532", "/cache"], {"cache": "/cache"})
    give["spec"]["securityContext"] = {"runAsUser": 0}
    installed.run_pod(give, pipelines)
    run = installed.run("cached")
    run["spec"]["pipeline"]["cacheClaim"] = "cache"
    cluster.apply(run, namespace=namespace)
    # The second stage begins when the first has unpacked the embedded model.
    installed.wait_for_stage(installed.wait_for_run("cached", namespace), "convert")
    installed.cluster.kubectl("delete", "evorun", "cached", "--namespace", namespace, "--timeout=180s", seconds=200)
    look = installed.pod("look-into-cache", ["find", "/cache", "-type", "f"], {"cache": "/cache"})
    assert "model.safetensors" in installed.run_pod(look, pipelines)
    cluster.kubectl(
        "delete", "pod/give-cache", "pod/look-into-cache", "pvc/cache", "--namespace", pipelines, "--wait=false"
    )


def test_a_hundred_live_runs_fit_into_the_memory_that_the_chart_gives_the_operator(
    installed: World, namespace: str, tiny_model: str
) -> None:
    cluster = installed.cluster
    runs = [installed.run(f"crowd-{number}", model={"ref": tiny_model}) for number in range(100)]
    for run in runs:
        # Each has a pipeline run whose first pod no node takes.
        run["spec"]["pipeline"]["stages"] |= {"synthesize": {"nodeSelector": {"perseid.dev/nowhere": "true"}}}
    restarts = _restarts(installed)
    cluster.apply(*runs, namespace=namespace)
    eventually(lambda: _live(installed, namespace) == len(runs), "all hundred are submitted", 900)
    said = cluster.kubectl("exec", "deployment/perseid-operator", "--namespace", SYSTEM, "--", "python", "-c", USED)
    print(f"the operator's pod at 100 live runs: {said}")
    assert _restarts(installed) == restarts, "it was not killed for memory"
    cluster.kubectl("delete", "evorun", "--all", "--namespace", namespace, "--timeout=600s", seconds=620)


def test_a_run_in_shards_whose_stage_pod_is_killed_goes_on_with_what_its_shards_have_found(
    installed: World, namespace: str, tiny_model: str
) -> None:
    cluster = installed.cluster
    run = installed.run("struck", model={"ref": tiny_model})
    run["spec"]["pipeline"]["shards"] = 2
    cluster.apply(run, namespace=namespace)
    first = installed.wait_for_run("struck", namespace)
    pod = installed.wait_for_stage(first, "convert")["metadata"]["name"]
    cluster.kubectl("delete", "pod", pod, "--namespace", installed.kfp_namespace, "--grace-period=0", "--force")

    second = installed.wait_for_run("struck", namespace, but=first)
    done = installed.wait_complete("struck", namespace)
    (generation,) = done["status"]["generations"]
    assert [attempt["runId"] for attempt in generation["attempts"]] == [first, second]
    pods = installed.stage_pods(second)
    assert len(pods) == len(STAGES) + 2
    again = [pod for pod in pods if runs_stage(pod, "synthesize-shard") or runs_stage(pod, "synthesize")]
    assert len(again) == 3, "two shards, and what joins them"
    for pod in again:
        said = cluster.kubectl("logs", pod["metadata"]["name"], "--namespace", installed.kfp_namespace)
        assert "is done already" in said


def test_a_node_that_dies_under_the_operator_costs_the_run_nothing(
    installed: World, namespace: str, tiny_model: str, tmp_path: Path
) -> None:
    cluster, spare = installed.cluster, installed.cluster.spare_node()
    if spare is None:
        pytest.skip("the cluster has no node that may be killed")
    wanted = {"matchExpressions": [{"key": SPARE, "operator": "Exists"}]}
    # Kubernetes has a pod stay on a lost node for five minutes unless it says otherwise.
    lost = [
        {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
        for state in ("not-ready", "unreachable")
    ]
    installed.helm_apply(
        SYSTEM,
        tmp_path,
        tolerations=[{"key": SPARE, "operator": "Exists"}, *lost],
        affinity={
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": wanted}]}
        },
    )
    try:
        before = installed.operator_pod()
        assert before["spec"]["nodeName"] == spare
        cluster.apply(installed.run("bereft", model={"ref": tiny_model}), namespace=namespace)
        run_id = installed.wait_for_run("bereft", namespace)
        installed.wait_for_stage(run_id, "synthesize")
        cluster.kill_node(spare)

        done = installed.wait_complete("bereft", namespace)
        after = installed.operator_pod()
        assert after["metadata"]["name"] != before["metadata"]["name"]
        assert after["spec"]["nodeName"] != spare
        (generation,) = done["status"]["generations"]
        assert [attempt["runId"] for attempt in generation["attempts"]] == [run_id], "nothing was submitted again"
        assert len(installed.stage_pods(run_id)) == len(STAGES)
    finally:
        # As whoever looks after the cluster does with a machine that will not come back.
        cluster.kubectl("delete", "node", spare)
        installed.helm_apply(SYSTEM, tmp_path)


def test_suspension_lets_the_generation_end_resumption_goes_on_and_deletion_leaves_nothing(
    installed: World, namespace: str, tiny_model: str
) -> None:
    cluster = installed.cluster
    run = installed.run("paused", model={"ref": tiny_model})
    run["spec"]["generations"] = {**run["spec"]["generations"], "max": 2, "patience": 2}
    cluster.apply(run, namespace=namespace)
    first = installed.wait_for_run("paused", namespace)
    installed.wait_for_stage(first, "synthesize")
    _suspend(installed, namespace, True)
    eventually(lambda: installed.reasons("paused", namespace).get("Suspended") == "Draining", "the run drains", 60)
    eventually(
        lambda: installed.reasons("paused", namespace).get("Suspended") == "Suspended",
        "the run is suspended when its generation has ended",
        1200,
        lambda: installed.tell("paused", namespace),
    )
    run_of_first = installed.kfp_run(first)
    assert run_of_first is not None
    assert run_of_first["state"] == "SUCCEEDED", "draining stops nothing"
    uid = cluster.get("evorun", "paused", namespace=namespace)["metadata"]["uid"]
    second = run_id_of(uid, 1, 0)
    assert installed.kfp_run(second) is None, "nothing is submitted while it is suspended"

    _suspend(installed, namespace, False)
    assert installed.wait_for_run("paused", namespace, but=first) == second
    installed.wait_for_stage(second, "synthesize")

    cluster.kubectl("delete", "evorun", "paused", "--namespace", namespace, "--timeout=180s", seconds=200)
    eventually(
        lambda: not [pod for pod in installed.stage_pods(second) if pod["status"]["phase"] in ("Pending", "Running")],
        "the pods of the deleted run are gone",
        120,
    )
    owned = cluster.get("configmaps", namespace=namespace)["items"]
    eventually(
        lambda: (
            [one["metadata"]["name"] for one in cluster.get("configmaps", namespace=namespace)["items"]]
            == ["kube-root-ca.crt"]
        ),
        f"what the run owned is collected: {[one['metadata']['name'] for one in owned]}",
        120,
    )


def _live(world: World, namespace: str) -> int:
    """Runs that have a pipeline run under way."""
    runs = world.cluster.get("evorun", namespace=namespace)["items"]
    return sum(one.get("status", {}).get("current", {}).get("runId") is not None for one in runs)


def _restarts(world: World) -> tuple[str, int]:
    pod = world.operator_pod()
    return pod["metadata"]["name"], pod["status"]["containerStatuses"][0]["restartCount"]


def _suspend(world: World, namespace: str, suspend: bool) -> None:
    patch = f'{{"spec":{{"suspend":{str(suspend).lower()}}}}}'
    world.cluster.kubectl("patch", "evorun", "paused", "--namespace", namespace, "--type=merge", "--patch", patch)
