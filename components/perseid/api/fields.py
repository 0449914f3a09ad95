"""The tree of fields of the contract: what is valid where, by the names that a file uses."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from perseid.api.base import ApiModel
from perseid.api.spec import EvolutionRun

FieldPath: TypeAlias = tuple[str | int, ...]
"""Names as in the file, and positions in lists."""


def spell(path: FieldPath) -> str:
    """The path as users write it: `spec.problems.test[0].source`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def alternatives(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows, without None, Annotated and Union around them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for argument in get_args(annotation):
            yield from alternatives(argument)
    elif annotation is not type(None):
        yield annotation


def constraints(annotation: Any) -> Iterator[Any]:
    """The constraints that stand anywhere around the alternatives of an annotation (not inside a list's items)."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extras = get_args(annotation)
        for extra in extras:
            yield from extra.metadata if isinstance(extra, FieldInfo) else (extra,)
        yield from constraints(inner)
    elif origin in (Union, types.UnionType):
        for argument in get_args(annotation):
            yield from constraints(argument)


def names(model: type[ApiModel]) -> list[str]:
    """The model's fields, spelled as in a file, in the order of the documentation."""
    return [info.alias or name for name, info in model.model_fields.items()]


def field(model: type[ApiModel], name: str) -> FieldInfo | None:
    """The model's field of that spelling."""
    for attribute, info in model.model_fields.items():
        if (info.alias or attribute) == name:
            return info
    return None


def _step(annotation: Any, part: str | int) -> Any | None:
    for candidate in alternatives(annotation):
        if isinstance(candidate, type) and issubclass(candidate, ApiModel) and isinstance(part, str):
            info = field(candidate, part)
            if info is not None:
                return Annotated[info.annotation, info]
        if get_origin(candidate) is list and isinstance(part, int):
            return get_args(candidate)[0]
        if get_origin(candidate) is dict and isinstance(part, str):
            return get_args(candidate)[1]
    return None


def annotation_at(path: FieldPath) -> Any | None:
    """What the contract says about the place, None where it knows no such place."""
    annotation: Any = EvolutionRun
    for part in path:
        annotation = _step(annotation, part)
        if annotation is None:
            return None
    return annotation


def model_at(path: FieldPath) -> type[ApiModel] | None:
    """The model whose fields stand at the place; None for a value."""
    for candidate in alternatives(annotation_at(path)):
        if isinstance(candidate, type) and issubclass(candidate, ApiModel):
            return candidate
    return None


def description_at(path: FieldPath) -> str:
    """The documentation of the field, on one line; empty where there is none."""
    annotation = annotation_at(path)
    if get_origin(annotation) is Annotated:
        for extra in get_args(annotation)[1:]:
            if isinstance(extra, FieldInfo) and extra.description:
                return " ".join(extra.description.split())
    return ""


def choices_at(path: FieldPath) -> list[object]:
    """The literal values that the place allows."""
    found: list[object] = []
    for candidate in alternatives(annotation_at(path)):
        if get_origin(candidate) is Literal:
            found.extend(get_args(candidate))
    return found


def allowed_range(path: FieldPath) -> str:
    """The bounds of a number in words (`at least 1 and at most 32`); empty where it has none."""
    words: dict[str, str] = {}
    for constraint in constraints(annotation_at(path)):
        match constraint:
            case annotated_types.Ge(ge=bound):
                words["low"] = f"at least {bound:g}" if isinstance(bound, float) else f"at least {bound}"
            case annotated_types.Gt(gt=bound):
                words["low"] = f"above {bound:g}" if isinstance(bound, float) else f"above {bound}"
            case annotated_types.Le(le=bound):
                words["high"] = f"at most {bound:g}" if isinstance(bound, float) else f"at most {bound}"
            case annotated_types.Lt(lt=bound):
                words["high"] = f"below {bound:g}" if isinstance(bound, float) else f"below {bound}"
    return " and ".join(words[key] for key in ("low", "high") if key in words)


def _walk(model: type[ApiModel], at: FieldPath) -> Iterator[tuple[str, str]]:
    for name in names(model):
        yield name, spell(at)
        info = field(model, name)
        for candidate in alternatives(info.annotation if info else None):
            inner, step = candidate, (*at, name)
            if get_origin(candidate) is list:
                inner, step = next(alternatives(get_args(candidate)[0])), (*at, f"{name}[]")
            if isinstance(inner, type) and issubclass(inner, ApiModel):
                yield from _walk(inner, step)


@cache
def places() -> dict[str, list[str]]:
    """Where in the tree a field of a name is valid: name to the paths of its parents."""
    index: dict[str, list[str]] = {}
    for name, parent in _walk(EvolutionRun, ()):
        index.setdefault(name, []).append(parent)
    return index


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def nearest(given: str, allowed: Iterable[str], likeness: float = 0.6) -> str | None:
    """The allowed name that was most likely meant, None below the likeness (0 to 1). Case, `_`, `-` do not count."""
    by_plain: dict[str, str] = {}
    for name in allowed:
        by_plain.setdefault(_plain(name), name)
    matches = difflib.get_close_matches(_plain(given), by_plain, n=1, cutoff=likeness)
    return by_plain[matches[0]] if matches else None
