"""Pydantic's errors, said in the words of the file: what was expected, what was given, what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from perseid.api.errors import Problem, is_short, shown
from perseid.api.fields import (
    FieldPath,
    allowed_range,
    choices_at,
    description_at,
    model_at,
    names,
    nearest,
    places,
    spell,
)
from perseid.api.yamlfile import Document

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of fields",
}
_RANGE_ERRORS = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal"})
_STRONG_LIKENESS = 0.8
"""From which a guess is offered that is not the obvious one."""
_SHOWN = 12
"""Names that a hint lists at most."""
_EXACT = 2**53
"""Below it a float that is a whole number is the one that was written."""


def explain(error: ValidationError, document: Document) -> list[Problem]:
    """One problem for each place that the error names, with positions."""
    places_with_errors: dict[FieldPath, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        places_with_errors.setdefault(_file_path(details, document.data), []).append(details)
    problems = []
    for path, group in places_with_errors.items():
        # A union complains once per alternative: where an item of a list is wrong, "should be a text" is noise.
        if len(group[0]["loc"]) > len(path) and any(_is_below(other, path) for other in places_with_errors):
            continue
        message, hint = _words(path, group)
        table = document.key_positions if group[0]["type"] == "extra_forbidden" else document.positions
        line, column = table.get(path) or document.position(path)
        problems.append(Problem(line, column, spell(path), message, hint))
    return problems


def describe(value: object) -> str:
    """The value in a few words, its kind included."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}" if is_short(value) else shown(value)
        case str():
            return f"the text '{shown(value)}'"
        case dict():
            return "a mapping"
        case _:
            return "a list"


def one_of(values: Iterable[object]) -> str:
    """The values as an enumeration: `a, b or c`."""
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def _file_path(details: ErrorDetails, data: Any) -> FieldPath:
    """The error's place in the file: pydantic's location without the names of union members in it."""
    path: list[str | int] = []
    parts = details["loc"]
    for index, part in enumerate(parts):
        in_mapping = isinstance(data, dict) and part in data
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if in_mapping or in_list:
            data = data[part]
        elif not (details["type"] == "missing" and index == len(parts) - 1):
            continue
        path.append(part)
    return tuple(path)


def _is_below(path: FieldPath, parent: FieldPath) -> bool:
    return len(path) > len(parent) and path[: len(parent)] == parent


def _words(path: FieldPath, group: list[ErrorDetails]) -> tuple[str, str]:
    if len(group) > 1:
        # Of a union's complaints, those that are not about the kind of value are the nearest to what was meant.
        near = [details for details in group if details["type"] not in _EXPECTED and details["type"] != "literal_error"]
        if not near:
            return _type_words(path, group)
        group = near
    details = group[0]
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    if kind in _EXPECTED or kind == "literal_error":
        return _type_words(path, group)
    if kind == "extra_forbidden":
        return f"there is no field {path[-1]} here", _unknown_field_hint(path)
    if kind == "missing":
        return "the field is missing", description_at(path)
    if kind in _RANGE_ERRORS:
        return f"must be {allowed_range(path)}, got {shown(given)}", ""
    if kind == "string_too_short":
        return "must not be empty", description_at(path)
    if kind == "string_too_long":
        return f"may have at most {context['max_length']} characters, has {len(given)}", ""
    if kind == "string_pattern_mismatch":
        # Who misunderstands apiKeyEnv pastes a key, and messages end up in logs.
        what = "the value (not shown: it may be a key)" if path[-1] == "apiKeyEnv" else describe(given)
        return f"{what} does not have the right form", description_at(path)
    if kind == "too_short":
        return f"needs at least {context['min_length']} {_items(given, context['min_length'])}", description_at(path)
    if kind == "too_long":
        return f"may have at most {context['max_length']} {_items(given, context['max_length'])}, has {len(given)}", ""
    if kind == "value_error":
        return str(context.get("error", details["msg"])), ""
    return f"{details['msg']}, got {describe(given)}", description_at(path)


def _items(given: object, count: int) -> str:
    word = "entry" if isinstance(given, dict) else "item"
    return word if count == 1 else {"entry": "entries", "item": "items"}[word]


def _type_words(path: FieldPath, group: list[ErrorDetails]) -> tuple[str, str]:
    given = group[0]["input"]
    kinds = list(dict.fromkeys(_EXPECTED[details["type"]] for details in group if details["type"] in _EXPECTED))
    choices = choices_at(path)
    expected = [*choices, *(word for kind in kinds for word in kind.split(" or "))]
    if given is None:
        return f"the field is empty, expected {one_of(expected)}", _empty_hint(kinds)
    one = "one of " if len(expected) > 2 else ""
    return f"expected {one}{one_of(expected)}, got {describe(given)}", _type_hint(given, kinds, choices, path)


def _empty_hint(kinds: list[str]) -> str:
    if "a mapping of fields" in kinds:
        return "Indent its fields under it, or remove the line to get the defaults."
    return "Write a value, or remove the line to get the default."


def _type_hint(given: object, kinds: list[str], choices: list[object], path: FieldPath) -> str:
    if isinstance(given, str):
        meant = nearest(given, [str(choice) for choice in choices])
        if meant:
            # Equal as a text and yet refused: the choice is a number.
            return f"Remove the quotes: {meant}." if given == meant else f"Did you mean {meant}?"
        if ("a whole number" in kinds or "a number" in kinds) and _is_number(given):
            return f"Remove the quotes: {given}."
        if "true or false" in kinds and given.lower() in ("true", "false"):
            return f"Remove the quotes: {given.lower()}."
    if isinstance(given, float) and given.is_integer() and abs(given) < _EXACT and "a whole number" in kinds:
        return f"Write {int(given)}."
    if "a text" in kinds and isinstance(given, bool | int | float) and is_short(given):
        return f'Put it in quotes: "{str(given).lower() if isinstance(given, bool) else given}".'
    if "a list" in kinds and not isinstance(given, dict):
        return f"Write it as a list: [{given}]." if is_short(given) else "Write it as a list, in brackets."
    model = model_at(path)
    if "a mapping of fields" in kinds and model is not None:
        return _fields_hint(model_names=names(model))
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _fields_hint(model_names: list[str]) -> str:
    more = f" and {len(model_names) - _SHOWN} more" if len(model_names) > _SHOWN else ""
    return f"Its fields: {', '.join(model_names[:_SHOWN])}{more}."


def _unknown_field_hint(path: FieldPath) -> str:
    model, name = model_at(path[:-1]), str(path[-1])
    here = names(model) if model else []
    elsewhere = [parent for parent in places().get(name, []) if parent != spell(path[:-1])]
    meant = nearest(name, here, _STRONG_LIKENESS if elsewhere else 0.6)
    hints = []
    if elsewhere:
        shown = ", ".join(parent or "the top of the file" for parent in elsewhere[:3])
        more = f" and {len(elsewhere) - 3} other places" if len(elsewhere) > 3 else ""
        hints.append(f"{name} belongs to {shown}{more}.")
    if meant:
        hints.append(f"Did you mean {meant}?")
    if not hints:
        somewhere = nearest(name, places(), _STRONG_LIKENESS)
        if somewhere:
            hints.append(f"Did you mean {somewhere} of {places()[somewhere][0] or 'the top of the file'}?")
        hints.append(_fields_hint(here))
    return " ".join(hints)
