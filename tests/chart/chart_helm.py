"""The chart, as Helm renders, refuses and installs it, for tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from helm_binaries import find_clients

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts" / "perseid"
VALUE_SETS = Path(__file__).with_name("values")
RELEASE, NAMESPACE = "perseid", "perseid-system"
Values = Mapping[str, Any]


class GoYamlLoader(yaml.CSafeLoader):
    """Reads `1e-05`, as Go writes numbers, as the number that it is to Kubernetes; to PyYAML it is a text."""


GoYamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)


class HelmError(RuntimeError):
    """Helm refused; the message is what it said."""


def helm(*arguments: str, values: Values | None = None, environment: Mapping[str, str] | None = None) -> str:
    """What Helm prints. `values` come after those of the arguments. Raises HelmError."""
    given = [] if values is None else ["--values=-"]
    done = subprocess.run(
        [find_clients(os.environ).helm, *arguments, *given],
        input=json.dumps(values or {}),  # JSON is YAML.
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise HelmError(f"helm {' '.join(arguments)}: {done.stderr.strip()}\n{done.stdout.strip()}")
    return done.stdout


def value_sets() -> list[str]:
    return sorted(path.stem for path in VALUE_SETS.glob("*.yaml"))


def value_set(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((VALUE_SETS / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def render(values: Values, chart: Path = CHART) -> list[dict[str, Any]]:
    """The objects that a release would be made of, hooks included. Raises HelmError."""
    printed = helm("template", RELEASE, str(chart), f"--namespace={NAMESPACE}", values=values)
    return [each for each in yaml.load_all(printed, Loader=GoYamlLoader) if each]


@cache
def rendered(name: str) -> str:
    return json.dumps(render(value_set(name)))


def objects_of(name: str) -> list[dict[str, Any]]:
    """What a set of values is rendered to."""
    found: list[dict[str, Any]] = json.loads(rendered(name))
    return found


def minimal(**values: Any) -> dict[str, Any]:
    """Values that the chart takes, and more."""
    return {"storage": {"uri": "s3://models/perseid"}, **values}


def the(objects: Sequence[dict[str, Any]], kind: str, name: str = "perseid-operator") -> dict[str, Any]:
    found = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} {kind} {name}"
    return found[0]


def kinds(objects: Sequence[dict[str, Any]]) -> set[str]:
    """Kinds of what is installed, without the hooks."""
    return {each["kind"] for each in objects if not is_hook(each)}


def is_hook(each: Mapping[str, Any]) -> bool:
    return "helm.sh/hook" in each["metadata"].get("annotations", {})


def container(objects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    (found,) = the(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def effective_environment(objects: Sequence[dict[str, Any]], namespace: str) -> dict[str, str]:
    """The settings that the operator's process gets: those of the ConfigMap, and the container's own on top."""
    (settings,) = [
        each
        for each in objects
        if each["kind"] == "ConfigMap" and each["metadata"]["name"].startswith("perseid-operator-settings")
    ]
    own = {}
    for variable in container(objects)["env"]:
        source = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        own[variable["name"]] = namespace if source == "metadata.namespace" else variable.get("value", f"({source})")
    return {**settings["data"], **own}
