"""`perseid explain`: a field of the run file, as kubectl explains one."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from perseid.api.base import API_VERSION, KIND
from perseid.api.fields import FieldPath
from perseid.api.reference import FieldReference, field_reference, walk


def print_field(console: Console, path: FieldPath, *, recursive: bool) -> None:
    """The field and those in it; with `recursive` all below it, in a line each."""
    found = field_reference(path)
    console.print(Text("KIND:     ", style="dim").append(KIND, style="default"))
    console.print(Text("VERSION:  ", style="dim").append(API_VERSION, style="default"))
    console.print(Text("FIELD:    ", style="dim").append(found.name, style="bold").append(f"  <{found.kind}>"))
    for name, value in _facts(found):
        console.print(Text(f"{name + ':':<10}", style="dim").append(value, style="default"))
    console.print()
    console.print(Text(found.description))
    if not found.children:
        return
    console.print()
    console.print(Text("FIELDS", style="dim"))
    if recursive:
        for one in list(walk(path))[1:]:
            console.print(_line(one, indent=2 * sum(isinstance(part, str) for part in one.path[len(path) :])))
        return
    for name in found.children:
        child = field_reference((*found.below, name))
        console.print(_line(child, indent=2))
        if child.description:
            console.print(Padding(Text(child.description), (0, 0, 0, 6), expand=False))


def _facts(found: FieldReference) -> list[tuple[str, str]]:
    facts = []
    if found.required:
        facts.append(("DEFAULT", "none: the field is required"))
    elif found.default is not None:
        facts.append(("DEFAULT", found.default))
    if found.allowed:
        facts.append(("ALLOWED", found.allowed))
    if found.path[:1] == ("spec",) and len(found.path) > 1:
        words = "while the run exists, too" if found.may_change else "no: another value makes another run"
        facts.append(("CHANGE", words))
    return facts


def _line(found: FieldReference, *, indent: int) -> Text:
    line = Text(" " * indent).append(str(found.path[-1]), style="bold").append(f"  <{found.kind}>", style="cyan")
    if found.required:
        line.append("  required", style="yellow")
    elif found.default not in (None, "left out"):
        line.append(f"  default {found.default}", style="dim")
    if found.allowed:
        line.append(f"  {found.allowed}", style="dim")
    return line
