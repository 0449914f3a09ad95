"""What the values do: each switch and list, seen in what is rendered."""

from __future__ import annotations

import json
import re
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_helm import (
    CHART,
    NAMESPACE,
    REPOSITORY,
    HelmError,
    container,
    effective_environment,
    helm,
    is_hook,
    kinds,
    minimal,
    objects_of,
    render,
    the,
    value_set,
    value_sets,
)

from perseid_operator.objects import FINALIZER
from perseid_operator.settings import VARIABLES, Settings, load_settings

DIGEST = f"sha256:{'1' * 64}"


def pod(objects: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = the(objects, "Deployment")["spec"]["template"]
    return found


def settings_of(objects: list[dict[str, Any]], directory: Path) -> Settings:
    """The settings as the operator reads them in its pod, where the files that they name are mounted."""
    namespace_file = directory / "namespace"
    namespace_file.write_text(NAMESPACE, encoding="ascii")
    environment = effective_environment(objects, NAMESPACE)
    if "PERSEID_KFP_CA_FILE" in environment:
        environment["PERSEID_KFP_CA_FILE"] = str(namespace_file)
    return load_settings(environment, namespace_file)


def leaves(values: dict[str, Any], above: str = "") -> set[str]:
    """Dotted paths of what is no mapping of ours."""
    found = set()
    for key, value in values.items():
        path = f"{above}.{key}" if above else key
        found |= leaves(value, path) if isinstance(value, dict) and value else {path}
    return found


def schema_leaves(schema: dict[str, Any], definitions: dict[str, Any], above: str = "") -> set[str]:
    """The same of a schema. An open mapping (labels, a list of the user's own) is a leaf."""
    found = set()
    for key, part in schema["properties"].items():
        resolved = definitions[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        path = f"{above}.{key}" if above else key
        found |= schema_leaves(resolved, definitions, path) if "properties" in resolved else {path}
    return found


@pytest.mark.parametrize("name", value_sets())
def test_helm_lint_finds_nothing_even_when_it_is_strict(name: str) -> None:
    printed = helm("lint", "--strict", str(CHART), values=value_set(name))
    assert "1 chart(s) linted, 0 chart(s) failed" in printed
    assert "[WARNING]" not in printed
    assert "[ERROR]" not in printed


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, "perseid-operator:{version}"),
        ({"tag": "1.0"}, "perseid-operator:1.0"),
        ({"digest": DIGEST}, f"perseid-operator@{DIGEST}"),
        ({"tag": "1.0", "digest": DIGEST}, f"perseid-operator@{DIGEST}"),
    ],
)
def test_the_digest_of_an_image_wins_over_its_tag(image: dict[str, str], expected: str) -> None:
    objects = render(minimal(image=image))
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
    assert container(objects)["image"] == expected.format(version=version)
    test = the(objects, "Pod", "perseid-operator-test")
    assert test["spec"]["containers"][0]["image"] == container(objects)["image"]


@pytest.mark.parametrize(
    ("operator", "stages", "expected"),
    [
        ({}, {}, "perseid-stage:{version}"),
        (
            {"repository": "images.example.org/ml/perseid-operator", "tag": "1"},
            {},
            "images.example.org/ml/perseid-stage:1",
        ),
        ({"repository": "localhost:5000/operator", "digest": DIGEST}, {}, "localhost:5000/perseid-stage:{version}"),
        ({"tag": "1"}, {"repository": "other/stage", "tag": "2"}, "other/stage:2"),
        ({"tag": "1"}, {"tag": "2", "digest": DIGEST}, f"perseid-stage@{DIGEST}"),
    ],
)
def test_stages_run_in_the_image_beside_the_operators_unless_another_is_named(
    operator: dict[str, str], stages: dict[str, str], expected: str, tmp_path: Path
) -> None:
    settings = settings_of(render(minimal(image=operator, stages={"image": stages})), tmp_path)
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
    assert settings.stages.image == expected.format(version=version)


def test_stages_get_the_storages_variables_unless_the_values_give_them_others(tmp_path: Path) -> None:
    storage = [{"name": "AWS_REGION", "value": "eu"}, {"name": "AWS_ENDPOINT", "value": "http://s3:9000"}]
    stages = {
        "env": [{"name": "AWS_REGION", "value": "<a & b>"}],
        "secretEnv": [{"name": "AWS_ACCESS_KEY_ID", "secret": "s3", "key": "id"}],
    }
    objects = render({"storage": {"uri": "s3://models", "env": storage}, "stages": stages})
    settings = settings_of(objects, tmp_path).stages
    assert {one.name: one.value for one in settings.env} == {"AWS_REGION": "<a & b>", "AWS_ENDPOINT": "http://s3:9000"}
    assert [(one.name, one.secret, one.key) for one in settings.secret_env] == [("AWS_ACCESS_KEY_ID", "s3", "id")]
    assert pod(objects) != pod(render({"storage": {"uri": "s3://models", "env": storage}}))


def test_an_operator_of_some_namespaces_gets_a_role_in_each_and_none_in_the_cluster(tmp_path: Path) -> None:
    objects = objects_of("namespaced")
    assert not {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"} & kinds(objects)
    for namespace in ("team-a", "team-b"):
        here = [each for each in objects if each["metadata"].get("namespace") == namespace]
        assert sorted(each["kind"] for each in here) == ["Role", "RoleBinding"]
        binding = the(here, "RoleBinding")
        assert binding["roleRef"] == {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": "perseid-operator",
        }
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "perseid-operator", "namespace": NAMESPACE}]
    assert settings_of(objects, tmp_path).watch_namespaces == ("team-a", "team-b")


def test_workflows_of_one_namespace_are_a_role_there_and_nothing_elsewhere(tmp_path: Path) -> None:
    objects = render(minimal(workflows={"enabled": True, "namespace": "kubeflow"}))
    role = the(objects, "Role", f"perseid-operator-workflows-{NAMESPACE}")
    assert role["metadata"]["namespace"] == "kubeflow"
    assert role["rules"] == [{"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["list", "delete"]}]
    assert "argoproj.io" not in str(the(objects, "ClusterRole"))
    assert settings_of(objects, tmp_path).workflows_namespace == "kubeflow"


@pytest.mark.parametrize("name", value_sets())
def test_the_operator_takes_the_settings_of_every_set(name: str, tmp_path: Path) -> None:
    values, settings = value_set(name), settings_of(objects_of(name), tmp_path)
    assert settings.storage == values["storage"]["uri"]
    assert settings.leader_election == (values.get("replicas", 1) > 1)
    assert settings.http_port == container(objects_of(name))["ports"][0]["containerPort"]


def test_every_setting_of_the_operator_is_given_by_a_value() -> None:
    everything = {name for each in value_sets() for name in effective_environment(objects_of(each), NAMESPACE)}
    left = set(VARIABLES) - everything
    # What the operator finds out for itself, and a port that Service and probes agree on.
    assert left == {"PERSEID_WORKFLOWS", "PERSEID_LEASE_NAMESPACE", "PERSEID_HTTP_PORT"}


def test_no_variable_of_the_operator_can_be_given_twice() -> None:
    text = (CHART / "templates" / "_checks.tpl").read_text(encoding="utf-8")
    owned = set(re.findall(r'^  "(PERSEID_\w+)" "', text, re.MULTILINE))
    assert owned == set(VARIABLES) - {"PERSEID_WORKFLOWS"}


def test_several_replicas_share_a_lease_and_are_kept_apart_and_one_needs_none_of_it() -> None:
    one, three = objects_of("default"), objects_of("ha")
    more = {"PodDisruptionBudget", "Role", "RoleBinding"}
    assert kinds(three) - kinds(one) == more
    assert the(one, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert "topologySpreadConstraints" not in pod(one)["spec"]
    assert the(three, "Deployment")["spec"]["strategy"]["type"] == "RollingUpdate"
    assert the(three, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    spread = pod(three)["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    for selector in (
        the(three, "PodDisruptionBudget")["spec"]["selector"],
        *(each["labelSelector"] for each in spread),
    ):
        assert selector["matchLabels"].items() <= pod(three)["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("values", "restarts"),
    [
        ({"pollSeconds": 20}, True),
        ({"kfp": {"uiUrl": "https://kubeflow.example.org/_/pipeline"}}, True),
        ({"stages": {"serviceAccount": "stages"}}, True),
        ({"monitoring": {"dashboard": {"enabled": True}}}, False),
        ({"workflows": {"enabled": True}}, False),
    ],
)
def test_other_settings_make_another_pod_and_other_objects_do_not(values: dict[str, Any], restarts: bool) -> None:
    assert (pod(render(minimal(**values))) != pod(objects_of("default"))) == restarts


def test_a_token_for_many_users_is_projected_where_the_operator_reads_it() -> None:
    objects = objects_of("multi-user")
    (volume,) = [each for each in pod(objects)["spec"]["volumes"] if each["name"] == "kfp-token"]
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"
    (mount,) = [each for each in container(objects)["volumeMounts"] if each["name"] == "kfp-token"]
    token = effective_environment(objects, NAMESPACE)["PERSEID_KFP_TOKEN_FILE"]
    assert token == f"{mount['mountPath']}/{source['serviceAccountToken']['path']}"
    (mount,) = [each for each in container(objects)["volumeMounts"] if each["name"] == "kfp-ca"]
    (volume,) = [each for each in pod(objects)["spec"]["volumes"] if each["name"] == "kfp-ca"]
    authority = effective_environment(objects, NAMESPACE)["PERSEID_KFP_CA_FILE"]
    assert authority == f"{mount['mountPath']}/{volume['configMap']['items'][0]['path']}"


def test_a_secret_that_is_named_must_be_there_and_the_one_that_is_not_may_be_missing() -> None:
    named = render(minimal(storage={"uri": "s3://models", "existingSecret": "s3"}))
    assert container(named)["envFrom"][1] == {"secretRef": {"name": "s3", "optional": False}}
    unnamed = container(objects_of("default"))["envFrom"][1]
    assert unnamed == {"secretRef": {"name": "perseid-operator-storage", "optional": True}}


@pytest.mark.parametrize(
    ("endpoint", "namespace", "port"),
    [
        ("http://ml-pipeline.kubeflow.svc:8888", "kubeflow", 8888),
        ("http://ml-pipeline.kubeflow.svc.cluster.local:8888/pipeline", "kubeflow", 8888),
        ("http://ml-pipeline.kubeflow.svc", "kubeflow", 80),
        ("http://kubeflow.example.org", None, 80),
        ("https://kubeflow.example.org:8443/pipeline", None, 8443),
    ],
)
def test_the_network_policy_lets_the_operator_reach_the_endpoint(
    endpoint: str, namespace: str | None, port: int
) -> None:
    policy = the(render(minimal(networkPolicy={"enabled": True}, kfp={"endpoint": endpoint})), "NetworkPolicy")["spec"]
    (rule,) = [
        each for each in policy["egress"] if each["ports"] == [{"port": port}] and ("to" in each) == bool(namespace)
    ]
    if namespace:
        (peer,) = rule["to"]
        assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": namespace}


@pytest.mark.parametrize("place", ["storage.env", "extraEnv"])
@pytest.mark.parametrize(
    ("variable", "value", "port"),
    [
        ("AWS_REGION", "eu-central-1", 443),
        ("AWS_ENDPOINT", "http://s3.example.org:9000", 9000),
        ("AWS_ENDPOINT_URL", "http://s3.example.org", 80),
        ("AWS_ENDPOINT_URL_S3", "https://s3.example.org:8333/", 8333),
    ],
)
def test_the_network_policy_lets_the_operator_reach_the_storages_endpoint(
    variable: str, value: str, port: int, place: str
) -> None:
    env = [{"name": variable, "value": value}]
    storage = {"uri": "s3://models", "env": env if place == "storage.env" else []}

    def storage_ports(**policy: Any) -> list[dict[str, int]]:
        more = {"extraEnv": env} if place == "extraEnv" else {}
        objects = render({"storage": storage, "networkPolicy": {"enabled": True, **policy}, **more})
        found: list[dict[str, int]] = the(objects, "NetworkPolicy")["spec"]["egress"][-1]["ports"]
        return found

    assert storage_ports() == [{"port": port}]
    assert storage_ports(storage={"ports": [1234]}) == [{"port": 1234}], "pods may listen elsewhere than their Service"


def test_the_network_policy_leaves_out_a_storage_that_is_a_directory_and_lets_probes_in() -> None:
    wide, directory = (
        the(render({"storage": {"uri": uri}, "networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]
        for uri in ("s3://models", "/mnt/models")
    )
    assert len(wide["egress"]) - len(directory["egress"]) == 1
    assert wide["ingress"] == [{"ports": [{"port": "http"}]}]
    assert wide["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("name", value_sets())
def test_everything_but_what_is_the_clusters_says_its_namespace_and_whose_it_is(name: str) -> None:
    of_the_cluster = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
    for each in objects_of(name):
        assert ("namespace" in each["metadata"]) == (each["kind"] not in of_the_cluster), each["kind"]
        assert each["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "perseid"


@pytest.mark.parametrize("name", value_sets())
def test_the_account_of_helm_test_may_try_to_create_evolution_runs_and_nothing_else(name: str) -> None:
    hooks = [each for each in objects_of(name) if is_hook(each)]
    assert {each["metadata"]["name"] for each in hooks} == {"perseid-operator-test"}
    assert {each["kind"] for each in hooks} == {"Pod", "ServiceAccount", "Role", "RoleBinding", "ConfigMap"}
    role = the(hooks, "Role", "perseid-operator-test")
    assert role["rules"] == [{"apiGroups": ["perseid.dev"], "resources": ["evolutionruns"], "verbs": ["create"]}]
    assert the(hooks, "Pod", "perseid-operator-test")["spec"]["serviceAccountName"] == "perseid-operator-test"


def test_the_pod_of_helm_test_is_none_of_the_operators() -> None:
    objects = objects_of("default")
    service = the(objects, "Service", "perseid-operator-metrics")
    labels = the(objects, "Pod", "perseid-operator-test")["metadata"]["labels"]
    assert not service["spec"]["selector"].items() <= labels.items()
    (address,) = re.findall(r"http://([\w.-]+):(\d+)/readyz", str(the(objects, "Pod", "perseid-operator-test")))
    assert address == (f"{service['metadata']['name']}.{NAMESPACE}.svc", str(service["spec"]["ports"][0]["port"]))


def test_prometheus_finds_the_operator_by_the_service_and_under_the_name_that_the_alerts_ask_for() -> None:
    objects = objects_of("everything")
    monitor, service = the(objects, "ServiceMonitor"), the(objects, "Service", "perseid-operator-metrics")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= pod(objects)["metadata"]["labels"].items()
    ports = {each["name"]: each["containerPort"] for each in container(objects)["ports"]}
    assert ports[service["spec"]["ports"][0]["targetPort"]] == 8080
    asked = set(re.findall(r'job="([^"]+)"', str(the(objects, "PrometheusRule"))))
    assert asked == {service["metadata"]["name"]}


def test_the_notes_say_what_comes_next_and_how_a_stuck_object_is_let_go() -> None:
    def notes(**values: Any) -> str:
        command = ("install", "perseid", str(CHART), "--dry-run=client", f"--namespace={NAMESPACE}")
        return helm(*command, values=minimal(**values)).partition("NOTES:")[2]

    for text in (notes(), notes(watchNamespaces=["team-a"])):
        commands = [line.strip() for line in text.splitlines() if line.startswith("  ")]
        assert [command.split()[0:2] for command in commands[:3]] == [
            ["helm", "test"],
            ["kubectl", "apply"],
            ["kubectl", "get"],
        ]
        assert """'{"metadata":{"finalizers":null}}'""" in text
    assert FINALIZER not in notes(), "the command takes all finalizers, so it needs no name"
    assert "--namespace team-a" in notes(watchNamespaces=["team-a"])
    assert "kubeflow-pipelines-edit" not in notes()
    assert "kubeflow-pipelines-edit" in notes(kfp={"namespace": "profile-a", "token": {"enabled": True}})


def test_values_and_schema_know_the_same_keys() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    known = schema_leaves(schema, schema["definitions"]) - {"global", "resources.claims"}
    open_mappings = {"resources.requests", "resources.limits", "monitoring.dashboard.labels"}
    shown = {next((whole for whole in open_mappings if path.startswith(whole)), path) for path in leaves(values)}
    assert known == shown


def test_the_chart_has_the_version_of_the_distribution_as_semver_writes_it() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert chart["appVersion"] == version
    assert chart["version"] == re.sub(r"\.dev(\d+)$", r"-dev.\1", version)


def test_kubernetes_is_refused_where_it_is_too_old() -> None:
    def template(version: str) -> str:
        return helm("template", "perseid", str(CHART), f"--kube-version={version}", values=minimal())

    assert template("1.29.0-gke.100")
    with pytest.raises(HelmError, match="incompatible with Kubernetes"):
        template("1.28.9")


def test_what_is_packaged_is_what_is_needed_and_small(tmp_path: Path) -> None:
    helm("package", str(CHART), f"--destination={tmp_path}")
    (archive,) = tmp_path.iterdir()
    with tarfile.open(archive) as packaged:
        names = {name.removeprefix("perseid/") for name in packaged.getnames()}
    there = {
        str(path.relative_to(CHART)) for path in CHART.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == there
    assert archive.stat().st_size < 500_000, "a release, in a Secret of a megabyte, has the chart in it"
