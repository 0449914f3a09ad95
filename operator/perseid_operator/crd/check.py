"""What a schema must have before it is given to a cluster: bounds everywhere, and a place for every column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perseid_operator.crd.columns import Column
from perseid_operator.crd.schema import Path, Schema, child, spell, walk

_BOUNDED_FORMATS = frozenset({"date-time"})
_OWN_METADATA = frozenset({("metadata", "creationTimestamp")})


def unbounded(schema: Schema, path: Path = ()) -> Iterator[str]:
    """One line for each text, list or map below the schema that may be of any size."""
    for at, node in walk(schema, path):
        match node.get("type"):
            case "string" if not ({"maxLength", "enum"} & set(node) or node.get("format") in _BOUNDED_FORMATS):
                yield f"{spell(at)} is a text of any length: give it a max_length"
            case "array" if "maxItems" not in node:
                yield f"{spell(at)} is a list of any length: give it a max_length"
            case "object" if "additionalProperties" in node and "maxProperties" not in node:
                yield f"{spell(at)} is a map of any size: give it a max_length"


def undescribed(schema: Schema, path: Path = ()) -> Iterator[str]:
    """The fields below the schema that `kubectl explain` would say nothing about. A list's items are not fields."""
    for at, node in walk(schema, path):
        if at and at[-1].isidentifier() and not node.get("description"):
            yield spell(at)


def columns_without_field(columns: Sequence[Column], root: Schema) -> Iterator[str]:
    """One line for each column whose field does not exist: the API server would show it empty for ever."""
    for column in columns:
        if column.path not in _OWN_METADATA and child(root, column.path) is None:
            yield f"the column {column.name} shows {spell(column.path)}, and there is no such field"
