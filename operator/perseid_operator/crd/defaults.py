"""How the API server fills in defaults, and how little of them has to be written out."""

from __future__ import annotations

import copy
from typing import Any

from perseid_operator.crd.schema import Schema, walk


def without_nulls(value: Any) -> Any:
    """The value without the fields that are null: a field of a resource is absent, not null."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def completed(value: Any, schema: Schema) -> Any:
    """The value as the API server stores it: defaults inside everything that is present, from the outside inwards."""
    if isinstance(value, list):
        return [completed(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    result = dict(value)
    properties = schema.get("properties", {})
    for name, child in properties.items():
        if "default" in child and result.get(name) is None:
            result[name] = copy.deepcopy(child["default"])
    values = schema.get("additionalProperties", {})
    return {name: completed(item, properties.get(name, values)) for name, item in result.items()}


def shorten_defaults(root: Schema) -> None:
    """Write `{}` for the default of an object where the defaults inside say the rest.

    Not where rules stand below it: the API server asks them of the default as it is written, before it fills it in.
    """
    for _, node in walk(root):
        if "properties" not in node or not node.get("default"):
            continue
        has_rules = any("x-kubernetes-validations" in below for _, below in walk(node))
        if not has_rules and completed({}, node) == node["default"]:
            node["default"] = {}
