"""From pydantic's JSON schema of a model to a structural schema, the dialect of OpenAPI that a CRD may use.

What is kept out: references (written out in place), titles, null (an absent field says it), `additionalProperties:
false` (unknown fields are pruned, and kubectl refuses them). What cannot be said is an error and no silence.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from perseid_operator.crd.defaults import without_nulls
from perseid_operator.crd.errors import CrdError
from perseid_operator.crd.lists import ITEM_KEYS
from perseid_operator.crd.rules import TWINS, Rule
from perseid_operator.crd.schema import ITEMS, VALUES, Path, Schema, spell
from perseid_operator.crd.unions import literals, union

_MODEL = "x-model"
_COPIED = frozenset(
    {"type", "enum", "format", "pattern", "minLength", "maxLength", "minimum", "maximum"}
    | {"minItems", "maxItems", "minProperties", "maxProperties"}
)
_UNDERSTOOD = (
    _COPIED
    | {"$ref", "anyOf", "const", "default", "description", "title", "exclusiveMinimum", "exclusiveMaximum"}
    | {"properties", "required", "items", "additionalProperties", "propertyNames"}
)


class _NamesModels(GenerateJsonSchema):
    """Pydantic's schema with the name of each object's model in it."""

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        return {**super().model_schema(schema), _MODEL: _identity(schema["cls"])}


def _identity(model: type[BaseModel]) -> str:
    return f"{model.__module__}.{model.__qualname__}"


@dataclass(slots=True)
class _Translation:
    definitions: dict[str, Schema]
    with_defaults: bool
    problems: list[str] = field(default_factory=list)

    def node(self, source: Schema, path: Path) -> Schema:
        """The structural form of one node; its default is the parent's business."""
        source = self._resolved(source)
        model = source.pop(_MODEL, None)
        unknown = set(source) - _UNDERSTOOD
        if unknown:
            self._problem(path, f"has {', '.join(sorted(unknown))}, which the generator does not know")
        described = {"description": " ".join(source["description"].split())} if source.get("description") else {}
        try:
            return {**described, **self._form(source, model, path)}
        except ValueError as error:
            self._problem(path, str(error))
            return {**described, "x-kubernetes-preserve-unknown-fields": True}

    def _resolved(self, source: Schema) -> Schema:
        """The node without references and without null; what stands beside them wins over what they name."""
        source = dict(source)
        if "$ref" in source:
            target = self.definitions[source.pop("$ref").removeprefix("#/$defs/")]
            return self._resolved({**target, **source})
        alternatives = [option for option in source.get("anyOf", []) if option.get("type") != "null"]
        if len(alternatives) == 1:
            del source["anyOf"]
            return self._resolved({**alternatives[0], **source})
        return source

    def _form(self, source: Schema, model: str | None, path: Path) -> Schema:
        if "anyOf" in source:
            options = [option for option in source["anyOf"] if option.get("type") != "null"]
            return union([self.node(option, path) for option in options])
        if "const" in source or "enum" in source:
            return literals([source["const"]] if "const" in source else source["enum"])
        match source.get("type"):
            case "object" if "properties" in source:
                return self._object(source, model, path)
            case "object" if isinstance(source.get("additionalProperties"), dict):
                return self._map(source, path)
            case "array":
                return self._list(source, path)
            case "integer" | "number":
                return self._number(source)
            case "string" | "boolean":
                return {key: value for key, value in source.items() if key in _COPIED}
            case kind:
                raise ValueError(f"has the form {kind or 'of anything at all'}, which no structural schema can say")

    def _object(self, source: Schema, model: str | None, path: Path) -> Schema:
        properties: Schema = {}
        for name, given in source["properties"].items():
            at = (*path, name)
            properties[name] = self.node(given, at)
            if self.with_defaults and "default" in given:
                self._give_default(properties[name], given, at)
        form: Schema = {"type": "object", "properties": properties}
        if source.get("required"):
            form["required"] = sorted(source["required"])
        twins: list[Rule] = [rule for (name, _), rules in TWINS.items() if _identity(name) == model for rule in rules]
        if twins:
            form["x-kubernetes-validations"] = [rule.as_schema() for rule in twins]
        return form

    def _give_default(self, form: Schema, given: Schema, path: Path) -> None:
        default = given["default"]
        allows_null = any(option.get("type") == "null" for option in given.get("anyOf", []))
        if default is None:
            return
        if allows_null:
            self._problem(path, "may be null but has another default: Kubernetes takes null for absent and fills it in")
        form["default"] = without_nulls(default)
        if (shown := _shown(default)) and "description" in form:
            form["description"] += f" Default: {shown}."  # kubectl explain tells no defaults.

    def _map(self, source: Schema, path: Path) -> Schema:
        values = self.node(source["additionalProperties"], (*path, VALUES))
        keys = self._resolved(source.get("propertyNames", {}))
        if "enum" in keys:
            return {"type": "object", "properties": {key: copy.deepcopy(values) for key in keys["enum"]}}
        form = {"type": "object", "additionalProperties": values, **_kept(source, "minProperties", "maxProperties")}
        if "maxLength" in keys:
            longest = keys["maxLength"]
            rule = Rule(
                f"self.all(key, size(key) <= {longest})", f"a name in {spell(path)} has more than {longest} characters"
            )
            form["x-kubernetes-validations"] = [rule.as_schema()]
        else:
            self._problem(path, "has names of any length: give the keys a max_length")
        return form

    def _list(self, source: Schema, path: Path) -> Schema:
        given = self._resolved(source["items"])
        keys = ITEM_KEYS.get(given.get(_MODEL, ""), None)
        if _MODEL in given and keys is None:
            self._problem(path, f"is a list of {given[_MODEL]}, about which perseid_operator.crd.lists says nothing")
        form: Schema = {"type": "array", "items": self.node(source["items"], (*path, ITEMS))}
        form.update(_kept(source, "minItems", "maxItems"))
        if keys:
            return {**form, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
        return {**form, "x-kubernetes-list-type": "atomic"}

    def _number(self, source: Schema) -> Schema:
        form = _kept(source, "type", "minimum", "maximum")
        for bound, exclusive, step in (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1)):
            if exclusive not in source:
                continue
            if source["type"] == "integer" and float(source[exclusive]).is_integer():
                form[bound] = int(source[exclusive]) + step
            else:
                form[bound], form[exclusive] = source[exclusive], True
        for bound in ("minimum", "maximum"):
            if isinstance(form.get(bound), float) and form[bound].is_integer() and math.fabs(form[bound]) < 2**53:
                form[bound] = int(form[bound])  # 1 and not 1.0: what Kubernetes gives back
        if source["type"] == "integer":
            form["format"] = "int64"
        return form

    def _problem(self, path: Path, what: str) -> None:
        self.problems.append(f"{spell(path)} {what}")


def _shown(default: Any) -> str:
    """The default in a sentence; nothing for objects, whose fields have their own, and for what is empty."""
    if isinstance(default, str):
        return default
    items = default if isinstance(default, list) else [default]
    return "" if not items or any(isinstance(item, dict) for item in items) else json.dumps(default)


def _kept(source: Schema, *keys: str) -> Schema:
    return {key: source[key] for key in keys if key in source}


def structural_schema(model: type[BaseModel], root: str, *, defaults: bool) -> Schema:
    """The structural schema of a model, at the field `root` of the resource.

    With `defaults` the API server fills in the models' defaults. Raises CrdError with every field that has no
    structural form.
    """
    source = model.model_json_schema(schema_generator=_NamesModels)
    translation = _Translation(source.pop("$defs", {}), defaults)
    form = translation.node(source, (root,))
    if translation.problems:
        raise CrdError(translation.problems)
    return form
