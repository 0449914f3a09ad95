"""Wrong values are refused before anything is installed, and the message names the key."""

from __future__ import annotations

from typing import Any

import pytest
from chart_helm import HelmError, minimal, render, value_set

WRONG: list[tuple[str, Any, str]] = [
    # Keys that are none, at every level; the message names them.
    ("replicaCount", 2, "'replicaCount' not allowed"),
    ("image.tga", "1", "'tga' not allowed"),
    ("crds.keep", True, "'keep' not allowed"),
    ("userRoles.enabled", True, "'enabled' not allowed"),
    ("kfp.url", "http://kfp", "'url' not allowed"),
    ("kfp.token.file", "/token", "'file' not allowed"),
    ("kfp.ca.secret", "ca", "'secret' not allowed"),
    ("storage.url", "s3://bucket", "'url' not allowed"),
    ("storage.env", [{"name": "AWS_REGION", "value": "eu", "secret": "s"}], "'secret' not allowed"),
    ("stages.resources", {}, "'resources' not allowed"),
    ("stages.image.pullPolicy", "Always", "'pullPolicy' not allowed"),
    ("workflows.enable", True, "'enable' not allowed"),
    ("trainJobs.namespaces", ["a"], "'namespaces' not allowed"),
    ("log.levl", "INFO", "'levl' not allowed"),
    ("serviceAccount.name", "other", "'name' not allowed"),
    ("resources.limit", {}, "'limit' not allowed"),
    ("networkPolicy.egress", [], "'egress' not allowed"),
    ("networkPolicy.storage.port", 443, "'port' not allowed"),
    ("networkPolicy.kfp.cidr", "10.0.0.0/8", "'cidr' not allowed"),
    ("networkPolicy.metrics.to", [], "'to' not allowed"),
    ("monitoring.podMonitor", {}, "'podMonitor' not allowed"),
    ("monitoring.serviceMonitor.scheme", "https", "'scheme' not allowed"),
    ("monitoring.prometheusRule.rules", [], "'rules' not allowed"),
    ("monitoring.dashboard.folder", "x", "'folder' not allowed"),
    # Values that are none; the message names the key, and what is allowed.
    ("image.digest", "sha256:abc", "/image/digest"),
    ("image.digest", "0" * 64, "/image/digest"),
    ("image.tag", 1.0, "/image/tag"),
    ("image.repository", "", "/image/repository"),
    ("image.pullPolicy", "always", "/image/pullPolicy"),
    ("imagePullSecrets", ["images"], "/imagePullSecrets/0"),
    ("replicas", 0, "/replicas"),
    ("replicas", "2", "/replicas"),
    ("crds.install", "yes", "/crds/install"),
    ("watchNamespaces", "team-a", "/watchNamespaces"),
    ("watchNamespaces", ["Team_A"], "/watchNamespaces/0"),
    ("watchNamespaces", ["a", "a"], "/watchNamespaces"),
    ("kfp.endpoint", "ml-pipeline:8888", "/kfp/endpoint"),
    ("kfp.endpoint", "http://user:password@kfp", "/kfp/endpoint"),
    ("kfp.namespace", "a,b", "/kfp/namespace"),
    ("kfp.uiUrl", "kubeflow.example.org", "/kfp/uiUrl"),
    ("kfp.uiUrl", "https://kubeflow.example.org/_/pipeline/?ns=team", "/kfp/uiUrl"),
    ("kfp.timeoutSeconds", 0, "/kfp/timeoutSeconds"),
    ("kfp.token.enabled", "true", "/kfp/token/enabled"),
    ("kfp.token.expirationSeconds", 60, "/kfp/token/expirationSeconds"),
    ("storage.uri", "bucket/prefix", "/storage/uri"),
    ("storage.uri", "gs://bucket", "/storage/uri"),
    ("storage.env", {"AWS_REGION": "eu"}, "/storage/env"),
    ("storage.env", [{"name": "AWS_REGION"}], "/storage/env/0"),
    ("storage.existingSecret", "Not A Name", "/storage/existingSecret"),
    ("stages.image.digest", "1.0", "/stages/image/digest"),
    ("stages.env", [{"name": "A"}], "/stages/env/0"),
    ("stages.secretEnv", [{"name": "A", "secret": "s"}], "/stages/secretEnv/0"),
    ("stages.imagePullSecrets", ["registry"], "/stages/imagePullSecrets/0"),
    ("stages.serviceAccount", "Not A Name", "/stages/serviceAccount"),
    ("workflows.namespace", "Kubeflow", "/workflows/namespace"),
    ("trainJobs.namespace", "", "/trainJobs/namespace"),
    ("trainJobs.serviceAccounts", [], "/trainJobs/serviceAccounts"),
    ("trainJobs.serviceAccounts", ["A b"], "/trainJobs/serviceAccounts/0"),
    ("pollSeconds", 0, "/pollSeconds"),
    ("pollSeconds", "15", "/pollSeconds"),
    ("cleanupSeconds", 86401, "/cleanupSeconds"),
    ("log.level", "TRACE", "/log/level"),
    ("log.format", "yaml", "/log/format"),
    ("extraEnv", [{"name": "not a name", "value": "x"}], "/extraEnv/0/name"),
    ("extraEnv", [{"value": "x"}], "/extraEnv/0"),
    ("podLabels", {"a": 1}, "/podLabels/a"),
    ("nodeSelector", ["a"], "/nodeSelector"),
    ("networkPolicy.enabled", 1, "/networkPolicy/enabled"),
    ("networkPolicy.storage.ports", [70000], "/networkPolicy/storage/ports/0"),
    ("networkPolicy.dns.ports", [], "/networkPolicy/dns/ports"),
    ("monitoring.serviceMonitor.interval", "30", "/monitoring/serviceMonitor/interval"),
]
TOGETHER: list[tuple[dict[str, Any], str]] = [
    ({"storage.uri": ""}, "storage.uri is not set: give s3://bucket/prefix"),
    ({"workflows.enabled": True, "watchNamespaces": ["a"]}, "workflows.enabled needs workflows.namespace"),
    ({"workflows.namespace": "kubeflow"}, "workflows.enabled is false: set it to true"),
    ({"pollSeconds": 200}, "lostRunSeconds (300) is less than two rounds of pollSeconds (200)"),
    ({"kfp.timeoutSeconds": 60}, "submitGraceSeconds (60) is no more than kfp.timeoutSeconds (60)"),
    ({"extraEnv": [{"name": "PERSEID_STORAGE", "value": "/x"}]}, "PERSEID_STORAGE, which belongs to storage.uri"),
    ({"storage.env": [{"name": "POD_NAME", "value": "x"}]}, "storage.env sets POD_NAME, which belongs to the chart"),
    (
        {"extraEnv": [{"name": "A", "value": "1"}], "storage.env": [{"name": "A", "value": "2"}]},
        "A is set twice, in extraEnv and in storage.env",
    ),
    ({"podLabels": {"app.kubernetes.io/name": "x"}}, "podLabels sets app.kubernetes.io/name, which belongs to"),
    ({"podAnnotations": {"checksum/settings": "x"}}, "podAnnotations sets checksum/settings, which belongs to"),
]


def values_with(settings: dict[str, Any]) -> dict[str, Any]:
    """Values that would do, but for some at dotted paths."""
    values: dict[str, Any] = minimal()
    for path, value in settings.items():
        *above, last = path.split(".")
        place = values
        for key in above:
            place = place.setdefault(key, {})
        place[last] = value
    return values


@pytest.mark.parametrize(("path", "value", "says"), WRONG)
def test_the_schema_refuses_it_and_names_the_key(path: str, value: Any, says: str) -> None:
    with pytest.raises(HelmError) as refusal:
        render(values_with({path: value}))
    assert says in str(refusal.value)
    assert "schema" in str(refusal.value)


@pytest.mark.parametrize(("settings", "says"), TOGETHER)
def test_values_that_do_not_go_together_are_refused_with_what_to_do(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(HelmError) as refusal:
        render(values_with(settings))
    assert says in str(refusal.value)


def test_the_values_that_the_wrong_ones_are_put_into_would_do() -> None:
    assert render(values_with({}))
    assert render(values_with({"global": {"anything": 1}})), "a chart above this one hands its own globals down"


def test_no_text_gets_out_of_its_place_in_the_yaml() -> None:
    values = value_set("everything")
    values["priorityClassName"] = "a\n      hostNetwork: true"
    with pytest.raises(HelmError, match="/priorityClassName"):
        render(values)
