"""Every rule of the models has its twin in CEL, and what may change is what the contract says."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from perseid.api import identity
from perseid.api.fields import alternatives
from perseid.api.spec import EvolutionRunSpec
from perseid_operator.crd import CrdError, custom_resource_definition, immutability
from perseid_operator.crd.rules import TWINS
from perseid_operator.crd.schema import child, walk

ROOT = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC = ROOT["properties"]["spec"]


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation reaches, through lists, maps and fields of models."""
    for part in alternatives(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part
            for field in part.model_fields.values():
                yield from models_in(field.annotation)
        else:
            for argument in typing.get_args(part):
                if not isinstance(argument, str | int):
                    yield from models_in(argument)


def validators(model: type[BaseModel]) -> set[str]:
    decorators = model.__pydantic_decorators__
    return {
        *decorators.model_validators,
        *decorators.field_validators,
        *decorators.root_validators,
        *decorators.validators,
    }


MODELS = set(models_in(EvolutionRunSpec))


def test_every_validator_of_the_spec_has_a_twin() -> None:
    of_models = {(model, name) for model in MODELS for name in validators(model)}
    missing = {f"{model.__name__}.{name}" for model, name in of_models - set(TWINS)}
    assert not missing, f"write a rule for {missing} in crd/rules.py"
    gone = {f"{model.__name__}.{name}" for model, name in set(TWINS) - of_models}
    assert not gone, f"remove {gone} from crd/rules.py: no model of the spec has them any more"


def test_a_model_is_found_wherever_it_stands() -> None:
    names = {model.__name__ for model in MODELS}
    assert {"ProblemSet", "BlendWeights", "OpenAISpec", "FailureRule", "ResourcesSpec"} <= names


def test_each_twin_names_fields_that_its_model_has() -> None:
    for (model, _), rules in TWINS.items():
        known = {info.alias or name for name, info in model.model_fields.items()}
        for rule in rules:
            assert rule.field is None or rule.field in known
            assert inspect.cleandoc(rule.message) == rule.message
            assert len(rule.message) < 300


def transition_rules() -> dict[str, str]:
    """Rules on updates: each field that a rule fixes, and the message. Those of sections name their fields in it."""
    found = {}
    for path, node in walk(SPEC, ("spec",)):
        for rule in node.get("x-kubernetes-validations", []):
            if "oldSelf" in rule["rule"]:
                message = rule.get("message") or rule["messageExpression"]
                named = re.findall(r"'(spec\.[\w.]+) is fixed", rule.get("messageExpression", ""))
                found |= dict.fromkeys(named or [".".join(path)], message)
    return found


def test_every_field_is_fixed_or_may_change_and_never_both() -> None:
    fixed = set(transition_rules()) - {"spec.generations.max"}
    may_change = {".".join(map(str, path)) for path in identity.MAY_CHANGE}
    for path, node in walk(SPEC, ("spec",)):
        if "properties" in node or "[]" in path or "{}" in path:
            continue
        around = {".".join(path[: depth + 1]) for depth in range(len(path))}
        assert len(around & fixed) + len(around & may_change) == 1, path


def test_the_message_names_the_field_and_says_what_to_do() -> None:
    for field, message in transition_rules().items():
        assert field in message
        assert "EvolutionRun" in message
    assert "create another EvolutionRun" in transition_rules()["spec.finetune.learningRate"]


def test_the_number_of_generations_can_only_grow() -> None:
    assert "can only grow" in transition_rules()["spec.generations.max"]


def test_a_changeable_field_that_does_not_exist_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(immutability, "MAY_CHANGE", identity.MAY_CHANGE | {("spec", "luck")})
    with pytest.raises(CrdError, match=r"spec\.luck may change or grow, but the spec has no such field"):
        custom_resource_definition()


def test_a_section_with_a_changeable_part_is_fixed_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = identity.MAY_CHANGE | {("spec", "finetune", "lora", "alpha")}
    monkeypatch.setattr(immutability, "MAY_CHANGE", changed)
    with pytest.raises(CrdError, match=r"spec\.finetune\.lora\.targetModules has no type, so no rule can compare it"):
        custom_resource_definition()
    monkeypatch.setattr(immutability, "MAY_CHANGE", identity.MAY_CHANGE | {("spec", "synthesis", "search", "rounds")})
    root = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    search = child(root, ("spec", "synthesis", "search"))
    assert search is not None
    (rule,) = search["x-kubernetes-validations"]
    for text in rule.values():
        assert "branch" in text or text == "FieldValueForbidden"
        assert "rounds" not in text
