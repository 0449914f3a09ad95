"""A release comes, goes up and goes away, on a real API server of its own. No pod runs there, so none is waited for."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chart_helm import CHART, NAMESPACE, REPOSITORY, HelmError, helm, minimal
from cluster_access import Cluster, KubectlError
from cluster_binaries import find_or_build
from control_plane import ControlPlane
from crd_objects import CRD_NAME, wait_until_established

from perseid_operator.objects import FINALIZER

# Each starts an API server, and has Helm send it a large CRD some times.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SAMPLE = str(REPOSITORY / "manifests" / "samples" / "quickstart.yaml")


class Releases:
    """Helm on a cluster."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        home = {f"HELM_{name}_HOME": str(directory / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        self._environment = {"KUBECONFIG": str(cluster.kubeconfig), **home}

    def helm(self, *arguments: str, values: dict[str, Any] | None = None, namespace: str = NAMESPACE) -> str:
        return helm(*arguments, f"--namespace={namespace}", values=values, environment=self._environment)

    def install(
        self, *options: str, name: str = "perseid", namespace: str = NAMESPACE, chart: Path = CHART, **values: Any
    ) -> str:
        command = ("upgrade", "--install", name, str(chart), "--create-namespace", *options)
        return self.helm(*command, values=minimal(**values), namespace=namespace)

    def get(self, kind: str, name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.cluster.kubectl("get", kind, name, "-n", namespace, "--output=json"))
        return found

    def is_there(self, kind: str, name: str, namespace: str = NAMESPACE) -> bool:
        return bool(self.cluster.kubectl("get", kind, name, "-n", namespace, "--ignore-not-found", "--output=name"))


@pytest.fixture
def releases(own_cluster: ControlPlane, tmp_path: Path) -> Iterator[Releases]:
    """A cluster that is empty, with nothing of the cluster's in the way: none that other tests share. Where those have
    theirs, the programs are built."""
    directory = tmp_path / "plane"
    directory.mkdir()
    with ControlPlane(find_or_build(os.environ, print), directory) as plane:
        yield Releases(plane, tmp_path)


def test_a_release_goes_up_with_its_crd_and_leaves_it_and_the_runs_behind(releases: Releases, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(CHART, older)
    crd = older / "files" / "manifests" / "base" / "crd.yaml"
    column = re.compile(r"        - name: Score\n(?:          .*\n)+")
    text, changed = column.subn("", crd.read_text(encoding="utf-8"))
    assert changed == 1
    crd.write_text(text, encoding="utf-8")

    def columns() -> list[str]:
        version = releases.get("crd", CRD_NAME)["spec"]["versions"][0]
        return [each["name"] for each in version["additionalPrinterColumns"]]

    def checksum() -> str:
        template = releases.get("deployment", "perseid-operator")["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/settings"]
        return found

    releases.install(chart=older)
    assert "Score" not in columns()
    wait_until_established(releases.cluster, CRD_NAME)
    releases.cluster.kubectl("apply", "--filename", SAMPLE)
    before = checksum()

    releases.install()
    assert "Score" in columns(), "no directory crds/ of a chart ever does this"
    assert checksum() == before
    releases.install(pollSeconds=20)
    assert checksum() != before
    assert releases.get("configmap", "perseid-operator-settings")["data"]["PERSEID_POLL_SECONDS"] == "20"

    releases.install(crds={"install": False})
    assert releases.is_there("crd", CRD_NAME), "a switch that is thrown must not delete every EvolutionRun"
    releases.install()
    said = releases.helm("uninstall", "perseid")
    assert f"[CustomResourceDefinition] {CRD_NAME}" in said
    assert not releases.is_there("deployment", "perseid-operator")
    assert not releases.is_there("clusterrole", "perseid-operator")
    assert releases.is_there("evolutionrun", "quickstart", "default")

    releases.install()
    assert releases.is_there("deployment", "perseid-operator")
    assert releases.is_there("evolutionrun", "quickstart", "default")


def test_what_kubectl_installed_is_taken_over_where_one_says_so(releases: Releases) -> None:
    overlay = str(REPOSITORY / "manifests" / "overlays" / "cluster-wide")
    releases.cluster.kubectl("apply", "--server-side", "--kustomize", overlay)
    uid = releases.get("crd", CRD_NAME)["metadata"]["uid"]
    with pytest.raises(HelmError, match="invalid ownership metadata"):
        releases.install()
    releases.install("--take-ownership", "--force-conflicts")
    crd = releases.get("crd", CRD_NAME)["metadata"]
    assert crd["uid"] == uid
    assert crd["annotations"]["meta.helm.sh/release-name"] == "perseid"
    assert crd["annotations"]["helm.sh/resource-policy"] == "keep"
    (container,) = releases.get("deployment", "perseid-operator")["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"][0] == {"configMapRef": {"name": "perseid-operator-settings"}}
    releases.install("--reuse-values", pollSeconds=20)


def test_a_second_release_leaves_what_is_the_clusters_to_the_first(releases: Releases) -> None:
    for team in ("team-a", "team-b"):
        releases.cluster.kubectl("create", "namespace", team)
    workflows = {"enabled": True, "namespace": "default"}
    releases.install(watchNamespaces=["team-a"], workflows=workflows)
    theirs = {"name": "second", "namespace": "second", "watchNamespaces": ["team-b"], "workflows": workflows}
    with pytest.raises(HelmError, match=r"CustomResourceDefinition.*exists and cannot be imported"):
        releases.install(**theirs)
    releases.install(**theirs, crds={"install": False}, userRoles={"create": False})
    assert releases.is_there("role", "perseid-operator", "team-a")
    assert releases.is_there("role", "perseid-operator", "team-b")
    releases.helm("uninstall", "second", namespace="second")
    assert releases.is_there("role", "perseid-operator", "team-a")
    assert releases.is_there("clusterrole", "perseid-evolutionrun-editor")
    assert not releases.is_there("role", "perseid-operator", "team-b")


def test_a_namespace_that_is_watched_must_be_there(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    # Nothing of it is the cluster's, so that the one which all tests share will do.
    none = {"crds": {"install": False}, "userRoles": {"create": False}}
    with pytest.raises(HelmError, match=f'namespaces "{namespace}-absent" not found'):
        Releases(cluster, tmp_path).install(namespace=namespace, watchNamespaces=[f"{namespace}-absent"], **none)


def test_a_stuck_run_is_let_go_as_the_notes_say(releases: Releases) -> None:
    notes = releases.install()
    (patch,) = re.findall(r"kubectl patch evolutionrun NAME .* --patch '(.*)'", notes)
    wait_until_established(releases.cluster, CRD_NAME)
    releases.cluster.kubectl("apply", "--filename", SAMPLE)
    held = json.dumps({"metadata": {"finalizers": [FINALIZER]}})
    releases.cluster.kubectl("patch", "evorun", "quickstart", "--type=merge", "--patch", held)
    releases.helm("uninstall", "perseid")
    releases.cluster.kubectl("delete", "evorun", "quickstart", "--wait=false")
    assert releases.is_there("evolutionrun", "quickstart", "default")
    releases.cluster.kubectl("patch", "evolutionrun", "quickstart", "--type=merge", "--patch", patch)
    with pytest.raises(KubectlError, match="NotFound"):
        releases.get("evolutionrun", "quickstart", "default")
