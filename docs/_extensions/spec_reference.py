"""The reference of the run file's fields as Markdown, from what validates the file."""

from __future__ import annotations

import re
from collections.abc import Iterator

from perseid.api.fields import FieldPath
from perseid.api.reference import FieldReference, field_reference, walk


def reference() -> str:
    """All fields as Markdown: a section for each that has fields in it, and an anchor for each field."""
    return "\n".join(line for path in (("metadata",), ("spec",)) for line in _sections(path))


def _sections(top: FieldPath) -> Iterator[str]:
    for found in walk(top):
        if not found.children:
            continue
        # Three levels of headings: deeper ones make the page's own contents longer than the page is wide.
        depth = sum(isinstance(part, str) for part in found.path)
        yield f"\n{'#' * min(depth + 1, 4)} {found.name}\n"
        yield found.description + "\n"
        for name in found.children:
            yield from _field(field_reference((*found.below, name)))


def _field(found: FieldReference) -> Iterator[str]:
    facts = [found.kind]
    if found.required:
        facts.append("required")
    elif found.default is not None:
        facts.append(f"default `{found.default}`" if found.default != "left out" else "may be left out")
    if found.allowed:
        facts.append(re.sub(r"matches (\S+)", r"matches `\1`", found.allowed))
    if found.path[:1] == ("spec",) and found.may_change:
        facts.append("may change while the run exists")
    name = str(found.path[-1])
    yield f"[`{name}`]{{#{anchor(found)}}}: {', '.join(_plain(fact) for fact in facts)}"
    below = f" Its fields: [{found.name}](#{heading(found)})." if found.children else ""
    yield f": {_plain(found.description)}{below}"
    yield ""


def anchor(found: FieldReference) -> str:
    """Of a field on the page: its name as errors spell it."""
    return "field-" + found.name.replace("[]", "").replace(".", "-").lower()


def heading(found: FieldReference) -> str:
    """The anchor that MyST gives the heading of a field's section."""
    return re.sub(r"[^a-z0-9-]", "", found.name.lower())


def _plain(text: str) -> str:
    """Without what Markdown would read as markup outside of code."""
    return "`".join(
        part if index % 2 else re.sub(r"([<>*_$\\])", r"\\\1", part) for index, part in enumerate(text.split("`"))
    )
