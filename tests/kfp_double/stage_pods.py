"""A stage as a pod, made of a compiled pipeline as KFP's driver and launcher make it.

What a real one adds and this one does not: the launcher's copying of artifacts to the object store. A component's
output parameter comes back through the container's termination message instead.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

RUN_LABEL, WORKFLOW_LABEL, STAGE_LABEL = "pipeline/runid", "workflows.argoproj.io/workflow", "perseid.test/stage"
CONTAINER = "main"
OUTPUT = "/kfp-outputs/executor_output.json"
"""Where the component writes what it returns; Kubernetes shows it as the termination message (4096 bytes at most)."""
ARTIFACTS = "/minio"
NON_ROOT = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


class PlannedPod(NamedTuple):
    """A pod of a task."""

    name: str
    """The one name that it can have: whoever makes it a second time finds it taken."""
    stage: str
    component: str
    values: dict[str, Any]
    """The component's parameters."""
    node: str
    """Name of its node in Argo's Workflow, the way to it."""


def plan_pods(
    workflow: dict[str, Any], task: str, spec: dict[str, Any], outputs: dict[str, Any]
) -> tuple[list[PlannedPod], bool]:
    """The pods of a task of the root: its own, or one for each item of a loop; and whether it is a loop. `spec` is the
    posted `{"pipeline_spec": ..., "platform_spec": ...}`, `outputs` what the tasks before it have returned."""
    pipeline = spec["pipeline_spec"]
    node = pipeline["root"]["dag"]["tasks"][task]
    component = pipeline["components"][node["componentRef"]["name"]]
    name, root = f"{workflow['name']}-{task}", f"{workflow['name']}.root"
    values = _values(node, workflow["parameters"], outputs)
    if "executorLabel" in component:
        return [PlannedPod(name, task, node["componentRef"]["name"], values, f"{root}.{task}.executor")], False
    loop = node["parameterIterator"]
    ((stage, inner),) = component["dag"]["tasks"].items()
    items = [{**values, loop["itemInput"]: item} for item in json.loads(loop["items"]["raw"])]
    pods = [
        PlannedPod(
            f"{name}-{number}",
            stage,
            inner["componentRef"]["name"],
            _values(inner, item, {}),
            f"{root}.{task}.iteration-iterations({number}:{number}).iteration-item.{stage}.executor",
        )
        for number, item in enumerate(items)
    ]
    return pods, True


def _values(node: dict[str, Any], parameters: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        name: outputs[source["taskOutputParameter"]["producerTask"]]
        if "taskOutputParameter" in source
        else parameters[source["componentInputParameter"]]
        for name, source in node["inputs"]["parameters"].items()
    }


def stage_pod(workflow: dict[str, Any], planned: PlannedPod, spec: dict[str, Any]) -> dict[str, Any]:
    """The pod, as Kubernetes takes it."""
    pipeline = spec["pipeline_spec"]
    component = pipeline["components"][planned.component]
    label = component["executorLabel"]
    container = pipeline["deploymentSpec"]["executors"][label]["container"]
    platform = _platform(spec, label)
    arguments = json.dumps(_executor_input(planned, component))
    volumes, mounts = _volumes(platform)
    labels = {
        **platform.get("podMetadata", {}).get("labels", {}),
        RUN_LABEL: workflow["run_id"],
        WORKFLOW_LABEL: workflow["name"],
        STAGE_LABEL: planned.stage,
    }
    account = workflow["parameters"]["run"].get("spec", {}).get("pipeline", {}).get("serviceAccount")
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        # A real one mounts it always. Who names no account needs none: such a pod has no rights here.
        "automountServiceAccountToken": bool(account),
        # As KFP's own: no pod of a pipeline runs as root. It sets no fsGroup, and kfp-kubernetes cannot.
        "securityContext": {"runAsNonRoot": True},
        "terminationGracePeriodSeconds": 30,
        "volumes": volumes,
        "containers": [
            {
                "name": CONTAINER,
                "image": container["image"],
                "command": container["command"],
                "args": [arguments if argument == "{{$}}" else argument for argument in container["args"]],
                "env": [*container.get("env", []), *_secret_env(platform), *_field_env(platform)],
                "resources": _resources(container.get("resources", {})),
                "volumeMounts": mounts,
                "securityContext": NON_ROOT,
                "terminationMessagePath": OUTPUT,
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ],
    }
    if "nodeSelector" in platform:
        pod["nodeSelector"] = platform["nodeSelector"]["labels"]
    if "tolerations" in platform:
        pod["tolerations"] = [_toleration(one) for one in platform["tolerations"]]
    if "imagePullSecret" in platform:
        pod["imagePullSecrets"] = [{"name": one["secretName"]} for one in platform["imagePullSecret"]]
    if "activeDeadlineSeconds" in platform:
        pod["activeDeadlineSeconds"] = int(platform["activeDeadlineSeconds"])
    if account:
        pod["serviceAccountName"] = account
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": planned.name, "labels": labels},
        "spec": pod,
    }


def _toleration(given: dict[str, Any]) -> dict[str, Any]:
    """As Kubernetes takes it: in protobuf's JSON a long number is a text."""
    seconds = {"tolerationSeconds": int(given["tolerationSeconds"])} if "tolerationSeconds" in given else {}
    return {**given, **seconds}


def returned(message: str) -> str:
    """A component's output parameter, out of the termination message. Raises ValueError where there is none."""
    try:
        return str(json.loads(message)["parameterValues"]["Output"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the stage's pod has returned no output: {message[-500:]!r}") from error


def delay_of(pod: Any) -> str:
    """What Argo says of a pod that does not run yet: what its container waits for, or why no node takes it. Of a pod at
    a gate it says nothing."""
    for status in pod.status.container_statuses or []:
        waiting = status.state.waiting
        if waiting is not None:
            return f"{waiting.reason}: {waiting.message}" if waiting.message else str(waiting.reason)
    for condition in pod.status.conditions or []:
        if condition.reason == "Unschedulable":
            return f"{condition.reason}: {condition.message}"
    return ""


def _executor_input(planned: PlannedPod, component: dict[str, Any]) -> dict[str, Any]:
    """What the launcher hands to kfp.dsl.executor_main."""
    produced = component.get("outputDefinitions", {})
    root = f"minio://mlpipeline/{planned.name}"
    return {
        "inputs": {"parameterValues": planned.values},
        "outputs": {
            "parameters": {
                name: {"outputFile": f"{ARTIFACTS}/parameters/{name}"} for name in produced.get("parameters", {})
            },
            "artifacts": {
                name: {
                    "artifacts": [
                        {"name": name, "type": artifact["artifactType"], "uri": f"{root}/{name}", "metadata": {}}
                    ]
                }
                for name, artifact in produced.get("artifacts", {}).items()
            },
            "outputFile": OUTPUT,
        },
    }


def _platform(spec: dict[str, Any], label: str) -> dict[str, Any]:
    platforms = (spec.get("platform_spec") or {}).get("platforms", {})
    found: dict[str, Any] = (
        platforms.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {}).get(label, {})
    )
    return found


def _resources(resources: dict[str, Any]) -> dict[str, Any]:
    requests, limits = {}, {}
    for name, field in (("cpu", "Cpu"), ("memory", "Memory")):
        if f"resource{field}Request" in resources:
            requests[name] = resources[f"resource{field}Request"]
        if f"resource{field}Limit" in resources:
            limits[name] = resources[f"resource{field}Limit"]
    if "accelerator" in resources:
        limits[resources["accelerator"]["resourceType"]] = resources["accelerator"]["resourceCount"]
    return {"requests": requests, "limits": limits}


def _secret_env(platform: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": pair["envVar"],
            "valueFrom": {
                "secretKeyRef": {
                    "name": entry["secretNameParameter"]["runtimeValue"]["constant"],
                    "key": pair["secretKey"],
                }
            },
        }
        for entry in platform.get("secretAsEnv", [])
        for pair in entry["keyToEnv"]
    ]


def _field_env(platform: dict[str, Any]) -> list[dict[str, Any]]:
    """What a pod is told of itself."""
    return [
        {"name": one["name"], "valueFrom": {"fieldRef": {"fieldPath": one["fieldPath"]}}}
        for one in platform.get("fieldPathAsEnv", [])
    ]


def _volumes(platform: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    # KFP gives every component a place for its artifacts where it is no root.
    volumes: list[dict[str, Any]] = [{"name": "artifacts", "emptyDir": {}}]
    mounts = [{"name": "artifacts", "mountPath": ARTIFACTS}]
    for mount in platform.get("emptyDirMounts", []):
        settings = {key: mount[key] for key in ("medium", "sizeLimit") if key in mount}
        volumes.append({"name": mount["volumeName"], "emptyDir": settings})
        mounts.append({"name": mount["volumeName"], "mountPath": mount["mountPath"]})
    for mount in platform.get("pvcMount", []):
        claim = mount["pvcNameParameter"]["runtimeValue"]["constant"]
        volumes.append({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": claim, "mountPath": mount["mountPath"]})
    return volumes, mounts
