"""Checks of what a client posts, in the order and with the severity of the real server.

KFP's own message types say what is valid: its REST models, and the protocol buffers of pipelines. What is a mistake in
a parameter is 400; what is a mistake in a pipeline is 500.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import kfp_server_api
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from kfp_double.failures import INTERNAL, INVALID, Failure

MAX_OBJECT = 1_500_000
"""Bytes beyond which etcd refuses the Workflow."""
_TYPES: dict[str, tuple[type, ...]] = {
    "NUMBER_INTEGER": (int, float),  # 2.7 is taken for an integer
    "NUMBER_DOUBLE": (int, float),
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
_api = kfp_server_api.ApiClient()
_readable: set[Hashable] = set()


@dataclass
class _Response:
    data: str


def parse(data: Any, model: str) -> Any:
    """JSON as KFP's REST model. Raises Failure (400) for fields that the model does not have, and wrong types."""
    _refuse_unknown(data, model)
    try:
        return _api.deserialize(_Response(json.dumps(data)), model)
    except (ValueError, TypeError, AttributeError, kfp_server_api.ApiException) as error:
        raise Failure(INVALID, f"the request is no {model}: {error}") from None


def check_answer(data: dict[str, Any], model: str) -> dict[str, Any]:
    """An answer that KFP's own client reads without loss. Anything else is a mistake of the double's.

    Answers of one shape are read once: the client is slow, and looks at names and types alone.
    """
    shape = (model, _shape(data))
    if shape not in _readable:
        _refuse_unknown(data, model)
        again = _api.sanitize_for_serialization(_api.deserialize(_Response(json.dumps(data)), model))
        if set(again) != set(data):
            raise AssertionError(f"KFP's client loses {set(data) ^ set(again)} of a {model}")
        _readable.add(shape)
    return data


def _shape(value: Any) -> Hashable:
    if isinstance(value, dict):
        return frozenset((name, _shape(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return ("list", frozenset(_shape(inner) for inner in value))
    return type(value)


def _refuse_unknown(data: Any, model: str) -> None:
    if model.startswith("list["):
        for entry in data or ():
            _refuse_unknown(entry, model[5:-1])
        return
    kind = getattr(kfp_server_api, model, None)
    if kind is None or not getattr(kind, "attribute_map", None):
        return
    if not isinstance(data, dict):
        raise Failure(INVALID, f"unexpected {json.dumps(data)[:40]} where {model} is wanted")
    for name, value in data.items():
        found = next((field for field, key in kind.attribute_map.items() if name in (key, field)), None)
        if found is None:
            raise Failure(INVALID, f'unknown field "{name}" in {model}')
        if value is not None:
            _refuse_unknown(value, kind.openapi_types[found])


@dataclass
class Pipeline:
    """A valid pipeline."""

    name: str
    tasks: list[str]
    """In an order in which they can run."""
    retried: frozenset[str]


def check_pipeline(spec: Any) -> Pipeline:
    """Raises Failure (500) for anything that is not a pipeline."""
    if not isinstance(spec, dict):
        raise Failure(INTERNAL, "Failed to create a run: the pipeline spec is empty")
    nested = "pipeline_spec" in spec
    posted = spec["pipeline_spec"] if nested else spec
    try:
        parsed = json_format.ParseDict(posted, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        raise Failure(INTERNAL, f"Failed to create a run: invalid pipeline spec: {error}") from None
    if not parsed.pipeline_info.name or not parsed.root.dag.tasks:
        raise Failure(INTERNAL, "Failed to create a run: invalid pipeline spec: it has no name or no root")
    if nested:
        _check_platforms(spec.get("platform_spec"))
    return Pipeline(
        name=parsed.pipeline_info.name,
        tasks=_in_order({name: set(task.dependent_tasks) for name, task in parsed.root.dag.tasks.items()}),
        retried=frozenset(name for name, task in parsed.root.dag.tasks.items() if task.HasField("retry_policy")),
    )


def _check_platforms(platform_spec: Any) -> None:
    # A key that is unknown directly below platforms.kubernetes is silently accepted.
    platform = ((platform_spec or {}).get("platforms") or {}).get("kubernetes") or {}
    executors = (platform.get("deploymentSpec") or platform.get("deployment_spec") or {}).get("executors") or {}
    for name, config in executors.items():
        try:
            json_format.ParseDict(config, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
        except json_format.ParseError as error:
            raise Failure(INTERNAL, f"Failed to create a run: invalid executor {name}: {error}") from None


def check_parameters(spec: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Raises Failure (400)."""
    posted = spec.get("pipeline_spec", spec)
    declared = posted["root"].get("inputDefinitions", {}).get("parameters", {})
    extra = sorted(set(parameters) - set(declared))
    if extra:
        raise Failure(INVALID, f"Failed to create a run: parameters that the pipeline does not have: {extra}")
    for name, definition in declared.items():
        if name not in parameters:
            if not definition.get("isOptional") and "defaultValue" not in definition:
                raise Failure(INVALID, f"Failed to create a run: the parameter {name} is missing and has no default")
            continue
        value, wanted = parameters[name], definition["parameterType"]
        kinds = _TYPES.get(wanted, (object,))
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise Failure(
                INVALID, f"Failed to create a run: the parameter {name} must be {wanted}, and is {json.dumps(value)}"
            )


def _in_order(edges: dict[str, set[str]]) -> list[str]:
    done: list[str] = []
    while len(done) < len(edges):
        ready = sorted(name for name, needs in edges.items() if name not in done and needs <= set(done))
        if not ready:
            raise Failure(INTERNAL, "Failed to create a run: invalid pipeline spec: its tasks wait for each other")
        done += ready
    return done
