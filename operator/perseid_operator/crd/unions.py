"""Fields that take values of more than one type, which structural schemas hardly know.

`x-kubernetes-int-or-string` covers numbers beside words. For the others the node has no type, which Kubernetes allows
only together with `x-kubernetes-preserve-unknown-fields`; every type that the models do not allow is then refused by
constraints that no value of that type satisfies, so that nothing unknown can hide below such a field.
"""

from __future__ import annotations

import re
from typing import Any

from perseid_operator.crd.schema import Schema

_NO_VALUE_OF: dict[str, Schema] = {
    "string": {"minLength": 1, "maxLength": 0},
    "number": {"minimum": 1, "maximum": 0},
    "array": {"minItems": 1, "maxItems": 0},
    "object": {"minProperties": 1, "maxProperties": 0},
}
"""Each keyword speaks of values of that type only; together they refuse all of them."""


def literals(values: list[Any]) -> Schema:
    """The schema of a closed set of values, of one type or of several."""
    kinds = {_kind(value) for value in values}
    if len(kinds) == 1:
        return {"type": kinds.pop(), "enum": values}
    if kinds == {"string", "integer"}:
        return {"x-kubernetes-int-or-string": True, "enum": values}
    return {"x-kubernetes-preserve-unknown-fields": True, "enum": values}


def union(alternatives: list[Schema]) -> Schema:
    """The schema of what any of the alternatives allows. Raises ValueError where Kubernetes cannot say it."""
    closed = [_closed_set(alternative) for alternative in alternatives]
    known = [values for values in closed if values is not None]
    if len(known) == len(alternatives):
        return literals([value for values in known for value in values])
    by_type: dict[str, Schema] = {}
    for alternative in alternatives:
        kind = alternative.get("type", "")
        if kind in by_type or kind not in (*_NO_VALUE_OF, "integer", "boolean"):
            raise ValueError(f"is a choice between two forms of {kind or 'a union'} has no structural schema")
        by_type[kind] = _constraints(alternative)
    merged: Schema = {}
    for constraints in by_type.values():
        merged.update(constraints)
    if set(by_type) == {"integer", "string"}:
        return {"x-kubernetes-int-or-string": True, **merged}
    if "integer" in by_type:
        raise ValueError("is a choice between whole numbers and anything but texts has no structural schema")
    for kind, impossible in _NO_VALUE_OF.items():
        if kind not in by_type:
            merged.update(impossible)
    refused = [*([] if "boolean" in by_type else [True, False]), None]
    return {"x-kubernetes-preserve-unknown-fields": True, **merged, "not": {"enum": refused}}


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case _:
            return "string"


def _closed_set(schema: Schema) -> list[Any] | None:
    if "enum" in schema:
        return list(schema["enum"])
    return [True, False] if schema.get("type") == "boolean" else None


def _constraints(schema: Schema) -> Schema:
    """What the alternative asks of a value of its type, in keywords that say nothing about other types."""
    if "enum" in schema:
        words = [str(value) for value in schema["enum"]]
        return {"pattern": f"^({'|'.join(map(re.escape, words))})$", "maxLength": max(map(len, words))}
    if "properties" in schema or "additionalProperties" in schema:
        raise ValueError("is a choice between a mapping and something else has no structural schema")
    return {key: value for key, value in schema.items() if key not in ("type", "x-kubernetes-list-type")}
