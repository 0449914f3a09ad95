"""What a run is created from, and what is refused before it is sent.

KFP makes the Workflow before it stores the run and does not take it back: texts that its database refuses leave a
Workflow that executes and that nobody sees. Such texts must never be sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perseid_operator.kfp.errors import RunRejectedError

MAX_BODY_BYTES = 900 * 1024
"""Largest request. The Workflow made from it must fit, with its growing status, into one object of Kubernetes."""
MAX_PARAMETERS_BYTES = 96 * 1024
"""Largest parameters of a run. KFP hands all of them to a pod as one argument, with names and types in between; Linux
takes 128 KiB in one, and Argo replaces a longer one by the name of a file, which KFP's launcher does not read."""
MAX_TEXT = 255
"""Longest display name and description of a run, in characters."""
MAX_EXPERIMENT_NAME = 128

_DISPLAY_NAME = re.compile(r"[a-z0-9.-]{1,255}")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_OF_ARGO = re.compile(r"\{\{(?!\$[.}])")
"""What Argo would fill in; `{{$}}` and `{{$.` are KFP's own."""
_LAST_OF_THREE_BYTES = "\uffff"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run to be created under an id that the caller has chosen."""

    run_id: str
    """Becomes a label of the Workflow."""
    display_name: str
    """[a-z0-9.-]{1,255}: Argo expands what looks like its own template in a name."""
    description: str
    """At most 255 characters."""
    experiment_id: str
    pipeline_spec: Mapping[str, Any]
    """The compiled pipeline, first document."""
    platform_spec: Mapping[str, Any] | None
    """The compiled pipeline's part for Kubernetes, second document; None where there is none."""
    parameters: Mapping[str, Any]
    pipeline_root: str | None = None
    service_account: str | None = None
    """Account of the run's pods; None for the server's default."""

    def to_body(self) -> bytes:
        """The request as JSON. Raises RunRejectedError for what KFP would refuse or stumble over."""
        if not _LABEL_VALUE.fullmatch(self.run_id):
            raise RunRejectedError(f"the run id {self.run_id!r} cannot be a label of a Workflow; use a UUID")
        if not _DISPLAY_NAME.fullmatch(self.display_name):
            raise RunRejectedError(
                f"the run's display name {self.display_name!r} must be 1 to {MAX_TEXT} characters of a-z, 0-9, . and -"
            )
        check_text("the run's description", self.description)
        specs: dict[str, Any] = {"pipeline_spec": self.pipeline_spec}
        if self.platform_spec is not None:
            specs["platform_spec"] = self.platform_spec
        runtime: dict[str, Any] = {"parameters": self.parameters}
        if self.pipeline_root is not None:
            runtime["pipeline_root"] = self.pipeline_root
        body: dict[str, Any] = {
            "run_id": self.run_id,
            "display_name": self.display_name,
            "description": self.description,
            "experiment_id": self.experiment_id,
            "pipeline_spec": specs,
            "runtime_config": runtime,
        }
        if self.service_account is not None:
            body["service_account"] = self.service_account
        encoded = to_json(body)
        _check_templates(specs)
        _check_parameters(self.parameters)
        return encoded


def to_json(body: Mapping[str, Any]) -> bytes:
    """A request's bytes. Raises RunRejectedError for texts that KFP cannot store and for bodies that are too large."""
    try:
        encoded = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise RunRejectedError(
            f"{_first_place(body, _is_half_a_character)} contains half a character (a lone surrogate), which is no text"
        ) from None
    except (TypeError, ValueError) as error:
        raise RunRejectedError(f"the run cannot be written as JSON: {error}") from None
    if max(encoded) >= 0xF0:  # the first byte of a character of four
        raise RunRejectedError(
            f"{_first_place(body, _is_beyond_three_bytes)} contains a character beyond the Basic Multilingual Plane"
            " (such as an emoji), which KFP's database cannot store; take it out"
        )
    if len(encoded) > MAX_BODY_BYTES:
        raise RunRejectedError(
            f"the run is {len(encoded)} bytes as a request, more than {MAX_BODY_BYTES}: a Workflow of it would not fit"
            " into Kubernetes; move long texts of the spec into files"
        )
    return encoded


def check_text(what: str, text: str) -> None:
    """Raise RunRejectedError for a text longer than KFP's column."""
    if len(text) > MAX_TEXT:
        raise RunRejectedError(f"{what} has {len(text)} characters; at most {MAX_TEXT} are allowed")


def _check_templates(specs: Mapping[str, Any]) -> None:
    # Parameters come wrapped (`perseid.api.passage`). Nobody unwraps what a pod is made of.
    for place, text in _texts(specs, ""):
        if _OF_ARGO.search(text):
            raise RunRejectedError(
                f"{place} contains {{{{, which Argo would take for a template of its own: take it out, or let an"
                " environment variable have it from a Secret (spec.pipeline.secretEnv)"
            )


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    # As Go writes it, with six bytes for each of <, > and &.
    text = to_json(parameters)
    size = len(text) + 5 * sum(text.count(character) for character in (b"<", b">", b"&"))
    if size > MAX_PARAMETERS_BYTES:
        raise RunRejectedError(
            f"the run's parameters have {size} bytes, more than the {MAX_PARAMETERS_BYTES} that KFP can hand to a pod;"
            " move long texts of the spec into files"
        )


def check_experiment_name(name: str) -> None:
    """Raise RunRejectedError for a name that KFP would refuse or confuse with another."""
    if not (name.isascii() and name.isprintable() and 1 <= len(name) <= MAX_EXPERIMENT_NAME):
        raise RunRejectedError(
            f"the experiment's name {name!r} must be 1 to {MAX_EXPERIMENT_NAME} printable ASCII characters"
        )


def _first_place(body: Mapping[str, Any], wrong: Any) -> str:
    return next((place for place, text in _texts(body, "") if wrong(text)), "the run")


def _is_beyond_three_bytes(text: str) -> bool:
    return bool(text) and max(text) > _LAST_OF_THREE_BYTES


def _is_half_a_character(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """All texts, keys included, with where they stand."""
    match value:
        case str():
            yield place or "the run", value
        case Mapping():
            for key, inner in value.items():
                if isinstance(key, str):
                    yield f"a name in {place or 'the run'}", key
                yield from _texts(inner, f"{place}.{key}" if place else str(key))
        case Sequence():
            for index, inner in enumerate(value):
                yield from _texts(inner, f"{place}[{index}]")
