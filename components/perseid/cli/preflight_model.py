"""Models that a run names: what of them can be seen without loading one."""

from __future__ import annotations

import json
from pathlib import Path

from perseid.api.spec import DefinitionSpec
from perseid.engines.errors import ModelError
from perseid.runner.errors import RunnerError

FORMS = (
    "give a directory with a model in transformers' format, a hub id such as org/name, or"
    " embedded:smollm2-135m-instruct"
)


def check_model(field: str, ref: str, *, trust_remote_code: bool = False) -> None:
    """Raise RunnerError for a reference to nothing, and for a directory without a whole model that can chat.

    `field` is where the spec names it; paths are absolute. Models of the hub and in object storage are left to the
    stages: looking at them would need the network.
    """
    directory = Path(ref) if ref.startswith("/") else None
    if directory is not None:
        config = directory / "config.json"
        if not config.is_file():
            raise RunnerError(f"{field} is {ref}, but there is no {config}; {FORMS}")
        try:
            json.loads(config.read_bytes())
        except (OSError, ValueError) as error:
            raise RunnerError(f"{field} is {ref}, but {config} cannot be read as JSON: {error}; {FORMS}") from error
    from perseid.engines.models import check_reference  # with it come the clients of object storage
    from perseid.engines.weights import has_chat_template

    try:
        check_reference(ref)
    except ModelError as error:
        raise RunnerError(f"{field}: {error}") from error
    if directory is not None and not trust_remote_code and not has_chat_template(directory):
        raise RunnerError(
            f"{field} is {ref}, whose tokenizer has no chat template; use an instruction-tuned model, or add a"
            " chat_template.jinja beside its tokenizer"
        )


def check_hub_models(spec: DefinitionSpec) -> None:
    """Raise RunnerError for models of the hub that are not there, or not for this user. The hub is asked.

    The run's own model, and a mentor's and judge's where they are models of ours.
    """
    named: dict[str, tuple[str, str | None]] = {}
    if spec.model.evolution_run is None:
        named["spec.model.ref"] = (spec.model.ref, spec.model.revision)
    if "meteor" in spec.methods:
        if spec.meteor.mentor.type == "model" and spec.meteor.mentor.ref and "mentor-supervised" in spec.stages:
            named["spec.meteor.mentor.ref"] = (spec.meteor.mentor.ref, None)
        if spec.meteor.judge.type == "model" and spec.meteor.judge.ref:
            named["spec.meteor.judge.ref"] = (spec.meteor.judge.ref, None)
    from perseid.engines.models import check_on_hub

    for field, (ref, revision) in named.items():
        try:
            check_on_hub(ref, revision)
        except ModelError as error:
            raise RunnerError(f"{field}: {error}") from error
