"""Reading one YAML document together with where everything in it stands.

YAML 1.2. What kubectl, which reads YAML 1.1, would read differently (`no`, `off`, `010`) is a mistake here instead of a
surprise there.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_origin

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from perseid.api.errors import Problem, RunFileError, is_short, shown
from perseid.api.fields import FieldPath, alternatives, annotation_at, choices_at, spell

MAX_BYTES = 1 << 20
"""A bigger file would not fit into a Kubernetes object either."""
MAX_VALUES = 20_000
"""Values after aliases are followed: a few nested aliases can ask for billions."""

_CORE = "tag:yaml.org,2002:"
_TRUTH_WORD = re.compile(r"yes|no|on|off", re.IGNORECASE)
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")


@dataclass(slots=True)
class Document:
    """A parsed file. Lines and columns count from 1."""

    file: Path
    data: Any = None
    """dict, list, str, int, float, bool and None only."""
    positions: dict[FieldPath, tuple[int, int]] = field(default_factory=dict)
    """Where a field stands: a scalar's value, otherwise its key."""
    key_positions: dict[FieldPath, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    """Mistakes that the parse could step over."""

    def add(self, path: FieldPath, message: str, hint: str = "", at: tuple[int, int] | None = None) -> None:
        """Note a mistake."""
        line, column = at or self.position(path)
        self.problems.append(Problem(line, column, spell(path), message, hint))

    def position(self, path: FieldPath) -> tuple[int, int]:
        """Line and column of the field, or of the nearest parent that the file has."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, (1, 1))


def read_document(file: Path) -> Document:
    """Read the file. Raises RunFileError where nothing can be made of it at all."""
    text = _text(file)
    first = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    if first.startswith("%"):
        line = text.splitlines().index(first) + 1
        raise RunFileError(
            file, [Problem(line, 1, "", f"YAML directives are not supported: {first.strip()}", "Remove the line.")]
        )
    nodes = _nodes(file, text)
    if len(nodes) > 1:
        line, column = _mark(nodes[1])
        message = f"the file holds {len(nodes)} YAML documents, but one EvolutionRun belongs in one file"
        raise RunFileError(file, [Problem(line, column, "", message, "Put each document into a file of its own.")])
    document = Document(file)
    if not nodes or (isinstance(nodes[0], ScalarNode) and nodes[0].tag == f"{_CORE}null"):
        hint = "Start with `apiVersion: perseid.dev/v1alpha1`, `kind: EvolutionRun` and `metadata:` with a `name`."
        raise RunFileError(file, [Problem(0, 0, "", "the file is empty", hint)])
    document.positions[()] = _mark(nodes[0])
    document.data = _Reader(document).read(nodes[0], ())
    return document


def _text(file: Path) -> str:
    def whole_file(message: str, hint: str = "") -> RunFileError:
        return RunFileError(file, [Problem(0, 0, "", message, hint)])

    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise whole_file("there is no such file", "Check the path.") from error
    except IsADirectoryError as error:
        raise whole_file("this is a directory, not a file", "Name the YAML file in it.") from error
    except OSError as error:
        raise whole_file(f"the file cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise whole_file("the file is bigger than 1 MiB", "A run file holds settings only; data belongs elsewhere.")
    if b"\0" in raw:
        raise whole_file("this is not a text file: it holds zero bytes", "A run file is YAML in UTF-8.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        message = f"the file is not UTF-8: byte 0x{raw[error.start]:02x}"
        raise RunFileError(file, [Problem(line, column, "", message, "Save it as UTF-8.")]) from error


def _nodes(file: Path, text: str) -> list[Node]:
    nodes: list[Node] = []
    try:
        constructor, _ = YAML(typ="safe", pure=True).get_constructor_parser(text)
        while constructor.composer.check_node():
            nodes.append(constructor.composer.get_node())
    except MarkedYAMLError as error:
        raise RunFileError(file, [_syntax_problem(error, text)]) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        message = f"a control character (U+{_code_point(error.character):04X}) cannot stand in YAML"
        raise RunFileError(file, [Problem(line, column, "", message, "Remove it.")]) from error
    except RecursionError as error:
        raise RunFileError(file, [Problem(0, 0, "", "the file is nested too deeply")]) from error
    except YAMLError as error:
        raise RunFileError(file, [Problem(0, 0, "", f"the file is not YAML: {error}")]) from error
    return nodes


def _syntax_problem(error: MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    source = text.splitlines()[line - 1] if 0 < line <= len(text.splitlines()) else ""
    said = f"{error.problem or 'not YAML'}" + (f" ({error.context})" if error.context else "")
    if "\\t" in said or source[: len(source) - len(source.lstrip())].count("\t"):
        return Problem(line, column, "", "a tab stands where YAML needs spaces", "Indent with spaces.")
    if "undefined alias" in said:
        return Problem(line, column, "", said, "Define the anchor (`&name`) above the place that uses it (`*name`).")
    if "mapping values are not allowed" in said:
        hint = "Check the indentation of this line and the one above, and put a text that holds `: ` in quotes."
        return Problem(line, column, "", "a colon stands where YAML allows none", hint)
    return Problem(
        line, column, "", f"the YAML is broken: {said}", "Check brackets, quotes and indentation here and above."
    )


def _code_point(character: str | int) -> int:
    return character if isinstance(character, int) else ord(character)


def _mark(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


class _Reader:
    """Turns nodes into plain values and notes where they stand."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._constructor = YAML(typ="safe", pure=True).constructor
        self._open: list[Node] = []
        self._values = 0

    def read(self, node: Node, path: FieldPath) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            message = f"the file holds more than {MAX_VALUES} values once its aliases are followed"
            raise RunFileError(self._document.file, [Problem(*_mark(node), spell(path), message, "Use fewer aliases.")])
        if any(node is outer for outer in self._open):
            self._document.add(path, "an alias refers to something that contains it", "Break the circle.", _mark(node))
            return None
        if isinstance(node, ScalarNode):
            if node.value or node.style is not None:  # nothing at all stands nowhere: its key must do
                self._document.positions[path] = _mark(node)
            return self._scalar(node, path)
        tag = str(node.tag)
        if tag not in (f"{_CORE}map", f"{_CORE}seq"):
            self._document.add(path, f"the YAML tag {_tag(tag)} is not supported", "Remove the tag.", _mark(node))
        self._open.append(node)
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, path)
            assert isinstance(node, SequenceNode)
            return self._sequence(node, path)
        finally:
            self._open.pop()

    def _sequence(self, node: SequenceNode, path: FieldPath) -> list[Any]:
        items: list[Any] = []
        for index, item in enumerate(node.value):
            self._document.positions[(*path, index)] = _mark(item)
            items.append(self.read(item, (*path, index)))
        return items

    def _mapping(self, node: MappingNode, path: FieldPath) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        # Merges first: what a mapping says itself wins over what it merges, wherever the `<<` stands.
        for key, value in node.value:
            if str(key.tag) == f"{_CORE}merge":
                for source in value.value if isinstance(value, SequenceNode) else [value]:
                    if isinstance(source, MappingNode):
                        merged = {**self.read(source, path), **merged}
                    else:
                        self._document.add(path, "`<<` takes a mapping or a list of mappings", at=_mark(value))
        for key, value in node.value:
            if str(key.tag) == f"{_CORE}merge":
                continue
            if not isinstance(key, ScalarNode) or str(key.tag) != f"{_CORE}str":
                given = f"`{shown(key.value)}`" if isinstance(key, ScalarNode) else "a list or mapping"
                hint = f'Put it in quotes: "{shown(key.value)}".' if isinstance(key, ScalarNode) else ""
                self._document.add(path, f"a field's name must be text, not {given}", hint, _mark(key))
                continue
            name = str(key.value)
            at = (*path, name)
            if name in own:
                line, _ = self._document.key_positions[at]
                self._document.add(at, "the field is given twice", f"The first is on line {line}.", _mark(key))
                continue
            self._document.key_positions[at] = self._document.positions[at] = _mark(key)
            own[name] = self.read(value, at)
        return {**merged, **own}

    def _scalar(self, node: ScalarNode, path: FieldPath) -> Any:
        tag, text = str(node.tag).removeprefix(_CORE), str(node.value)
        quoted = node.style is not None
        if tag == "str":
            if not quoted and _TRUTH_WORD.fullmatch(text) and _takes_words(path):
                truth = "true" if text.lower() in ("yes", "on") else "false"
                message = f"`{text}` without quotes is {truth} to Kubernetes and a text to others"
                self._document.add(path, message, _truth_hint(path, text, truth))
            return text
        if tag == "timestamp":
            return text  # JSON has no dates, and kubectl reads them as text as well
        if tag == "int" and _LEADING_ZERO.fullmatch(text):
            plain = f"Write {int(text.replace('_', ''))}" if is_short(text) else "Remove the leading zeros"
            hint = f"{plain}, or put it in quotes where a text is meant."
            self._document.add(path, f"`{shown(text)}` is an octal number to some readers of YAML", hint)
        if tag in ("int", "float", "bool", "null"):
            try:
                value = self._constructor.construct_object(node)
            except (ValueError, YAMLError):
                self._document.add(path, f"`{shown(text)}` is not {'a number' if tag in ('int', 'float') else tag}")
                return None
            if isinstance(value, float) and not math.isfinite(value):
                self._document.add(path, f"`{shown(text)}` is not a finite number", "Write a plain number.")
            return value
        self._document.add(path, f"the YAML tag {_tag(str(node.tag))} is not supported", "Remove the tag.")
        return text


def _takes_words(path: FieldPath) -> bool:
    """Whether the place is one for texts, truth values or choices, or is unknown; for others there are better words."""
    kinds = list(alternatives(annotation_at(path)))
    return not kinds or any(kind in (str, bool) or get_origin(kind) is Literal for kind in kinds)


def _truth_hint(path: FieldPath, text: str, truth: str) -> str:
    if text in choices_at(path):
        return f'Put it in quotes: "{text}".'
    if list(alternatives(annotation_at(path))) == [bool]:
        return f"Write {truth}."
    return f'Write {truth}, or "{text}" where the text is meant.'


def _tag(tag: str) -> str:
    return f"!!{tag.removeprefix(_CORE)}" if tag.startswith(_CORE) else tag
