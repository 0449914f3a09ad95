"""Kueue and Kubeflow Trainer in a cluster, with a queue for GPUs that nobody has: to Kubernetes they are a number."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from e2e_cluster import Cluster, eventually
from e2e_world import World

IMAGE = "localhost/perseid-queue:kueue-0.17.0"
QUEUE, GPU = "research", "nvidia.com/gpu"
ACCOUNT = "pipeline-runner"
GATE = "kueue.x-k8s.io/admission"
PARTS = {
    "jobset": ("jobset-system", "default"),
    "kueue": ("kueue-system", "default"),
    "trainer": ("kubeflow-system", "overlays/manager"),
}
"""Of each its namespace, and which of its manifests a user applies."""
RUNTIME = "base/runtimes/torch_distributed.yaml"
SECONDS = 300.0
_FILES = """
import json, sys, urllib.request
def walk(directory):
    address = f"http://127.0.0.1:8888{directory}/?limit=1000"
    asked = urllib.request.Request(address, headers={"Accept": "application/json"})
    for entry in json.load(urllib.request.urlopen(asked)).get("Entries") or []:
        if entry["Mode"] >> 31:
            walk(entry["FullPath"])
        else:
            print(entry["FullPath"])
walk(sys.argv[1])
"""


@dataclass(frozen=True)
class Queues:
    """The world, and the queue `research` in the namespace of the pipelines' pods."""

    world: World

    @property
    def cluster(self) -> Cluster:
        return self.world.cluster

    def install(self, engine: str) -> None:
        """Everything that a platform team installs, as its projects ship it; and eight GPUs."""
        with tempfile.TemporaryDirectory() as scratch:
            manifests = _out_of_the_image(engine, Path(scratch))
            for part, (namespace, directory) in PARTS.items():
                rendered = self.cluster.kubectl("kustomize", str(manifests / part / "manifests" / directory))
                objects = [_fitted(one, part) for one in yaml.safe_load_all(rendered)]
                self._apply(*objects)
                (deployment,) = (one["metadata"]["name"] for one in objects if one["kind"] == "Deployment")
                self.cluster.kubectl(
                    "rollout", "status", f"deployment/{deployment}", "--namespace", namespace, "--timeout=240s",
                    seconds=250,
                )  # fmt: skip
            runtime = yaml.safe_load((manifests / "trainer" / "manifests" / RUNTIME).read_text())
        # Their webhooks answer some moments after their programs are ready.
        eventually(lambda: [self._apply(runtime)], "Trainer takes a runtime", 120)
        eventually(lambda: [self.give(0)], "Kueue takes a queue", 120)
        self._apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": self._namespace}}
        )
        self._advertise(8)

    def give(self, gpus: int) -> None:
        """Let the queue have so many, and of everything else as much as it wants."""
        plenty = {"cpu": "100", "memory": "1000Gi", "ephemeral-storage": "1000Gi"}
        quotas = [{"name": name, "nominalQuota": quota} for name, quota in {**plenty, GPU: str(gpus)}.items()]
        flavor = {"name": "default", "resources": quotas}
        covered = [quota["name"] for quota in quotas]
        self._apply(
            _kueue("ResourceFlavor", "default", None, {}),
            _kueue(
                "ClusterQueue",
                QUEUE,
                None,
                {"namespaceSelector": {}, "resourceGroups": [{"coveredResources": covered, "flavors": [flavor]}]},
            ),
            _kueue("LocalQueue", QUEUE, self._namespace, {"clusterQueue": QUEUE}),
        )

    def wait_for_quota(self, name: str, namespace: str) -> str:
        """What the run says as soon as it says that it waits for quota."""

        def said() -> str | None:
            for one in self.world.status(name, namespace).get("conditions", []):
                if (one["type"], one["reason"]) == ("Progressing", "AwaitingQuota"):
                    return str(one["message"])
            return None

        return str(eventually(said, f"{name} waits for quota", SECONDS, lambda: self.tell(name, namespace)))

    def pods(self, selector: str) -> list[dict[str, Any]]:
        return self.cluster.pods(selector, self._namespace)

    def train_jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cluster.get("trainjobs", namespace=self._namespace)["items"]
        return found

    def train_jobs_in_queue(self) -> list[dict[str, Any]]:
        """What Kueue knows of TrainJobs."""
        workloads = self.cluster.get("workloads.kueue.x-k8s.io", namespace=self._namespace)["items"]
        return [one for one in workloads if one["metadata"]["ownerReferences"][0]["kind"] == "TrainJob"]

    def files(self, namespace: str) -> list[str]:
        """What the runs of a namespace have in the storage."""
        directory = f"/buckets/{self.world.storage.removeprefix('s3://')}/{namespace}"
        program = ("--", "python", "-c", _FILES, directory)
        return self.cluster.kubectl("exec", "deployment/seaweedfs", "--namespace", self._namespace, *program).split()

    def tell(self, name: str, namespace: str) -> str:
        """What one wants to read when it went wrong."""
        everything = self.cluster.kubectl(
            "get", "workloads,trainjobs,jobsets,jobs", "--namespace", self._namespace, "--output", "wide"
        )
        return f"{self.world.tell(name, namespace)}\n{everything}"

    @property
    def _namespace(self) -> str:
        return self.world.kfp_namespace

    def _advertise(self, gpus: int) -> None:
        capacity = {"status": {"capacity": {GPU: str(gpus)}, "allocatable": {GPU: str(gpus)}}}
        for node in self.cluster.get("nodes")["items"]:
            patch = ("--subresource=status", "--type=merge", "--patch", json.dumps(capacity))
            self.cluster.kubectl("patch", "node", node["metadata"]["name"], *patch)

    def _apply(self, *objects: dict[str, Any]) -> None:
        text = "\n---\n".join(json.dumps(one) for one in objects)
        self.cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=text)


def _out_of_the_image(engine: str, scratch: Path) -> Path:
    container = _say(engine, "create", IMAGE, "true").strip()
    try:
        _say(engine, "cp", f"{container}:/opt/queue", str(scratch))
    finally:
        _say(engine, "rm", container)
    return scratch / "queue"


def _say(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _fitted(thing: dict[str, Any], part: str) -> dict[str, Any]:
    """With our image, and for a node of two cores."""
    if thing["kind"] == "Deployment":
        thing["spec"]["replicas"] = 1
        for container in thing["spec"]["template"]["spec"]["containers"]:
            container |= {"image": IMAGE, "imagePullPolicy": "Never", "command": [f"/opt/queue/{part}/manager"]}
            container["resources"] = {"requests": {"cpu": "50m", "memory": "64Mi"}}
    return thing


def _kueue(kind: str, name: str, namespace: str | None, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": metadata, "spec": spec}
