"""Random specs, made from what pydantic says about the models and not from the CRD that is under test."""

from __future__ import annotations

import copy
import json
import string
from collections.abc import Iterator
from functools import cache
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st
from pydantic import ValidationError

from perseid.api.spec import EvolutionRunSpec

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
LABEL_KEYS = st.text(string.ascii_lowercase, min_size=1, max_size=12)


def verdict(spec: Any) -> tuple[bool, bool]:
    """Whether the contract takes the spec as it stands, types included; if not, whether only a rule between fields is
    broken."""
    try:
        EvolutionRunSpec.model_validate_json(json.dumps(spec), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        return False, {details["type"] for details in error.errors()} == {"value_error"}
    return True, False


@cache
def _definitions() -> dict[str, Any]:
    return EvolutionRunSpec.model_json_schema()


def _of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a JSON schema, without null: an absent field says it."""
    if "$ref" in schema:
        return st.deferred(lambda: _of(_definitions()["$defs"][schema["$ref"].removeprefix("#/$defs/")]))
    if "anyOf" in schema:
        return st.one_of(*(_of(option) for option in schema["anyOf"] if option.get("type") != "null"))
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            low = schema.get("minimum", 0)
            high = schema.get("maximum", schema.get("exclusiveMaximum", 2**53) - 1)
            return st.one_of(st.integers(low, high), st.sampled_from([low, high]))
        case "number":
            return st.floats(
                schema.get("minimum", schema.get("exclusiveMinimum", 0)),
                schema.get("maximum", schema.get("exclusiveMaximum", 1e9)),
                exclude_min="exclusiveMinimum" in schema,
                exclude_max="exclusiveMaximum" in schema,
                allow_subnormal=False,
            )
        case "string":
            if "pattern" in schema:
                return st.from_regex(schema["pattern"], fullmatch=True, alphabet=st.characters(codec="ascii")).filter(
                    lambda text: len(text) <= 32
                )
            return TEXT
        case "array":
            most = min(schema.get("maxItems", 3), 3)
            return st.lists(_of(schema["items"]), min_size=schema.get("minItems", 0), max_size=most)
        case "object" if "properties" in schema:
            return _object(schema)
        case "object":
            return st.dictionaries(LABEL_KEYS, _of(schema["additionalProperties"]), max_size=3)
    raise AssertionError(f"no strategy for {schema}")


def _object(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: _of(part) for name, part in schema["properties"].items()}
    required = {name: fields.pop(name) for name in schema.get("required", [])}
    return st.fixed_dictionaries(required, optional=fields)


def fitting_specs() -> st.SearchStrategy[dict[str, Any]]:
    """Specs whose every field is right by itself; the rules between fields may be broken."""
    return st.deferred(lambda: _of(_definitions()))


@st.composite
def valid_specs(draw: st.DrawFn) -> dict[str, Any]:
    """Specs that the contract accepts."""
    data = draw(fitting_specs())
    for problems in (data.get("problems", {}).get("train"), data.get("problems", {}).get("dev")):
        if problems is not None:
            _mend(problems)
    for problems in data.get("problems", {}).get("test", []):
        _mend(problems)
    if "meteor" in data:
        _mend_meteor(data["meteor"])
    if "k" in data.get("evaluation", {}):
        data["evaluation"]["samples"] = 1024
    for stage in data.get("pipeline", {}).get("stages", {}).values():
        for one in stage.get("tolerations", []):
            _mend_toleration(one)
    if "trainJob" in data.get("pipeline", {}):
        data.setdefault("storage", {})["uri"] = "s3://a/b"
        data.setdefault("finetune", {})["batchSize"] = 64
    if "evolutionRun" in data.get("model", {}):
        data["model"] = {"evolutionRun": data["model"]["evolutionRun"]}
    assume(verdict(data)[0])
    return data


def _mend(problems: dict[str, Any]) -> None:
    """Make a random problem set one that has what its source needs."""
    if problems.get("source", "pack") == "pack":
        problems["split"] = "dev"
    if problems.get("source", "pack") in ("pack", "humaneval"):
        problems.pop("path", None)
    else:
        problems.setdefault("path", "a")
        problems.setdefault("split", "train")


def _mend_toleration(one: dict[str, Any]) -> None:
    one.setdefault("key", "a")
    if one.get("operator") == "Exists":
        one.pop("value", None)
    if "tolerationSeconds" in one:
        one["effect"] = "NoExecute"


def _mend_meteor(meteor: dict[str, Any]) -> None:
    questions = meteor.get("questions", {})
    for one in (questions.get("train"), questions.get("dev"), *questions.get("test", [])):
        if one is not None and one.get("source", "pack") == "pack":
            one["split"] = "dev"
            one.pop("path", None)
        elif one is not None:
            one.setdefault("path", "a")
        if one is not None and one.get("source", "pack") != "hub":
            one.pop("config", None)
    needed = {
        "openai": ("openai", {"baseUrl": "b", "model": "m"}),
        "model": ("ref", "a"),
        "recorded": ("path", "a"),
    }
    for role, usual in ((meteor.get("mentor"), "recorded"), (meteor.get("judge"), "verifier")):
        if role is not None:
            if role.setdefault("type", usual) in needed:
                role.setdefault(*needed[role["type"]])
            if "price" in role:
                role["price"]["currency"] = "USD"
    if "selfEvolution" in meteor:
        _mend_decodings(meteor["selfEvolution"])


def _mend_decodings(evolution: dict[str, Any]) -> None:
    cheap = evolution.get("cheap", "greedy")
    if "expensive" in evolution or cheap == "best-of-n":
        others = [one for one in dict.fromkeys(evolution.get("expensive", [])) if one != cheap]
        evolution["expensive"] = others or ["beam" if cheap != "beam" else "sample"]
    if "search" in (cheap, *evolution.get("expensive", [])):
        evolution["critique"] = "self-verdict"
        evolution.get("search", {}).pop("evaluator", None)
        if evolution.get("search", {}).get("algorithm") == "direct":
            del evolution["search"]["algorithm"]


LONG_TEXT = "x" * 1025
ODD_VALUES = (
    True, 0, -1, 1, 3.5, 10**12, "", "x", "auto", "8", LONG_TEXT, [], ["a"] * 70, [1], {}, {"a": "b"}, {"a": 1},
)  # fmt: skip


def full_spec() -> dict[str, Any]:
    """A valid spec that says something about every field."""
    resources = {"cpu": "4", "memory": "8Gi", "sharedMemory": "1Gi", "nodeSelector": {"a": "b"}, "labels": {"a": "b"}}
    toleration = {"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": 5}
    resources |= {"tolerations": [toleration]}
    endpoint = {"baseUrl": "http://x/v1", "model": "m", "apiKeyEnv": "KEY"}
    search = {
        "evaluator": {"type": "blend"},
        "rounds": 3, "branch": 2, "keep": 2, "exploration": 1.0, "unvisited": "first", "unvisitedBonus": 1.0,
        "siblings": "history", "reflection": "none", "endGate": 9.0, "minSteps": 1, "maxDepth": 5,
        "timeLimitSeconds": 5.0, "backpropagation": "all-children", "completenessCheck": True, "minPlanWords": 3,
        "temperature": 1.0, "topP": 0.9, "maxStepTokens": 64, "maxReflectionTokens": 64,
        "rollout": {"policy": "greedy", "branches": 1, "steps": 1, "alpha": 0.5, "attach": True},
    }  # fmt: skip
    price = {"currency": "EUR", "prompt": 1.0, "cachedPrompt": 0.5, "completion": 2.0}
    role = {"type": "openai", "openai": endpoint, "ref": "r", "path": "p", "price": price, "record": "f"}
    spec = {
        "model": {"ref": "a/b", "revision": "c"},
        "methods": ["sra-mcts", "meteor"],
        "problems": {
            "train": {"name": "n", "source": "pack", "split": "train", "limit": 3, "levels": ["easy"]},
            "dev": {"source": "hub", "path": "p", "split": "dev"},
        },
        "synthesis": {"search": search, "policyEndpoint": endpoint, "evaluatorEndpoint": endpoint},
        "conversion": {"instructions": ["Do."], "sampling": {"stop": ["x"]}},
        "sandbox": {"workers": 2},
        "meteor": {
            "questions": {
                "train": {
                    "name": "q",
                    "source": "hub",
                    "path": "p",
                    "split": "train",
                    "config": "c",
                    "limit": 3,
                    "columns": {"id": "i", "title": "t", "body": "b", "field": "f", "answer": "a"},
                },
            },
            "mentor": {**role, "sampling": {"stop": ["x"]}},
            "judge": {**role, "type": "model"},
        },
        "finetune": {"processes": 2},
        "pipeline": {
            "stages": {"synthesize": {**resources, "timeoutSeconds": 5}, "selfAssessment": resources},
            "image": "a/stage:1",
            "cacheClaim": "models",
            "queue": "research",
            "trainJob": {"numNodes": 2},
            "serviceAccount": "runner",
            "imagePullSecrets": [{"name": "registry"}],
        },
        "storage": {"uri": "s3://a/b"},
        "startDeadlineSeconds": 5,
        "activeDeadlineSeconds": 50,
        "ttlSecondsAfterFinished": 5,
        "budget": {"gpuHours": 5.0, "mentorCost": 1.0, "mentorTokens": 1000},
        "failurePolicy": {"rules": [{"action": "fail", "reasons": ["RunFailed"], "stages": ["self-assessment"]}]},
        "managedBy": "me",
    }
    return EvolutionRunSpec.model_validate(spec).model_dump(mode="json", by_alias=True, exclude_none=True)


def unsaid(schema: dict[str, Any], value: Any, path: str = "spec") -> Iterator[str]:
    """Fields of a structural schema about which the value says nothing."""
    if "items" in schema and isinstance(value, list):
        for item in value[:1]:
            yield from unsaid(schema["items"], item, f"{path}[]")
    for name, part in schema.get("properties", {}).items():
        if name not in value:
            yield f"{path}.{name}"
        else:
            yield from unsaid(part, value[name], f"{path}.{name}")


def _places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _places(part, (*path, key))


def odd_specs() -> Iterator[tuple[tuple[str | int, ...], Any, dict[str, Any]]]:
    """The full spec with one value replaced: the place, the odd value and the spec, for every place and odd value."""
    full = full_spec()
    for path in _places(full):
        for value in ODD_VALUES:
            spec = copy.deepcopy(full)
            parent: Any = spec
            for part in path[:-1]:
                parent = parent[part]
            parent[path[-1]] = value
            yield path, value, spec
