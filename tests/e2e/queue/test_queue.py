"""What Kueue 0.17 and Kubeflow Trainer 2.3 do with the pods and TrainJobs of a run, and what the run says meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from e2e_cluster import eventually
from e2e_world import RUN_LABEL, World
from queue_world import ACCOUNT, GATE, QUEUE, SECONDS, Queues

from perseid.api.pipeline import QUEUE_LABEL, RUN_ID_LABEL
from perseid.api.stages import StageName

# Each carries out a generation of a tiny model, whose pods take minutes on two cores.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def queued(run: dict[str, Any], stage: StageName, **pipeline: Any) -> dict[str, Any]:
    """The same with one stage in the queue, for a GPU."""
    run["spec"]["pipeline"] |= {"queue": QUEUE, **pipeline}
    run["spec"]["pipeline"]["stages"] |= {stage: {"cpu": "100m", "memory": "4Gi", "gpus": 1}}
    return run


def on_two_nodes(run: dict[str, Any]) -> dict[str, Any]:
    """The same with training on two nodes of one GPU each."""
    return queued(run, "finetune", trainJob={"numNodes": 2}, serviceAccount=ACCOUNT)


def is_gated(pod: dict[str, Any]) -> bool:
    return any(gate["name"] == GATE for gate in pod["spec"].get("schedulingGates", []))


def labels(pod: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = pod["metadata"]["labels"]
    return found


def worked(pod: dict[str, Any]) -> tuple[str, str]:
    """From when to when."""
    (container,) = pod["status"]["containerStatuses"]
    ended = container["state"]["terminated"]
    return ended["startedAt"], ended["finishedAt"]


def test_shards_wait_in_their_queue_and_the_run_says_so_until_each_has_had_its_gpu(
    queues: Queues, installed: World, namespace: str, tiny_model: str
) -> None:
    queues.give(0)
    queues.cluster.apply(
        queued(installed.run("shards", model={"ref": tiny_model}), "synthesize", shards=2), namespace=namespace
    )
    message = queues.wait_for_quota("shards", namespace)
    assert f"the pod of stage synthesize waits for quota in the queue {QUEUE} of Kueue" in message
    run_id = installed.wait_for_run("shards", namespace)
    pods = queues.pods(f"{RUN_LABEL}={run_id}")
    assert [is_gated(pod) for pod in pods] == [True, True]

    queues.give(1)  # Kueue lets one in after the other: the shards do not wait for each other
    installed.wait_for_stage(run_id, "convert")
    current = installed.status("shards", namespace)["current"]
    assert current["gpuSecondsWaited"] > 15, "the time in the queue is none of GPUs"
    first, second = sorted(worked(pod) for pod in queues.pods(f"{RUN_LABEL}={run_id}") if QUEUE_LABEL in labels(pod))
    assert first[1] <= second[0], "one GPU is enough for both, one after the other"
    done = installed.wait_complete("shards", namespace)
    assert [len(generation["attempts"]) for generation in done["status"]["generations"]] == [1]


def test_a_train_job_waits_as_a_whole_trains_on_its_nodes_and_bears_the_loss_of_a_pod(
    queues: Queues, installed: World, namespace: str
) -> None:
    queues.give(1)
    # The embedded model, which solves a problem: there is nothing to learn from a tiny one's answers.
    run = installed.run("nodes", finetune={"epochs": 20, "batchSize": 2, "minSamples": 1, "checkpointSteps": 2})
    queues.cluster.apply(on_two_nodes(run), namespace=namespace)
    message = queues.wait_for_quota("nodes", namespace)
    (job,) = queues.train_jobs()
    name = job["metadata"]["name"]
    assert f"the TrainJob {name} of stage finetune waits for quota in the queue {QUEUE} of Kueue" in message
    nodes = f"jobset.sigs.k8s.io/jobset-name={name}"
    assert queues.pods(nodes) == [], "one GPU is free, but both nodes start together"

    queues.give(2)

    def running() -> list[dict[str, Any]]:
        pods = [pod for pod in queues.pods(nodes) if pod["status"]["phase"] == "Running"]
        return pods if len(pods) == 2 else []

    pods = eventually(running, "both nodes run", SECONDS, lambda: queues.tell("nodes", namespace))
    assert not any(QUEUE_LABEL in labels(pod) for pod in pods), "they are in no queue of their own"
    run_id = installed.wait_for_run("nodes", namespace)
    assert {labels(pod)[RUN_ID_LABEL] for pod in pods} == {run_id}, "by which `perseid logs` finds them"
    eventually(lambda: any("/step-" in file for file in queues.files(namespace)), "there is a checkpoint", SECONDS)
    killed = pods[1]["metadata"]["name"]
    queues.cluster.kubectl(
        "delete", "pod", killed, "--namespace", installed.kfp_namespace, "--grace-period=0", "--force"
    )
    done = installed.wait_complete("nodes", namespace)
    (generation,) = done["status"]["generations"]
    assert (generation["phase"], len(generation["attempts"])) == ("Promoted", 1)
    assert queues.train_jobs() == [], "the launcher has cleared it away"


def test_a_run_that_is_deleted_takes_its_train_job_out_of_the_queue(
    queues: Queues, installed: World, namespace: str, tiny_model: str
) -> None:
    queues.give(0)
    queues.cluster.apply(on_two_nodes(installed.run("gone", model={"ref": tiny_model})), namespace=namespace)
    queues.wait_for_quota("gone", namespace)
    assert queues.train_jobs_in_queue()
    queues.cluster.kubectl("delete", "evorun", "gone", "--namespace", namespace, "--timeout=180s", seconds=200)
    eventually(lambda: not queues.train_jobs() and not queues.train_jobs_in_queue(), "nothing is in the queue", SECONDS)
