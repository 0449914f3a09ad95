"""Argo in a cluster, and Workflows in it of the shape that KFP 2.17 compiles."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e_cluster import Cluster, eventually

from perseid_operator.causes import nodes_of

NAMESPACE = "argo"
IMAGE = "localhost/perseid-argo:4.0.5"
WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
HERE = Path(__file__).parent
SECONDS = 300.0
KINDS = {
    "Workflow": "workflows",
    "WorkflowTemplate": "workflowtemplates",
    "ClusterWorkflowTemplate": "clusterworkflowtemplates",
    "CronWorkflow": "cronworkflows",
    "WorkflowTaskSet": "workflowtasksets",
    "WorkflowTaskResult": "workflowtaskresults",
    "WorkflowArtifactGCTask": "workflowartifactgctasks",
}
_HAS_STATUS = ("WorkflowTaskSet", "WorkflowArtifactGCTask")
# What stands for KFP's driver: it takes the run's parameters as one argument and makes of them, through its output,
# what is merged into the pod of the stage; and the stage, which says what it was told.
_DRIVER = """
import json, sys
told = json.dumps({"inputs": {"parameterValues": json.loads(sys.argv[1])["parameters"]}}, ensure_ascii=False)
program = "import base64, sys; print('TOLD', base64.b64encode(sys.argv[1].encode()).decode())"
main = {"name": "main", "image": sys.argv[2], "command": ["python3"], "args": ["-c", program, told]}
open("/tmp/pod-spec-patch", "w").write(json.dumps({"containers": [main]}, ensure_ascii=False))
"""


@dataclass(frozen=True)
class Argo:
    """Argo in the cluster."""

    cluster: Cluster

    def install(self) -> None:
        """The controller, and the kinds of its objects."""
        self.cluster.apply(*(_definition(kind, plural) for kind, plural in KINDS.items()))
        self.cluster.kubectl("apply", "--filename", str(HERE / "argo.yaml"))
        self.cluster.kubectl(
            "rollout",
            "status",
            "deployment/workflow-controller",
            "--namespace",
            NAMESPACE,
            "--timeout=240s",
            seconds=250,
        )

    def submit(self, name: str, *templates: dict[str, Any], **spec: Any) -> None:
        """A Workflow that begins with the first of the templates."""
        workflow = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "entrypoint": templates[0]["name"],
                "serviceAccountName": "pipeline-runner",
                "templates": templates,
                **spec,
            },
        }
        self.cluster.kubectl("delete", "workflow", name, "--namespace", NAMESPACE, "--ignore-not-found")
        self.cluster.apply(workflow)

    def submit_stage(self, name: str, script: str, container: dict[str, Any] | None = None, **template: Any) -> None:
        """A Workflow of one pod, which runs a shell script."""
        main = {"image": IMAGE, "command": ["sh", "-c", script], **(container or {})}
        dag = {"name": "entrypoint", "dag": {"tasks": [{"name": "stage", "template": "stage"}]}}
        self.submit(name, dag, {"name": "stage", "container": main, **template})

    def ended(self, name: str) -> dict[str, Any]:
        """The Workflow, as soon as it is over."""

        def over() -> dict[str, Any] | None:
            found = self.workflow(name)
            return found if found.get("status", {}).get("phase") in ("Succeeded", "Failed", "Error") else None

        return dict(eventually(over, f"{name} is over", SECONDS, lambda: self._tell(name)))

    def running_pod(self, name: str) -> str:
        """Name of its pod, as soon as the stage's container runs and Argo knows it: a pod that is gone before Argo has
        seen it run is made again."""

        def runs() -> str | None:
            if "Running" not in [
                one["phase"] for one in nodes_of(self.workflow(name)).values() if one["type"] == "Pod"
            ]:
                return None
            for pod in self.cluster.pods(f"{WORKFLOW_LABEL}={name}", NAMESPACE):
                states = {one["name"]: one["state"] for one in pod["status"].get("containerStatuses", [])}
                if "running" in states.get("main", {}):
                    return str(pod["metadata"]["name"])
            return None

        return str(eventually(runs, f"the pod of {name} runs", SECONDS, lambda: self._tell(name)))

    def workflow(self, name: str) -> dict[str, Any]:
        """As it is now."""
        return self.cluster.get("workflow", name, namespace=NAMESPACE)

    def gated_pod(self, name: str) -> str:
        """Name of its pod, as soon as Kubernetes has found it gated and Argo has taken it in."""

        def waits() -> str | None:
            if not nodes_of(self.workflow(name)):
                return None
            for pod in self.cluster.pods(f"{WORKFLOW_LABEL}={name}", NAMESPACE):
                if "SchedulingGated" in [one.get("reason") for one in pod["status"].get("conditions", [])]:
                    return str(pod["metadata"]["name"])
            return None

        return str(eventually(waits, f"the pod of {name} is gated", SECONDS, lambda: self._tell(name)))

    def passed(self, name: str, parameters: dict[str, Any]) -> dict[str, Any] | None:
        """What a stage is told of a run's parameters, on the way that they take in KFP; None where no stage begins."""
        runtime = json.dumps({"parameters": parameters}, ensure_ascii=False, separators=(",", ":"))
        patch = "pod-spec-patch"
        driver = {
            "name": "driver",
            "inputs": {"parameters": [{"name": "runtime-config"}]},
            "container": {
                "image": IMAGE,
                "command": ["python3"],
                "args": ["-c", _DRIVER, "{{inputs.parameters.runtime-config}}", IMAGE],
            },
            "outputs": {"parameters": [{"name": patch, "valueFrom": {"path": "/tmp/pod-spec-patch"}}]},
        }
        executor = {
            "name": "executor",
            "inputs": {"parameters": [{"name": patch}]},
            "dag": {"tasks": [_task("executor", "impl", patch, f"{{{{inputs.parameters.{patch}}}}}")]},
        }
        impl = {
            "name": "impl",
            "inputs": {"parameters": [{"name": patch}]},
            "podSpecPatch": f"{{{{inputs.parameters.{patch}}}}}",
            "container": {"image": "overridden", "command": ["overridden"]},
        }
        root = _task("root", "executor", patch, f"{{{{tasks.root-driver.outputs.parameters.{patch}}}}}")
        tasks = [
            _task("root-driver", "driver", "runtime-config", runtime),
            {**root, "depends": "root-driver.Succeeded"},
        ]
        self.submit(name, {"name": "entrypoint", "dag": {"tasks": tasks}}, driver, executor, impl)
        if self.ended(name)["status"]["phase"] != "Succeeded":
            return None
        selector = f"--selector={WORKFLOW_LABEL}={name}"
        said = self.cluster.kubectl("logs", selector, "--container=main", "--tail=-1", "--namespace", NAMESPACE)
        (told,) = (line.split()[1] for line in said.splitlines() if line.startswith("TOLD "))
        values: dict[str, Any] = json.loads(base64.b64decode(told))["inputs"]["parameterValues"]
        return values

    def _tell(self, name: str) -> str:
        return self.cluster.kubectl("get", "workflow", name, "--namespace", NAMESPACE, "--output", "yaml")[-3000:]


def _task(name: str, template: str, parameter: str, value: str) -> dict[str, Any]:
    given = {"parameters": [{"name": parameter, "value": value}]}
    return {"name": name, "template": template, "arguments": given}


def _definition(kind: str, plural: str) -> dict[str, Any]:
    version: dict[str, Any] = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    if kind in _HAS_STATUS:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.argoproj.io"},
        "spec": {
            "group": "argoproj.io",
            "scope": "Cluster" if kind.startswith("Cluster") else "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [version],
        },
    }
