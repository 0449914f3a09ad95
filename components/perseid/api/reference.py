"""Every field of an EvolutionRun as a reader wants it: type, default, what is allowed, what it is for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from perseid.api.base import ApiModel
from perseid.api.fields import (
    FieldPath,
    allowed_range,
    alternatives,
    annotation_at,
    choices_at,
    constraints,
    description_at,
    field,
    model_at,
    names,
    nearest,
    places,
    spell,
)
from perseid.api.identity import MAY_CHANGE

ROOT = "EvolutionRun"
_KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}


class UnknownFieldError(Exception):
    """There is no such field; the message says which are there and what was probably meant."""


@dataclass(frozen=True, slots=True)
class FieldReference:
    """One field."""

    path: FieldPath
    """Empty for the object itself."""
    kind: str
    """Its type in words: `whole number`, `list of texts`, `mapping of fields`."""
    default: str | None
    """As in a file; None where the field is required, or has fields of its own with their own defaults."""
    required: bool
    allowed: str
    """What its value may be, beyond its type; empty where that says it all."""
    may_change: bool
    """Whether it may be changed while a run exists."""
    description: str
    """On one line."""
    children: tuple[str, ...]
    """Names of the fields in it, or in each item of its list."""

    @property
    def name(self) -> str:
        """As in a file: `spec.problems.test[].source`."""
        return re.sub(r"\[\d+\]", "[]", spell(self.path)) or ROOT

    @property
    def below(self) -> FieldPath:
        """Where its children stand: in the items of a list."""
        return (*self.path, 0) if self.kind.startswith("list") else self.path


def parse_path(text: str) -> FieldPath:
    """`spec.problems.test[].source` as a path; indices may be left out, a leading `evolutionrun` or `evorun`, too.

    Raises UnknownFieldError.
    """
    parts = [part for part in re.sub(r"\[\d*\]", "", text).strip(".").split(".") if part]
    if parts and parts[0].lower() in ("evolutionrun", "evolutionruns", "evorun"):
        parts = parts[1:]
    path: FieldPath = ()
    for part in parts:
        at = (*path, 0) if _is_list(path) else path
        if annotation_at((*at, part)) is None:
            raise UnknownFieldError(_unknown(path, at, part))
        path = (*at, part)
    return path


def field_reference(path: FieldPath) -> FieldReference:
    """What is known of the field at a path that `parse_path` has given."""
    below = (*path, 0) if _is_list(path) else path
    model = model_at(below)
    info = _info(path)
    required = info is not None and info.is_required()
    has_fields = model is not None and not _is_list(path)
    return FieldReference(
        path=path,
        kind=_kind(path),
        default=None if required or has_fields or info is None else _default(info),
        required=required,
        allowed=_allowed(path),
        may_change=any(path[: len(one)] == one for one in MAY_CHANGE),
        description=description_at(path) if path else "The custom resource, as a file holds it.",
        children=() if model is None else tuple(names(model)),
    )


def walk(path: FieldPath = ()) -> Iterator[FieldReference]:
    """The field and all below it, in the order of the documentation."""
    found = field_reference(path)
    yield found
    for name in found.children:
        yield from walk((*found.below, name))


def _info(path: FieldPath) -> FieldInfo | None:
    if not path or not isinstance(path[-1], str):
        return None
    model = model_at(path[:-1])
    return None if model is None else field(model, path[-1])


def _is_list(path: FieldPath) -> bool:
    return any(get_origin(one) is list for one in alternatives(annotation_at(path)))


def _kind(path: FieldPath) -> str:
    found = dict.fromkeys(_kind_of(one) for one in alternatives(annotation_at(path)))
    return " or ".join(found)


def _kind_of(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is list:
        items = " or ".join(dict.fromkeys(_kind_of(one) for one in alternatives(get_args(annotation)[0])))
        return f"list of {items}s" if items in ("text", "number", "whole number") else f"list, each a {items}"
    if origin is dict:
        return "mapping of names to values"
    if origin is Literal:
        return " or ".join(dict.fromkeys(_KINDS[type(value)] for value in get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return "mapping of fields"
    return _KINDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "left out"
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _allowed(path: FieldPath) -> str:
    # Of a list, what its items may be is what a reader asks for; how many they may be comes after it.
    items = (*path, 0) if _is_list(path) else path
    said = [" | ".join(str(choice) for choice in choices_at(items)), allowed_range(items)]
    for constraint in constraints(annotation_at(items)):
        pattern = getattr(constraint, "pattern", None)
        if isinstance(pattern, str):
            said.append(f"matches {pattern}")
    said.append(_length(path))
    return "; ".join(one for one in said if one)


def _length(path: FieldPath) -> str:
    unit = "items" if _is_list(path) else "entries" if "mapping" in _kind(path) else "characters"
    low = high = ""
    for constraint in constraints(annotation_at(path)):
        match constraint:
            case annotated_types.MinLen(min_length=bound) if bound > 1 or unit != "characters":
                low = f"at least {bound}"
            case annotated_types.MaxLen(max_length=bound):
                high = f"at most {bound}"
    both = " and ".join(one for one in (low, high) if one)
    return f"{both} {unit}" if both else ""


def _unknown(path: FieldPath, at: FieldPath, part: str) -> str:
    model = model_at(at)
    here = names(model) if model is not None else []
    where = spell(path) or ROOT
    meant = nearest(part, here)
    elsewhere = places().get(part) or places().get(nearest(part, places(), 0.8) or "")
    if meant is not None:
        return f"{where} has no field {part}; did you mean {spell((*path, meant))}?"
    hints = [f"{parent}.{part}".lstrip(".") for parent in elsewhere or () if part in places()][:3]
    if hints:
        return f"{where} has no field {part}; there is {', '.join(hints)}"
    return f"{where} has no field {part}; it has {', '.join(here)}" if here else f"{where} is a value: it has no fields"
