"""From a YAML file to an EvolutionRun and back."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from perseid.api.base import API_VERSION, KIND
from perseid.api.errors import Problem, RunFileError
from perseid.api.explain import describe, explain
from perseid.api.fields import nearest
from perseid.api.spec import EvolutionRun
from perseid.api.yamlfile import Document, read_document


def load_run(path: str | Path) -> EvolutionRun:
    """Read an EvolutionRun from a YAML file (one document, field names in camelCase, as kubectl takes it).

    Values are taken as they stand: a number in quotes is a text and not a number, as in a cluster. Whether the files
    exist that the spec names is not looked at.

    Raises RunFileError with every mistake in the file, by line.
    """
    file = Path(path)
    document = read_document(file)
    _check_kind(document)
    run: EvolutionRun | None = None
    found: list[Problem] = []
    try:
        run = EvolutionRun.model_validate(document.data, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        found = explain(error, document)
    # What the YAML reader said about a place explains it better than what follows from it.
    said = {problem.path for problem in document.problems}
    problems = document.problems + [problem for problem in found if problem.path not in said]
    if problems or run is None:
        raise RunFileError(file, problems)
    return run


def _check_kind(document: Document) -> None:
    """Stop at a file that is something else: complaints about its fields would be noise."""
    data, problems = document.data, []
    if not isinstance(data, dict):
        message = f"expected a mapping with apiVersion, kind, metadata and spec, got {describe(data)}"
        raise RunFileError(document.file, [*document.problems, Problem(*document.position(()), "", message)])
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if name not in data:
            typo = nearest(name, [key for key in data if key not in ("metadata", "spec")])
            hint = f"Rename {typo} to {name}." if typo else f"Add `{name}: {expected}`."
            problems.append(Problem(*document.position(()), name, "the field is missing", hint))
        elif data[name] != expected:
            message = f"expected {expected}, got {describe(data[name])}"
            problems.append(Problem(*document.position((name,)), name, message, f"Write `{name}: {expected}`."))
    if problems:
        raise RunFileError(document.file, problems)


_YAML_1_1_ONLY = re.compile(r"(?i:yes|no|on|off|y|n)|[-+]?0[0-9_]+|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


def dump_run(run: EvolutionRun, *, defaults: bool = True) -> str:
    """The run as YAML that `load_run` reads back to an equal run and kubectl takes as it is.

    With `defaults` every field is written out (except those left to a profile or absent), so that the text says all
    that the run does; without it, only what differs from the defaults.
    """
    data = run.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=not defaults)
    ordered = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        **{k: v for k, v in data.items() if k not in ("apiVersion", "kind")},
    }
    yaml = YAML()
    yaml.width = 4096  # a folded line is harder to compare
    yaml.indent(mapping=2, sequence=4, offset=2)
    buffer = io.StringIO()
    yaml.dump(_quoted(ordered), buffer)
    return buffer.getvalue()


def _quoted(value: Any) -> Any:
    """Quotes around texts that a YAML 1.1 reader such as kubectl would take for a truth value or a number."""
    if isinstance(value, dict):
        return {_quoted(key): _quoted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    if isinstance(value, str) and _YAML_1_1_ONLY.fullmatch(value):
        return DoubleQuotedScalarString(value)
    return value
