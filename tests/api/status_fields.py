"""The fields of a status, as clusters hold them: what later versions must be able to read.

    python tests/api/status_fields.py > tests/api/status_fields.json

writes them down anew, after a field was added, or one was changed together with a conversion of old statuses.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from perseid.api.status import EvolutionRunStatus

Fields = dict[str, dict[str, Any]]
"""By path, `generations[].attempts[].runId`: what a value may be, and how much of it."""
LIMITS = ("maxLength", "maxItems", "maxProperties", "maximum", "exclusiveMaximum")
LEAST = ("minLength", "minItems", "minimum", "exclusiveMinimum")
_FACTS = ("type", "format", "enum", "const", "pattern", *LIMITS, *LEAST)


def status_fields() -> Fields:
    """Those of this version."""
    return fields_of(EvolutionRunStatus.model_json_schema(by_alias=True))


def fields_of(schema: dict[str, Any]) -> Fields:
    """Those of a JSON schema."""
    return dict(_walk(schema, schema.get("$defs", {}), "", required=True))


def _walk(schema: dict[str, Any], models: dict[str, Any], path: str, *, required: bool) -> Iterator[tuple[str, Any]]:
    schema, may_be_null = _resolved(schema, models)
    if path:
        facts = {name: schema[name] for name in _FACTS if name in schema}
        if isinstance(facts.get("enum"), list):
            facts["enum"] = sorted(facts["enum"])
        yield path, {**facts, "required": required, "nullable": may_be_null}
    for name, inner in schema.get("properties", {}).items():
        below = f"{path}.{name}" if path else name
        yield from _walk(inner, models, below, required=name in schema.get("required", []))
    if "items" in schema:
        yield from _walk(schema["items"], models, f"{path}[]", required=True)
    if isinstance(schema.get("additionalProperties"), dict):
        if "propertyNames" in schema:
            yield from _walk(schema["propertyNames"], models, f"{path}{{name}}", required=True)
        yield from _walk(schema["additionalProperties"], models, f"{path}{{}}", required=True)


def _resolved(schema: dict[str, Any], models: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The schema itself, whatever stands around it, and whether its value may be null."""
    may_be_null = False
    while True:
        if "$ref" in schema:
            schema = models[schema["$ref"].removeprefix("#/$defs/")]
        elif "anyOf" in schema or "allOf" in schema:
            choices = [one for one in schema.get("anyOf", schema.get("allOf")) if one.get("type") != "null"]
            may_be_null = may_be_null or len(choices) < len(schema.get("anyOf", schema.get("allOf")))
            if len(choices) != 1:
                raise ValueError(f"a field of several kinds, which nothing here can compare: {schema}")
            (schema,) = choices
        else:
            return schema, may_be_null


def differences(old: Fields, new: Fields) -> list[str]:
    """Why statuses of the old kind could not be read, or not be kept, by the new. Empty where they can."""
    found = [f"{path} is gone: what old statuses say there would be lost" for path in old if path not in new]
    found += [
        f"{path} is new and required: old statuses lack it"
        for path in new
        if path not in old and _needed(new, old, path)
    ]
    for path in old.keys() & new.keys():
        found += [f"{path}: {why}" for why in _narrower(old[path], new[path])]
    return sorted(found)


def _needed(new: Fields, old: Fields, path: str) -> bool:
    """Whether a new field must be there where its parent, which is old, is."""
    parent = path.rpartition(".")[0]
    return bool(new[path]["required"]) and not path.endswith(("[]", "{}", "{name}")) and (not parent or parent in old)


def _narrower(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for fact in ("type", "format", "pattern", "const"):
        if old.get(fact) != new.get(fact) and fact in new:
            yield f"{fact} was {old.get(fact)}, and is {new[fact]}"
    if "enum" in new:
        missing = set(old.get("enum", [])) - set(new["enum"])
        if missing:
            yield f"{', '.join(sorted(missing))} can no longer be read"
        if "enum" not in old:
            yield "only some values are allowed now"
    for fact in LIMITS:
        if fact in new and new[fact] < old.get(fact, float("inf")):
            yield f"{fact} was {old.get(fact, 'none')}, and is {new[fact]}"
    for fact in LEAST:
        if fact in new and new[fact] > old.get(fact, float("-inf")):
            yield f"{fact} was {old.get(fact, 'none')}, and is {new[fact]}"
    if new["required"] and not old["required"]:
        yield "is required now: old statuses may lack it"
    if old["nullable"] and not new["nullable"]:
        yield "may not be null any more"


if __name__ == "__main__":
    json.dump(status_fields(), sys.stdout, indent=1, sort_keys=True)
    print()
