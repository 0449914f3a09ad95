"""What manifests/ installs: it builds, a real API server takes it, and it gives the least rights that do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_access import Cluster, KubectlError
from crd_objects import MANIFESTS, install_crd
from operator_rights import MAY, MAY_FOR_ITS_LEASE, MAY_NOT, allowed, wait_until_allowed

from perseid_operator.leader import LEASE_NAME
from perseid_operator.settings import VARIABLES, SettingsError, load_settings

OVERLAYS = {"cluster-wide": "perseid-system", "one-namespace": "perseid"}
SETTINGS = {
    "PERSEID_KFP_ENDPOINT",
    "PERSEID_KFP_NAMESPACE",
    "PERSEID_KFP_TOKEN_FILE",
    "PERSEID_KFP_UI_URL",
    "PERSEID_POLL_SECONDS",
    "PERSEID_STAGE_ENV",
    "PERSEID_STAGE_IMAGE",
    "PERSEID_STAGE_SECRET_ENV",
    "PERSEID_STORAGE",
    "PERSEID_WATCH_NAMESPACE",
}


class KustomizeLoader(yaml.CSafeLoader):
    """Reads `1e-05`, as Go writes numbers, as the number that it is to kubectl; to PyYAML it is a text."""


KustomizeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)


def build(cluster: Cluster, directory: Path) -> list[dict[str, Any]]:
    return list(yaml.load_all(cluster.kubectl("kustomize", str(directory)), Loader=KustomizeLoader))


def overlay(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    return build(cluster, MANIFESTS / "overlays" / name)


def variant(cluster: Cluster, directory: Path, name: str, **kustomization: Any) -> list[dict[str, Any]]:
    """An overlay as a user writes one, on top of one of ours."""
    shutil.copytree(MANIFESTS, directory / "manifests")
    own = directory / "manifests" / "overlays" / "own"
    own.mkdir()
    own.joinpath("kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [f"../{name}"],
                **kustomization,
            }
        )
    )
    return build(cluster, own)


def the(objects: list[dict[str, Any]], kind: str, name: str = "perseid-operator") -> dict[str, Any]:
    found = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} {kind} {name}"
    return found[0]


def container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    containers = the(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert len(containers) == 1
    return containers[0]


def environment(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in container(objects)["env"]}


def rights(role: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


LEAST = {
    *(("perseid.dev", "evolutionruns", verb) for verb in ("get", "list", "watch", "patch", "delete")),
    ("perseid.dev", "evolutionruns/status", "update"),
    *(("", "configmaps", verb) for verb in ("get", "create", "patch")),
    ("", "events", "create"),
}
WORKFLOWS = {("argoproj.io", "workflows", verb) for verb in ("list", "delete")}
TRAIN_JOBS = {("trainer.kubeflow.org", "trainjobs", "list")}


def test_the_operator_gets_a_role_in_one_namespace_and_a_cluster_role_for_all(cluster: Cluster) -> None:
    one, wide = overlay(cluster, "one-namespace"), overlay(cluster, "cluster-wide")
    assert rights(the(one, "Role")) == LEAST
    assert rights(the(wide, "ClusterRole")) == LEAST
    assert the(one, "RoleBinding")["roleRef"]["kind"] == "Role"
    assert the(wide, "ClusterRoleBinding")["roleRef"]["kind"] == "ClusterRole"
    assert not [each for each in one if each["kind"] == "ClusterRoleBinding"]
    for objects, namespace in ((one, "perseid"), (wide, "perseid-system")):
        election = the(objects, "Role", "perseid-operator-leader-election")
        assert rights(election) == {("coordination.k8s.io", "leases", verb) for verb in ("create", "get", "update")}
        assert [rule.get("resourceNames") for rule in election["rules"]] == [None, [LEASE_NAME]]
        for each in objects:
            for subject in each.get("subjects", []):
                assert subject == {"kind": "ServiceAccount", "name": "perseid-operator", "namespace": namespace}


@pytest.mark.parametrize("name", OVERLAYS)
def test_nobody_gets_every_verb_or_any_secret(cluster: Cluster, name: str) -> None:
    for each in overlay(cluster, name):
        assert each["kind"] != "Secret"
        for rule in each.get("rules", []):
            for part in ("apiGroups", "resources", "verbs"):
                assert "*" not in rule[part]
            assert "secrets" not in rule["resources"]
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_but_what_belongs_to_the_cluster_is_in_one_namespace(cluster: Cluster, name: str) -> None:
    of_the_cluster = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Namespace"}
    for each in overlay(cluster, name):
        expected = None if each["kind"] in of_the_cluster else OVERLAYS[name]
        assert each["metadata"].get("namespace") == expected, each["kind"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_deployment_takes_its_settings_from_the_config_map_that_is_generated(cluster: Cluster, name: str) -> None:
    objects = overlay(cluster, name)
    settings = [each for each in objects if each["kind"] == "ConfigMap"]
    assert len(settings) == 1
    assert set(settings[0]["data"]) == SETTINGS
    assert container(objects)["envFrom"] == [
        {"configMapRef": {"name": settings[0]["metadata"]["name"]}},
        {"secretRef": {"name": "perseid-operator-storage", "optional": True}},
    ]


def test_the_operator_reads_the_settings_and_asks_only_for_its_storage(cluster: Cluster, tmp_path: Path) -> None:
    shipped = next(each for each in overlay(cluster, "cluster-wide") if each["kind"] == "ConfigMap")["data"]
    assert set(shipped) <= set(VARIABLES)
    with pytest.raises(SettingsError) as refusal:
        load_settings(shipped)
    assert "PERSEID_STORAGE" in str(refusal.value)
    assert "PERSEID_KFP" not in str(refusal.value)
    settings = load_settings({**shipped, "PERSEID_STORAGE": "s3://bucket/runs"})
    assert settings.cluster_wide
    assert settings.http_port == container(overlay(cluster, "cluster-wide"))["ports"][0]["containerPort"]


def test_only_the_operator_of_one_namespace_is_told_to_watch_its_own(cluster: Cluster) -> None:
    watch = environment(overlay(cluster, "one-namespace"))["PERSEID_WATCH_NAMESPACE"]
    assert watch["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"
    assert "PERSEID_WATCH_NAMESPACE" not in environment(overlay(cluster, "cluster-wide"))


@pytest.mark.parametrize("name", OVERLAYS)
def test_there_is_one_operator_and_its_health_is_asked(cluster: Cluster, name: str) -> None:
    objects = overlay(cluster, name)
    deployment = the(objects, "Deployment")["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    assert deployment["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    probed = container(objects)
    assert probed["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert probed["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert probed["ports"] == [{"name": "http", "containerPort": 8080}]
    assert {"cpu", "memory"} <= set(probed["resources"]["requests"])
    assert "memory" in probed["resources"]["limits"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_api_server_takes_all_of_it(cluster: Cluster, namespace: str, name: str) -> None:
    install_crd(cluster)
    for each in overlay(cluster, name):
        if "namespace" in each["metadata"]:
            each["metadata"]["namespace"] = namespace
        cluster.kubectl(
            "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename=-", input=json.dumps(each)
        )


def test_the_pod_is_admitted_where_pod_security_is_restricted(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    cluster.kubectl("create", "serviceaccount", "perseid-operator", f"--namespace={namespace}")
    components = ["../../components/kfp-token", "../../components/argo-workflows"]
    objects = variant(cluster, tmp_path, "cluster-wide", components=components)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        **the(objects, "Deployment")["spec"]["template"],
    }
    pod["metadata"] = {**pod["metadata"], "name": "operator", "namespace": namespace}

    def admit() -> str:
        return cluster.kubectl("create", "--dry-run=server", "--filename=-", input=json.dumps(pod))

    assert "created" in admit()
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(KubectlError, match="restricted"):
        admit()


def test_the_root_file_system_of_the_pod_is_read_only(cluster: Cluster) -> None:
    objects = overlay(cluster, "cluster-wide")
    assert container(objects)["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"name": "tmp", "mountPath": "/tmp"} in container(objects)["volumeMounts"]


@pytest.mark.parametrize(("name", "kind"), [("cluster-wide", "ClusterRole"), ("one-namespace", "Role")])
def test_the_components_fit_on_both_overlays(cluster: Cluster, tmp_path: Path, name: str, kind: str) -> None:
    components = [f"../../components/{one}" for one in ("argo-workflows", "train-jobs", "kfp-token")]
    objects = variant(
        cluster,
        tmp_path,
        name,
        components=components,
        configMapGenerator=[
            {"name": "perseid-operator-settings", "behavior": "merge", "literals": ["PERSEID_STORAGE=s3://bucket/runs"]}
        ],
        namespace="team",
        images=[{"name": "perseid-operator", "newName": "other", "newTag": "1"}],
    )
    assert rights(the(objects, kind)) == LEAST | WORKFLOWS | TRAIN_JOBS
    token = the(objects, "Deployment")["spec"]["template"]["spec"]["volumes"][-1]["projected"]["sources"][0]
    assert token["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"
    file = environment(objects)["PERSEID_KFP_TOKEN_FILE"]["value"]
    assert container(objects)["volumeMounts"][-1]["mountPath"] == str(Path(file).parent)
    assert Path(file).name == token["serviceAccountToken"]["path"]
    settings = next(each for each in objects if each["kind"] == "ConfigMap")
    assert settings["data"]["PERSEID_STORAGE"] == "s3://bucket/runs"
    assert set(settings["data"]) == SETTINGS
    assert settings["metadata"]["namespace"] == "team"
    assert container(objects)["image"] == "other:1"


def test_the_operator_of_one_namespace_may_what_it_needs_there_and_nothing_elsewhere(
    cluster: Cluster, namespace: str
) -> None:
    install_crd(cluster)
    for each in overlay(cluster, "one-namespace"):
        if each["kind"] in ("Role", "RoleBinding", "ServiceAccount"):
            each["metadata"]["namespace"] = namespace
            for subject in each.get("subjects", []):
                subject["namespace"] = namespace
            cluster.kubectl("create", "--filename=-", input=json.dumps(each))
    account = f"{namespace}:perseid-operator"
    rights_of_all = [*MAY, *MAY_FOR_ITS_LEASE]
    wait_until_allowed(cluster, account, rights_of_all, namespace)
    assert allowed(cluster, account, MAY_NOT, namespace) == []
    assert allowed(cluster, account, rights_of_all, "default") == []


def test_who_may_edit_or_view_a_namespace_may_do_so_with_its_evolution_runs(cluster: Cluster) -> None:
    for each in overlay(cluster, "cluster-wide"):
        if each["kind"] == "ClusterRole" and each["metadata"]["name"].startswith("perseid-evolutionrun-"):
            labels = each["metadata"]["labels"]
            given = {verb for group, resource, verb in rights(each) if resource == "evolutionruns"}
            if "rbac.authorization.k8s.io/aggregate-to-view" in labels:
                assert given == {"get", "list", "watch"}
            else:
                assert labels["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
                assert {"create", "patch", "delete"} <= given
            assert {verb for _, resource, verb in rights(each) if resource.endswith("/status")} == {"get"}
