"""What the other modules share: a schema as a mapping, walking over one, and names in CEL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]
"""A node of an OpenAPI v3 schema, as JSON."""
Path: TypeAlias = tuple[str, ...]
"""Names of fields from the root; `[]` stands for a list's items and `{}` for a map's values."""

ITEMS = "[]"
VALUES = "{}"

_CEL_WORDS = frozenset(
    {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import"}
    | {"let", "loop", "package", "namespace", "return", "var", "void", "while"}
)


def spell(path: Path) -> str:
    """The path as people write it: `spec.problems.test[].source`."""
    text = ""
    for part in path:
        text += part if part == ITEMS else f".{part}" if text else part
    return text


def walk(schema: Schema, path: Path = ()) -> Iterator[tuple[Path, Schema]]:
    """Every node of a structural schema with its path, parents first."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, (*path, name))
    if "items" in schema:
        yield from walk(schema["items"], (*path, ITEMS))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], (*path, VALUES))


def child(schema: Schema, path: Path) -> Schema | None:
    """The node at a path below the schema, None where there is none."""
    node: Schema | None = schema
    for part in path:
        if node is None:
            return None
        if part == ITEMS:
            node = node.get("items")
        elif part == VALUES:
            node = node.get("additionalProperties")
        else:
            node = node.get("properties", {}).get(part)
    return node


def cel_name(field: str) -> str:
    """The field's name in a CEL expression, where some words are reserved."""
    return f"__{field}__" if field in _CEL_WORDS else field


def cel_text(text: str) -> str:
    """The text as a CEL string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
