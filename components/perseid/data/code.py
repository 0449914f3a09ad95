"""The code in a model's answer."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from dataclasses import dataclass

_FENCE = re.compile(r"^[ \t]*(?P<marks>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)$")


@dataclass(frozen=True, slots=True)
class Extraction:
    """The code, or why there is none."""

    code: str | None
    reason: str = ""
    """Empty with code. Otherwise `no-code-block`, `unclosed-code-block` (the answer was cut), `does-not-parse`, or
    `does-not-define-` followed by the entry point (`anything` where none was given)."""


def extract_code(answer: str, entry_point: str = "") -> Extraction:
    """Find the first complete fenced block that parses and defines the entry point, or anything where none is given.

    An answer without any fence counts as one block when it parses and defines what is wanted. An open block is never
    taken: what was cut may parse and still be half an answer.
    """
    blocks, unclosed = fenced_blocks(answer)
    if not blocks and not unclosed:
        code = answer.strip("\n") + "\n"
        names = defined_names(code)
        return (
            Extraction(code) if names is not None and _fits(names, entry_point) else Extraction(None, "no-code-block")
        )
    parsed = [(block, names) for block in blocks if (names := defined_names(block)) is not None]
    for block, names in parsed:
        if _fits(names, entry_point):
            return Extraction(block)
    if parsed:
        return Extraction(None, f"does-not-define-{entry_point or 'anything'}")
    return Extraction(None, "does-not-parse" if blocks else "unclosed-code-block")


def fenced_blocks(answer: str) -> tuple[list[str], bool]:
    """Contents of the closed fenced blocks, without common indentation, and whether one stayed open."""
    blocks: list[str] = []
    opened = ""
    lines: list[str] = []
    for line in answer.replace("\r\n", "\n").split("\n"):
        fence = _FENCE.match(line)
        if not opened and fence:
            opened, lines = fence["marks"], []
        elif opened and fence and not fence["info"].strip() and fence["marks"].startswith(opened):
            blocks.append(textwrap.dedent("\n".join(lines)) + "\n")
            opened = ""
        elif opened:
            lines.append(line)
    return blocks, bool(opened)


def defined_names(code: str) -> frozenset[str] | None:
    """Names that a module defines at its top level (functions, classes, assignments); None where it is no code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in generated code is not our warning
            tree = ast.parse(code)
            compile(tree, "<answer>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deep
        return None
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return frozenset(names)


def _fits(names: frozenset[str], entry_point: str) -> bool:
    return entry_point in names if entry_point else bool(names)
