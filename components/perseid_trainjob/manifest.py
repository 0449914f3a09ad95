"""The TrainJob of a stage, from its attempt alone: a pure function, so that every try names and describes the same one.

API: `trainer.kubeflow.org/v1alpha1` of Kubeflow Trainer 2.2 and later, whose runtimes call the replicated job and the
container of the nodes `node`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from perseid.api.attempt import Attempt
from perseid.api.pipeline import (
    CACHE,
    PRIORITY_LABEL,
    QUEUE_LABEL,
    RUN_ID_LABEL,
    SCRATCH,
    STAGE_LABEL,
    ResourcesSpec,
)
from perseid.api.stages import StageName

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
NODE = "node"
MANAGER = "perseid.dev/launcher"
"""Whose patches of the runtime these are."""
FILES_LABEL = "perseid.dev/files"
"""Label with a digest of the run's storage: runs of one name in several namespaces have not the same."""
GENERATION_LABEL = "perseid.dev/generation"

_SHORT: dict[str, str] = {"finetune": "finetune", "mentor-supervised": "mentor", "self-assessment": "assess"}


@dataclass(frozen=True, slots=True)
class LauncherPod:
    """The pod that makes a TrainJob, which does not outlive it."""

    name: str
    uid: str
    namespace: str

    @property
    def reference(self) -> dict[str, str]:
        """As an owner: Kubernetes deletes what no owner is left of."""
        return {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self.uid}


def job_name(attempt: Attempt, stage: StageName) -> str:
    """The same for every try of the attempt's stage; at most 47 characters, since the pods' names go on from it."""
    run = attempt.run.metadata.name
    readable = (run if run[0].isalpha() else f"r{run}")[:16].rstrip("-")
    key = f"{attempt.storage}\n{attempt.run_id}\n{attempt.generation}\n{attempt.number}\n{stage}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:10]
    return f"{readable}-{attempt.generation % 1000}-{attempt.number % 100}-{_SHORT[stage]}-{digest}"


def identity_labels(attempt: Attempt, stage: StageName) -> dict[str, str]:
    """What a stage's TrainJobs of all attempts at a generation have in common."""
    return {
        FILES_LABEL: hashlib.sha256(attempt.storage.rstrip("/").encode()).hexdigest()[:32],
        GENERATION_LABEL: str(attempt.generation),
        STAGE_LABEL: stage,
    }


def train_job(attempt: Attempt, stage: StageName, pod: LauncherPod) -> dict[str, Any]:
    """The TrainJob, as Kubernetes takes it."""
    pipeline = attempt.run.spec.pipeline
    job = pipeline.train_job
    assert job is not None, "only a run that wants one has a launcher"
    resources = pipeline.stages.of(stage)
    labels = {
        "app.kubernetes.io/managed-by": "perseid",
        "perseid.dev/run": attempt.run.metadata.name,
        **identity_labels(attempt, stage),
    }
    # Kueue admits the TrainJob as a whole, and reads of it alone where it stands in line.
    queue, priority = pipeline.queue_of(resources), resources.labels.get(PRIORITY_LABEL)
    spec: dict[str, Any] = {
        "runtimeRef": {"apiGroup": GROUP, "kind": job.runtime_ref.kind, "name": job.runtime_ref.name},
        "trainer": {
            "image": pipeline.stage_image,
            "command": ["python3", "-m", "perseid.stages.nodes"],
            "args": [stage, json.dumps(attempt.arguments(), ensure_ascii=False)],
            "env": _environment(attempt, resources),
            "numNodes": job.num_nodes,
            # For GPUs one process each; torch's policy would count CPUs where nothing is said.
            "numProcPerNode": attempt.run.spec.finetune.processes or max(1, resources.gpus),
            "resourcesPerNode": _resources(resources),
        },
        "runtimePatches": [{"manager": MANAGER, "trainingRuntimeSpec": _for_nodes(_pod(attempt, stage, labels))}],
    }
    if resources.timeout_seconds is not None:
        spec["activeDeadlineSeconds"] = resources.timeout_seconds
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": job_name(attempt, stage),
            "namespace": pod.namespace,
            "labels": {
                **labels,
                RUN_ID_LABEL: attempt.run_id,  # the operator looks for it
                **({} if queue is None else {QUEUE_LABEL: queue}),
                **({} if priority is None else {PRIORITY_LABEL: priority}),
            },
            "annotations": {"perseid.dev/storage": attempt.storage, "perseid.dev/attempt": str(attempt.number)},
            "ownerReferences": [pod.reference],
        },
        "spec": spec,
    }


def _environment(attempt: Attempt, resources: ResourcesSpec) -> list[dict[str, Any]]:
    pipeline = attempt.run.spec.pipeline
    # By name: the list may have each name once.
    found: dict[str, Any] = {name: {"value": value} for name, value in pipeline.variables(resources).items()}
    for one in pipeline.secret_env:
        found[one.name] = {"valueFrom": {"secretKeyRef": {"name": one.secret, "key": one.key}}}
    return [{"name": name, **value} for name, value in found.items()]


def _resources(resources: ResourcesSpec) -> dict[str, dict[str, str]]:
    gpus = {resources.gpu_type: str(resources.gpus)} if resources.gpus else {}
    memory = {"memory": resources.memory} if resources.memory else {}
    cpu = {"cpu": resources.cpu} if resources.cpu else {}
    return {"requests": {**cpu, **memory, **gpus}, "limits": {**memory, **gpus}}


def _pod(attempt: Attempt, stage: StageName, labels: dict[str, str]) -> dict[str, Any]:
    """What of the nodes' pods is ours to say."""
    pipeline = attempt.run.spec.pipeline
    resources = pipeline.stages.of(stage)
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, str]] = []

    def mount(name: str, path: str, source: dict[str, Any]) -> None:
        volumes.append({"name": name, **source})
        mounts.append({"name": name, "mountPath": path})

    if resources.shared_memory_size is not None:
        size = {"medium": "Memory", "sizeLimit": resources.shared_memory_size}
        mount("dshm", "/dev/shm", {"emptyDir": size})
    if resources.scratch is not None:
        mount("scratch", SCRATCH, {"emptyDir": {"sizeLimit": resources.scratch}})
    if pipeline.cache_claim is not None:
        mount("cache", CACHE, {"persistentVolumeClaim": {"claimName": pipeline.cache_claim}})
    spec: dict[str, Any] = {}
    if volumes:
        spec |= {"volumes": volumes, "containers": [{"name": NODE, "volumeMounts": mounts}]}
    if resources.node_selector:
        spec["nodeSelector"] = dict(resources.node_selector)
    if resources.tolerations:
        spec["tolerations"] = [
            one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in resources.tolerations
        ]
    if pipeline.service_account is not None:
        spec["serviceAccountName"] = pipeline.service_account
    if pipeline.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": one.name} for one in pipeline.image_pull_secrets]
    # The TrainJob's own: its pods are in no queue of theirs.
    own = {name: value for name, value in resources.labels.items() if name not in (QUEUE_LABEL, PRIORITY_LABEL)}
    # Nodes speak to each other through ports that a mesh's proxy would break, and the proxy would outlive them.
    apart = {"sidecar.istio.io/inject": "false"}
    return {
        "metadata": {"labels": {**own, **apart, **labels, RUN_ID_LABEL: attempt.run_id}, "annotations": apart},
        "spec": spec,
    }


def _for_nodes(pod: dict[str, Any]) -> dict[str, Any]:
    replicated = {"name": NODE, "template": {"spec": {"template": pod}}}
    return {"template": {"spec": {"replicatedJobs": [replicated]}}}
