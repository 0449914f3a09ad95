"""Attempts whose training stages run on nodes."""

from __future__ import annotations

from typing import Any

from perseid.api.attempt import Attempt
from perseid.api.spec import EvolutionRun
from perseid_trainjob.manifest import LauncherPod

POD = LauncherPod("wf-finetune-1", "5c0a9b6e-0000-4000-8000-000000000001", "kubeflow")


def attempt(number: int = 0, name: str = "four-nodes", storage: str = "s3://models/runs/a", **pipeline: Any) -> Attempt:
    spec = {"pipeline": {"trainJob": {"numNodes": 4}} | pipeline, "storage": {"uri": storage}}
    return Attempt(
        run=EvolutionRun.model_validate({"metadata": {"name": name}, "spec": spec}),
        run_id=f"6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f1{number}",
        generation=3,
        number=number,
        storage=storage,
        start_model="org/name",
    )


EVERYTHING: dict[str, Any] = {
    "image": "images.example/perseid-stage@sha256:" + 64 * "a",
    "trainJob": {"numNodes": 4, "runtimeRef": {"name": "torch-gpu", "kind": "TrainingRuntime"}},
    "queue": "research",
    "cacheClaim": "models",
    "serviceAccount": "runner",
    "env": [{"name": "AWS_REGION", "value": "here"}],
    "secretEnv": [{"name": "AWS_SECRET_ACCESS_KEY", "secret": "storage", "key": "secret-key"}],
    "imagePullSecrets": [{"name": "registry"}],
    "stages": {
        "finetune": {
            "cpu": "64",
            "memory": "512Gi",
            "gpus": 8,
            "scratch": "500Gi",
            "nodeSelector": {"accelerator": "h200"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "labels": {
                "team": "models",
                "kueue.x-k8s.io/queue-name": "urgent",
                "kueue.x-k8s.io/priority-class": "nightly",
            },
            "timeoutSeconds": 7200,
        }
    },
}
