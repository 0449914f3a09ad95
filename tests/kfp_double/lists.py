"""Filters, sorting and page tokens of KFP's lists."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from kfp_double import specs
from kfp_double.failures import INVALID, Failure

DEFAULT_PAGE, LARGEST_PAGE = 20, 200
RUN_KEYS = {
    "run_id": "run_id",
    "id": "run_id",
    "display_name": "display_name",
    "name": "display_name",
    "created_at": "created_at",
    "finished_at": "finished_at",
    "scheduled_at": "scheduled_at",
    "description": "description",
    "storage_state": "storage_state",
    "state": "state",
    "status": "state",
    "experiment_id": "experiment_id",
}
EXPERIMENT_KEYS = {
    "experiment_id": "experiment_id",
    "id": "experiment_id",
    "display_name": "display_name",
    "name": "display_name",
    "created_at": "created_at",
    "storage_state": "storage_state",
    "last_run_created_at": "last_run_created_at",
}
_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "EQUALS": lambda one, other: one == other,
    "NOT_EQUALS": lambda one, other: one != other,
    "GREATER_THAN": lambda one, other: one > other,
    "GREATER_THAN_EQUALS": lambda one, other: one >= other,
    "LESS_THAN": lambda one, other: one < other,
    "LESS_THAN_EQUALS": lambda one, other: one <= other,
    "IN": lambda one, others: one in others,
    "IS_SUBSTRING": lambda one, part: part in one,
}
_VALUES = ("string_value", "int_value", "long_value", "timestamp_value", "string_values", "int_values", "long_values")


def page(
    rows: list[dict[str, Any]], keys: Mapping[str, str], query: Mapping[str, str], largest: int
) -> tuple[list[dict[str, Any]], int, str | None]:
    """The rows of the page that is asked for, how many there are on all pages, and the next page's token.

    A page has at most `largest` of them.
    """
    size = min(_page_size(query.get("page_size", "")), largest)
    # KFP decodes the filter a second time.
    given = unquote_plus(query.get("filter", ""))
    tests = _predicates(given, keys)
    kept = [row for row in rows if all(test(row) for test in tests)]
    column, descending = _sorting(query.get("sort_by", ""), keys)
    first = next(iter(keys))
    kept.sort(key=lambda row: (_comparable(row[column]), str(row[keys[first]])), reverse=descending)
    asked = hashlib.sha256(f"{given}|{query.get('sort_by', '')}".encode()).hexdigest()
    token = query.get("page_token", "")
    start = _start(token, asked) if token else 0
    following = None
    if start + size < len(kept):
        following = base64.urlsafe_b64encode(json.dumps({"start": start + size, "of": asked}).encode()).decode()
    return kept[start : start + size], len(kept), following


def _page_size(text: str) -> int:
    try:
        size = int(text or 0)
    except ValueError:
        raise Failure(INVALID, f"parsing field page_size: {text}") from None
    if size < 0:
        raise Failure(INVALID, "Failed to create list options: the page size must not be negative")
    return size or DEFAULT_PAGE


def _start(token: str, asked: str) -> int:
    try:
        data = json.loads(base64.urlsafe_b64decode(token))
        start, of = int(data["start"]), data["of"]
    except (ValueError, KeyError, TypeError):
        raise Failure(INVALID, "Failed to create list options: the page token is invalid") from None
    if of != asked:
        raise Failure(INVALID, "Failed to create list options: the page token belongs to another filter or order")
    return start


def _sorting(text: str, keys: Mapping[str, str]) -> tuple[str, bool]:
    words = text.split() or ["created_at"]
    if words[0] not in keys or len(words) > 2 or words[1:] not in ([], ["asc"], ["desc"]):
        raise Failure(INVALID, f"Failed to create list options: cannot sort by {text!r}")
    return keys[words[0]], words[1:] == ["desc"]


def _predicates(given: str, keys: Mapping[str, str]) -> list[Callable[[dict[str, Any]], bool]]:
    if not given:
        return []
    try:
        data = json.loads(given)
    except ValueError:
        raise Failure(INVALID, "Failed to create list options: the filter is not JSON") from None
    data = _snake_case(data)
    specs.parse(data, "V2beta1Filter")
    return [_predicate(predicate, keys) for predicate in data.get("predicates") or []]


def _predicate(predicate: dict[str, Any], keys: Mapping[str, str]) -> Callable[[dict[str, Any]], bool]:
    column = keys.get(predicate.get("key", ""))
    test = _TESTS.get(predicate.get("operation", ""))
    values = [predicate[name] for name in _VALUES if name in predicate]
    if column is None or test is None or len(values) != 1:
        raise Failure(INVALID, f"Failed to create list options: unusable predicate {json.dumps(predicate)}")
    (value,) = values
    if isinstance(value, dict):
        wanted: Any = [_comparable(entry) for entry in value.get("values") or []]
    else:
        wanted = _comparable(datetime.fromisoformat(value).timestamp() if "timestamp_value" in predicate else value)
    return lambda row: row[column] is not None and test(_comparable(row[column]), wanted)


def _comparable(value: Any) -> Any:
    # The database compares texts without their case.
    if isinstance(value, str):
        return value.casefold()
    return value if value is not None else 0.0


def _snake_case(value: Any) -> Any:
    """KFP takes both spellings of its fields."""
    if isinstance(value, list):
        return [_snake_case(entry) for entry in value]
    if isinstance(value, dict):
        return {
            "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name): _snake_case(entry)
            for name, entry in value.items()
        }
    return value
