"""What the tests in a cluster work with: the cluster, KFP's API, a storage, and EvolutionRuns as users write them."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e_cluster import Cluster, CommandError, eventually
from e2e_images import Images

CHART = Path(__file__).parents[2] / "charts" / "perseid"
SYSTEM = "perseid-system"
RELEASE = "perseid"
SECRET = "storage"
RUN_LABEL = "pipeline/runid"
TINY_LLAMA = Path(__file__).parents[1] / "tiny_llama.py"
TINY_MODEL = Path(__file__).with_name("tiny_model.py")
OPERATOR = "app.kubernetes.io/name=perseid-operator"
# On few and busy cores, threads that wait for each other take longer than one.
STAGE_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
RUN_SECONDS = 900.0
"""For one generation of the embedded model, on a busy machine with two cores."""


@dataclass(frozen=True)
class World:
    """A cluster with Kubeflow Pipelines (or its double) and a storage in it."""

    cluster: Cluster
    images: Images
    kfp_namespace: str = "kubeflow"
    kfp_endpoint: str = "http://ml-pipeline.kubeflow.svc:8888"
    kfp_seen_from_here: str | None = None
    """URL of the same API for this process; None: through the API server's proxy."""
    storage: str = "s3://models/perseid"
    storage_env: Mapping[str, str] = field(default_factory=dict)
    secret_keys: tuple[str, ...] = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

    # The operator

    def values(self, **changes: Any) -> dict[str, Any]:
        """Helm's values for an operator in this world, whose runs need not say where and as what they run."""
        return {**self.first_values(), "stages": self._stage_defaults(), **changes}

    def first_values(self, operator: str | None = None) -> dict[str, Any]:
        """Those that the chart has always had."""
        return {
            "image": _image(operator or self.images.operator),
            "kfp": {"endpoint": self.kfp_endpoint, "uiUrl": "https://kubeflow.example.org"},
            "storage": {
                "uri": self.storage,
                "existingSecret": SECRET,
                "env": [{"name": name, "value": value} for name, value in self.storage_env.items()],
            },
            "workflows": {"enabled": True},
            "pollSeconds": 2,
        }

    def _stage_defaults(self) -> dict[str, Any]:
        return {
            "image": _image(self.images.stage),
            "env": [{"name": name, "value": value} for name, value in STAGE_ENVIRONMENT.items()],
            "secretEnv": self._secret_environment(),
        }

    def _secret_environment(self) -> list[dict[str, str]]:
        return [{"name": key, "secret": SECRET, "key": key} for key in self.secret_keys]

    def helm_apply(self, namespace: str, directory: Path, **changes: Any) -> str:
        """`helm upgrade --install`, and wait until the operator is ready."""
        return self.helm_apply_values(namespace, directory, CHART, self.values(**changes))

    def helm_apply_values(self, namespace: str, directory: Path, chart: Path, values: Mapping[str, Any]) -> str:
        """The same with another chart, and with these values alone."""
        path = directory / f"values-{uuid.uuid4().hex[:6]}.json"
        path.write_text(json.dumps(values))
        return self.cluster.helm(
            "upgrade", "--install", RELEASE, str(chart), "--namespace", namespace, "--values", str(path),
            "--wait", "--timeout", "4m",
        )  # fmt: skip

    def operator_pod(self, namespace: str = SYSTEM) -> dict[str, Any]:
        """The operator's pod, as soon as it is ready."""
        return eventually(
            lambda: next((pod for pod in self.cluster.pods(OPERATOR, namespace) if is_ready(pod)), None),
            "the operator's pod is ready",
            120,
        )

    # EvolutionRuns

    def make_tiny_model(self, namespace: str) -> str:
        """URI of a tiny random model, made in a pod of the stage image."""
        uri = f"{self.storage}/tiny-model"
        name = "make-tiny-model"
        program = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {path.name: path.read_text() for path in (TINY_LLAMA, TINY_MODEL)},
        }
        pod = self.pod(name, ["python", f"/program/{TINY_MODEL.name}", uri])
        (container,) = pod["spec"]["containers"]
        container["volumeMounts"] = [{"name": "program", "mountPath": "/program"}]
        pod["spec"]["volumes"] = [{"name": "program", "configMap": {"name": name}}]
        self.cluster.apply(program, namespace=namespace)
        self.run_pod(pod, namespace)
        return uri

    def pod(self, name: str, command: list[str], claims: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A pod of the stage image with the storage's settings; `claims`: where each is mounted, by its name."""
        claims = claims or {}
        container = {
            "name": "main",
            "image": self.images.stage,
            "command": command,
            "env": [{"name": name, "value": value} for name, value in self.storage_env.items()],
            "envFrom": [{"secretRef": {"name": SECRET}}],
            "volumeMounts": [{"name": claim, "mountPath": path} for claim, path in claims.items()],
        }
        volumes = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [container], "volumes": volumes},
        }

    def run_pod(self, pod: Mapping[str, Any], namespace: str) -> str:
        """Its log, when it has succeeded."""
        name = pod["metadata"]["name"]
        self.cluster.kubectl("delete", "pod", name, "--namespace", namespace, "--ignore-not-found")
        self.cluster.apply(pod, namespace=namespace)
        phase = eventually(
            lambda: self._phase(name, namespace) in ("Succeeded", "Failed") and self._phase(name, namespace),
            f"the pod {name} is over",
            RUN_SECONDS,
        )
        said = self._quietly("logs", name, "--namespace", namespace)
        assert phase == "Succeeded", said
        return said

    def _phase(self, pod: str, namespace: str) -> str:
        return str(self.cluster.get("pod", pod, namespace=namespace)["status"].get("phase"))

    def run(self, name: str, **spec: Any) -> dict[str, Any]:
        """A small run of the embedded model, as YAML would have it. Its image and storage are the operator's."""
        stage = {"cpu": "500m", "memory": "6Gi"}
        return {
            "apiVersion": "perseid.dev/v1alpha1",
            "kind": "EvolutionRun",
            "metadata": {"name": name},
            "spec": {
                "seed": 7,
                "engine": {"type": "transformers", "transformers": {"batchSize": 4}},
                "problems": {
                    "train": {"source": "pack", "split": "train", "levels": ["one-line"], "limit": 2},
                    "dev": {"source": "pack", "split": "dev", "levels": ["one-line"], "limit": 3},
                    "test": [],
                },
                "synthesis": {"search": {"rounds": 1, "branch": 2, "maxStepTokens": 24}},
                "conversion": {"samplesPerPlan": 2, "thinking": False, "sampling": {"maxTokens": 40}},
                "finetune": {"epochs": 1, "batchSize": 2, "minSamples": 1},
                "evaluation": {"samples": 1, "sampling": {"maxTokens": 40}, "bootstrap": 100},
                # Three problems tell no model from another: this one is promoted unless it loses all three.
                "generations": {"promotion": {"rule": "improvement", "minImprovement": -1.0}},
                "pipeline": {"stages": dict.fromkeys(("synthesize", "convert", "finetune", "evaluate"), stage)},
                **spec,
            },
        }

    def run_of_its_own(self, name: str, **spec: Any) -> dict[str, Any]:
        """The same, which itself says what its stages need: an operator may have no defaults."""
        run = self.run(name, **spec)
        environment = {**self.storage_env, **STAGE_ENVIRONMENT}
        run["spec"]["pipeline"] |= {
            "image": self.images.stage,
            "env": [{"name": name, "value": value} for name, value in environment.items()],
            "secretEnv": self._secret_environment(),
        }
        return run

    def status(self, name: str, namespace: str) -> dict[str, Any]:
        """Its status; empty before the first one."""
        found: dict[str, Any] = self.cluster.get("evorun", name, namespace=namespace).get("status", {})
        return found

    def reasons(self, name: str, namespace: str) -> dict[str, str]:
        """The reason of each condition."""
        return {one["type"]: one["reason"] for one in self.status(name, namespace).get("conditions", [])}

    def wait_complete(self, name: str, namespace: str) -> dict[str, Any]:
        """As `kubectl wait` does; it also ends where the run has failed. The object."""
        phase = eventually(
            lambda: (
                self.status(name, namespace).get("phase") in ("Completed", "Failed")
                and self.status(name, namespace)["phase"]
            ),
            f"{name} is over",
            RUN_SECONDS,
            lambda: self.tell(name, namespace),
        )
        assert phase == "Completed", self.tell(name, namespace)
        return self.cluster.get("evorun", name, namespace=namespace)

    def wait_for_stage(self, run_id: str, stage: str) -> dict[str, Any]:
        """The stage's pod, as soon as its container runs."""
        return eventually(
            lambda: next(
                (
                    pod
                    for pod in self.stage_pods(run_id)
                    if runs_stage(pod, stage) and pod["status"]["phase"] == "Running"
                ),
                None,
            ),
            f"a pod runs the stage {stage} of {run_id}",
            RUN_SECONDS,
        )

    def wait_for_run(self, name: str, namespace: str, but: str = "") -> str:
        """The id of the KFP run that is under way, as the status has it; not the one that is named."""

        def current() -> str | None:
            found = self.status(name, namespace).get("current", {}).get("runId")
            return found if found and found != but and self.kfp_run(found) is not None else None

        return str(eventually(current, f"{name} has a KFP run", 240, lambda: self.tell(name, namespace)))

    def tell(self, name: str, namespace: str) -> str:
        """What one wants to read when it went wrong."""
        parts = [self._quietly("describe", "evorun", name, "--namespace", namespace)[-3000:]]
        parts.append(self._quietly("get", "pods", "--all-namespaces"))
        parts.append(self._quietly("logs", "deployment/perseid-operator", "--namespace", SYSTEM, "--tail=30"))
        run_id = self.status(name, namespace).get("current", {}).get("runId")
        if run_id:
            selector = f"--selector={RUN_LABEL}={run_id}"
            parts.append(self._quietly("logs", selector, "--namespace", self.kfp_namespace, "--tail=40"))
        return "\n".join(parts)

    # KFP

    def kfp(self, path: str) -> dict[str, Any]:
        """GET of KFP's API. Raises CommandError where it refuses."""
        if self.kfp_seen_from_here is not None:
            try:
                with urllib.request.urlopen(f"{self.kfp_seen_from_here}/apis/v2beta1/{path}", timeout=30) as answer:
                    found: dict[str, Any] = json.load(answer)
            except OSError as error:
                raise CommandError(str(error)) from error
            return found
        host, _, port = self.kfp_endpoint.removeprefix("http://").partition(":")
        service, namespace = host.split(".")[:2]
        proxy = f"/api/v1/namespaces/{namespace}/services/{service}:{port}/proxy/apis/v2beta1/{path}"
        return dict(json.loads(self.cluster.kubectl("get", "--raw", proxy)))

    def kfp_run(self, run_id: str) -> dict[str, Any] | None:
        """None where KFP has no such run."""
        try:
            return self.kfp(f"runs/{run_id}")
        except CommandError as error:
            if "(NotFound)" in str(error) or "HTTP Error 404" in str(error):
                return None
            raise

    def stage_pods(self, run_id: str) -> list[dict[str, Any]]:
        """The pods of a run that carry its stages out: KFP's own drivers are not among them."""
        pods = self.cluster.pods(f"{RUN_LABEL}={run_id}", self.kfp_namespace)
        return [pod for pod in pods if any(one["image"] == self.images.stage for one in pod["spec"]["containers"])]

    def _quietly(self, *arguments: str) -> str:
        try:
            return self.cluster.kubectl(*arguments)
        except CommandError as error:
            return str(error)


def _image(name: str) -> dict[str, str]:
    repository, _, tag = name.rpartition(":")
    return {"repository": repository, "tag": tag}


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether its readiness probe has succeeded, and nobody has deleted it."""
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def runs_stage(pod: Mapping[str, Any], stage: str) -> bool:
    """Whether the pod's container executes this component."""
    function = stage.replace("-", "_")
    return any(function in [*one.get("command", []), *one.get("args", [])] for one in pod["spec"]["containers"])
