"""Alerts and dashboard say only what the operator tells. Their expressions are read with a small reader of names."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from cluster_access import Cluster
from ops_all_metrics import samples, tell_everything
from ruamel.yaml import YAML

from perseid.api.reasons import GenerationPhase, Phase
from perseid_operator.metrics import Metrics, ReconcileResult, StatusWriteResult, SubmissionResult

MONITORING = Path(__file__).parents[3] / "manifests" / "monitoring"
OVERLAYS = MONITORING.parent / "overlays"
TARGET_LABELS = {"namespace", "pod", "instance", "job"}
"""Those that Prometheus adds to whatever it scrapes from the Service."""
VALUES = {
    "perseid_operator_reconcile_total": get_args(ReconcileResult),
    "perseid_operator_status_writes_total": get_args(StatusWriteResult),
    "perseid_submissions_total": get_args(SubmissionResult),
    "perseid_generations_total": tuple(GenerationPhase),
    "perseid_evolutionruns": tuple(Phase),
}


@dataclass(frozen=True)
class Selector:
    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def load(name: str) -> Any:
    return YAML(typ="safe").load(MONITORING / name)


def rules() -> list[dict[str, Any]]:
    return [rule for group in load("prometheus-rule.yaml")["spec"]["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    return found


def expressions() -> dict[str, str]:
    alerts = {rule["alert"]: rule["expr"] for rule in rules()}
    shown = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels()
        for target in panel.get("targets", ())
    }
    return {**alerts, **shown}


def selectors(expression: str) -> list[Selector]:
    plain = re.sub(r'job="[^"]*"', "", expression)
    return [
        Selector(metric, tuple(re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers)))
        for metric, matchers in re.findall(r"\b((?:perseid|process)_\w+)\s*(?:\{([^}]*)\})?", plain)
    ]


def known() -> dict[str, set[str]]:
    """Every series' name with its labels."""
    metrics = Metrics()
    tell_everything(metrics)
    names: dict[str, set[str]] = {}
    for name, labels in samples(metrics):
        names.setdefault(name, set()).update(label for label, _ in labels)
    return names


@pytest.mark.parametrize("where", expressions())
def test_alerts_and_dashboard_name_only_metrics_and_labels_that_there_are(where: str) -> None:
    names = known()
    named = selectors(expressions()[where])
    assert named
    labels = set(TARGET_LABELS)
    for selector in named:
        assert selector.metric in names, selector.metric
        labels |= names[selector.metric]
        for label, operator, value in selector.matchers:
            assert label in names[selector.metric] | TARGET_LABELS, label
            if operator == "=" and label in {"result", "phase"}:
                assert value in VALUES[selector.metric]
    for grouped in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expressions()[where]):
        assert {label.strip() for label in grouped.split(",")} <= labels


def test_counters_are_asked_for_their_rate_and_nothing_else_is() -> None:
    for where, expression in expressions().items():
        for function, inner in re.findall(r"\b(rate|increase)\((\w+)", expression):
            assert re.search(r"_(total|count|sum|bucket)$", inner), (where, function)
        for total in re.findall(r"\w+_total\b(?:\{[^}]*\})?", expression):
            assert re.search(rf"(rate|increase)\({re.escape(total)}\[\d+[mhd]\]\)", expression), (where, total)


def test_the_reader_of_names_sees_what_is_wrong() -> None:
    assert selectors('rate(perseid_absent_total{a="b", c!~"d"}[5m])') == [
        Selector("perseid_absent_total", (("a", "=", "b"), ("c", "!~", "d")))
    ]


def test_there_is_an_alert_for_each_trouble_and_it_says_what_to_do() -> None:
    alerts = {rule["alert"]: rule for rule in rules()}
    assert set(alerts) == {
        "PerseidOperatorAbsent",
        "PerseidOperatorRestarts",
        "PerseidKfpUnreachable",
        "PerseidPollStale",
        "PerseidReconcileErrors",
        "PerseidStatusWritesFail",
        "PerseidEventLoopLag",
        "PerseidSubmissionAmbiguous",
        "PerseidRunStalled",
    }
    for name, rule in alerts.items():
        assert rule["labels"]["severity"] in {"critical", "warning"}, name
        assert rule["annotations"]["summary"].rstrip().endswith("."), name
        assert len(rule["annotations"]["description"]) > 150, name
    # One is enough, and it is over when it is told: waiting would only hide it.
    assert "for" not in alerts["PerseidSubmissionAmbiguous"]


def test_an_alert_shows_only_labels_that_its_expression_leaves() -> None:
    for rule in rules():
        shown = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        grouped = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
        left = TARGET_LABELS if not grouped else {label.strip() for group in grouped for label in group.split(",")}
        assert shown <= left - {"le"}, rule["alert"]


def test_settings_and_paths_that_an_alert_speaks_of_are_there() -> None:
    from perseid_operator.settings import VARIABLES

    text = " ".join(" ".join(rule["annotations"].values()) for rule in rules())
    assert set(re.findall(r"PERSEID_\w+", text)) <= set(VARIABLES)
    for path in re.findall(r"manifests/[\w/.-]+\w", text):
        assert (MONITORING.parents[1] / path).is_file(), path


def test_panels_have_a_place_of_their_own_and_a_number_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_prometheus_finds_the_port_of_the_operator_by_the_service() -> None:
    service, monitor = load("service.yaml"), load("service-monitor.yaml")
    deployment = YAML(typ="safe").load(MONITORING.parent / "base" / "deployment.yaml")["spec"]["template"]
    chosen = monitor["spec"]["selector"]["matchLabels"]
    assert chosen.items() <= service["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= deployment["metadata"]["labels"].items()
    (endpoint,), (port,) = monitor["spec"]["endpoints"], service["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    ports = {one["name"] for one in deployment["spec"]["containers"][0]["ports"]}
    assert port["targetPort"] in ports
    assert endpoint["honorLabels"], "else the runs' namespace is hidden by the operator's"


@pytest.mark.slow  # Needs the kubectl of a cluster, which has to be built first.
def test_kustomize_adds_the_component_to_an_overlay(cluster: Cluster, tmp_path: Path) -> None:
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "perseid-system",
        "resources": [os.path.relpath(OVERLAYS / "cluster-wide", tmp_path)],
        "components": [os.path.relpath(MONITORING, tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(json.dumps(overlay), encoding="utf-8")
    built = [one for one in YAML(typ="safe").load_all(cluster.kubectl("kustomize", str(tmp_path))) if one]
    ours = {
        one["kind"]: one
        for one in built
        if one["kind"] in {"Service", "ServiceMonitor", "PrometheusRule"} or "dashboard" in one["metadata"]["name"]
    }
    assert set(ours) == {"Service", "ServiceMonitor", "PrometheusRule", "ConfigMap"}
    assert {one["metadata"]["namespace"] for one in ours.values()} == {"perseid-system"}
    assert ours["ConfigMap"]["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(ours["ConfigMap"]["data"]["perseid-operator.json"])["uid"] == "perseid-operator"
    service = json.dumps(ours["Service"]).replace("perseid-system", "default")
    assert "created" in cluster.kubectl("create", "--dry-run=server", "-f", "-", input=service)
