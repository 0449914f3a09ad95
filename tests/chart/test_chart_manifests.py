"""The chart installs what manifests/ installs: both are built, and compared object by object."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_helm import (
    CHART,
    NAMESPACE,
    REPOSITORY,
    GoYamlLoader,
    container,
    effective_environment,
    helm,
    minimal,
    objects_of,
    render,
    the,
)
from helm_binaries import find_clients

MANIFESTS = REPOSITORY / "manifests"
STORAGE = "s3://models/perseid"
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
ONLY_THE_CHARTS = {
    "PERSEID_LOG_FORMAT": "json",
    "PERSEID_LOG_LEVEL": "INFO",
    "PERSEID_STAGE_IMAGE": f"perseid-stage:{VERSION}",
}
"""Settings that the chart writes down although they are the operator's defaults, and an image of its own version."""


COMPONENTS = ("components/argo-workflows", "components/kfp-token", "monitoring")


@cache
def _built(overlay: str, components: tuple[str, ...], directory: Path) -> str:
    own = directory / f"{overlay}-{len(components)}"
    own.mkdir()
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": [os.path.relpath(MANIFESTS / "overlays" / overlay, own)],
        "components": [os.path.relpath(MANIFESTS / each, own) for each in components],
        "configMapGenerator": [
            {
                "name": "perseid-operator-settings",
                "behavior": "merge",
                "literals": [f"PERSEID_STORAGE={STORAGE}"],
            }
        ],
    }
    own.joinpath("kustomization.yaml").write_text(json.dumps(kustomization), encoding="utf-8")
    command = [find_clients(os.environ).kubectl, "kustomize", "--load-restrictor=LoadRestrictionsNone", str(own)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("overlays")


def built(directory: Path, overlay: str, components: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """What kubectl would apply, in the namespace of the release. To build takes seconds: the CRD is long."""
    return [each for each in yaml.load_all(_built(overlay, components, directory), Loader=GoYamlLoader) if each]


def rules(role: dict[str, Any]) -> list[str]:
    """The rules of a role, whatever their order."""
    return sorted(
        json.dumps({part: sorted(words) for part, words in rule.items()}, sort_keys=True) for rule in role["rules"]
    )


def pod_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """The pod of the operator, without what is compared for itself or differs on purpose: environment and image."""
    pod: dict[str, Any] = json.loads(json.dumps(the(objects, "Deployment")["spec"]["template"]["spec"]))
    (operator,) = pod["containers"]
    assert operator.pop("image")
    operator.pop("imagePullPolicy", None)  # Kubernetes' own default follows from the image.
    operator.pop("env")
    settings, storage = operator.pop("envFrom")
    assert settings["configMapRef"]["name"].startswith("perseid-operator-settings")
    assert storage == {"secretRef": {"name": "perseid-operator-storage", "optional": True}}
    return pod


def deployment_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """How the pod is kept running."""
    return {key: value for key, value in the(objects, "Deployment")["spec"].items() if key != "template"}


def test_the_crd_is_that_of_manifests_to_the_byte_but_for_labels_and_the_policy_that_keeps_it() -> None:
    printed = helm("template", "perseid", str(CHART), "--show-only=templates/crd.yaml", values=minimal())
    text = printed.partition("templates/crd.yaml\n")[2].strip()
    before, added = text.partition("  labels:\n")[0], text.partition("  labels:\n")[2]
    labels, _, after = added.partition("    helm.sh/resource-policy: keep\n")
    assert before + after == (MANIFESTS / "base" / "crd.yaml").read_text(encoding="utf-8").strip()
    assert all(line.startswith("    ") or line == "  annotations:" for line in labels.splitlines())


def test_an_operator_of_all_namespaces_has_the_same_rights(directory: Path) -> None:
    ours, theirs = objects_of("default"), built(directory, "cluster-wide")
    assert rules(the(ours, "ClusterRole")) == rules(the(theirs, "ClusterRole"))
    for part in ("roleRef", "subjects"):
        assert the(ours, "ClusterRoleBinding")[part] == the(theirs, "ClusterRoleBinding")[part]


def test_an_operator_of_its_own_namespace_has_the_same_rights(directory: Path) -> None:
    ours, theirs = render(minimal(watchNamespaces=[NAMESPACE])), built(directory, "one-namespace")
    assert rules(the(ours, "Role")) == rules(the(theirs, "Role"))
    for part in ("roleRef", "subjects"):
        assert the(ours, "RoleBinding")[part] == the(theirs, "RoleBinding")[part]


def test_the_right_to_workflows_is_the_same(directory: Path) -> None:
    theirs = built(directory, "cluster-wide", COMPONENTS)
    ours = render(minimal(workflows={"enabled": True}))
    assert rules(the(ours, "ClusterRole")) == rules(the(theirs, "ClusterRole"))


def test_the_right_to_see_trainjobs_is_the_same_and_goes_with_that_to_workflows(directory: Path) -> None:
    theirs = built(directory, "cluster-wide", (*COMPONENTS, "components/train-jobs"))
    ours = render(minimal(workflows={"enabled": True}, trainJobs={"enabled": True}))
    assert rules(the(ours, "ClusterRole")) == rules(the(theirs, "ClusterRole"))


def test_the_right_of_pipelines_pods_to_trainjobs_is_the_same_and_alone_gives_the_operator_none() -> None:
    command = [find_clients(os.environ).kubectl, "kustomize", str(MANIFESTS / "train-jobs")]
    theirs = list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    ours, name = render(minimal(trainJobs={"enabled": True})), f"perseid-train-jobs-{NAMESPACE}"
    assert rules(the(ours, "Role", name)) == rules(the(theirs, "Role", "perseid-train-jobs"))
    ours_binding, their_binding = the(ours, "RoleBinding", name), the(theirs, "RoleBinding", "perseid-train-jobs")
    # Without a namespace a subject is one of its binding's: an overlay has to say it once.
    assert ours_binding["subjects"] == [{**one, "namespace": "kubeflow"} for one in their_binding["subjects"]]
    assert ours_binding["metadata"]["namespace"] == their_binding["metadata"]["namespace"] == "kubeflow"
    assert ours_binding["roleRef"]["name"] == name
    assert "trainer.kubeflow.org" not in str([one for one in ours if one["metadata"]["name"] != name])
    assert "trainjobs" not in str(objects_of("default"))


def test_the_right_to_the_lease_is_the_same(directory: Path) -> None:
    ours, theirs, name = objects_of("ha"), built(directory, "cluster-wide"), "perseid-operator-leader-election"
    assert rules(the(ours, "Role", name)) == rules(the(theirs, "Role", name))
    for part in ("roleRef", "subjects"):
        assert the(ours, "RoleBinding", name)[part] == the(theirs, "RoleBinding", name)[part]


@pytest.mark.parametrize("name", ["perseid-evolutionrun-editor", "perseid-evolutionrun-viewer"])
def test_the_roles_for_users_are_the_same_and_aggregated_into_the_same(directory: Path, name: str) -> None:
    ours, theirs = (
        the(each, "ClusterRole", name) for each in (objects_of("default"), built(directory, "cluster-wide"))
    )
    assert rules(ours) == rules(theirs)
    assert theirs["metadata"]["labels"].items() <= ours["metadata"]["labels"].items()
    assert any("aggregate-to" in label for label in ours["metadata"]["labels"])


@pytest.mark.parametrize(
    ("components", "values"),
    [((), {}), (COMPONENTS, {"kfp": {"token": {"enabled": True}}})],
    ids=["one user", "many users"],
)
def test_the_deployment_and_its_pod_are_the_same(
    directory: Path, components: tuple[str, ...], values: dict[str, Any]
) -> None:
    ours, theirs = render(minimal(**values)), built(directory, "cluster-wide", components)
    assert pod_of(ours) == pod_of(theirs)
    assert deployment_of(ours) == deployment_of(theirs)
    assert container(ours)["image"].partition(":")[0] == container(theirs)["image"].partition(":")[0]


@pytest.mark.parametrize(
    ("overlay", "components", "values"),
    [
        ("cluster-wide", (), {}),
        ("cluster-wide", COMPONENTS, {"kfp": {"token": {"enabled": True}}}),
        ("one-namespace", (), {"watchNamespaces": [NAMESPACE]}),
    ],
)
def test_the_operator_gets_the_same_settings(
    directory: Path, overlay: str, components: tuple[str, ...], values: dict[str, Any]
) -> None:
    theirs = effective_environment(built(directory, overlay, components), NAMESPACE)
    assert effective_environment(render(minimal(**values)), NAMESPACE) == {**theirs, **ONLY_THE_CHARTS}


def test_service_monitor_alerts_and_dashboard_are_the_same(directory: Path) -> None:
    ours, theirs = objects_of("everything"), built(directory, "cluster-wide", COMPONENTS)
    assert the(ours, "PrometheusRule")["spec"] == the(theirs, "PrometheusRule")["spec"]
    service = "perseid-operator-metrics"
    assert the(ours, "Service", service)["spec"] == the(theirs, "Service", service)["spec"]
    dashboard = "perseid-operator-dashboard"
    (name, text), (their_name, their_text) = (
        next(iter(the(each, "ConfigMap", dashboard)["data"].items())) for each in (ours, theirs)
    )
    assert name == their_name
    assert text.strip() == their_text.strip()
    monitoring = {key: {"enabled": True} for key in ("serviceMonitor", "prometheusRule", "dashboard")}
    plain = render(minimal(monitoring=monitoring))
    assert the(plain, "ServiceMonitor")["spec"] == the(theirs, "ServiceMonitor")["spec"]
    assert the(plain, "ConfigMap", dashboard)["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_everything_that_is_installed_by_kubectl_is_installed_by_helm_under_the_same_name(directory: Path) -> None:
    def names(objects: list[dict[str, Any]]) -> set[tuple[str, str]]:
        return {
            (each["kind"], each["metadata"]["name"].partition("-settings")[0])
            for each in objects
            if each["kind"] != "Namespace" and "leader-election" not in each["metadata"]["name"]
        }

    ours = [each for each in objects_of("default") if not each["metadata"]["name"].endswith("-test")]
    theirs = built(directory, "cluster-wide")
    assert names(ours) - names(theirs) == {("Service", "perseid-operator-metrics")}
    assert names(theirs) <= names(ours)
