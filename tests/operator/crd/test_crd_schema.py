"""The generated schema against the rules of Kubernetes and against the models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from pydantic import Field
from pydantic.alias_generators import to_camel
from spec_strategies import full_spec, odd_specs, unsaid, valid_specs, verdict

from perseid.api.base import ApiModel
from perseid.api.spec import EvolutionRunSpec
from perseid.api.stages import STAGES, module_of
from perseid_operator.crd import CRD_NAME, CrdError, custom_resource_definition
from perseid_operator.crd.__main__ import main
from perseid_operator.crd.check import columns_without_field, unbounded, undescribed
from perseid_operator.crd.columns import COLUMNS, Column
from perseid_operator.crd.defaults import completed, shorten_defaults
from perseid_operator.crd.lists import ITEM_KEYS
from perseid_operator.crd.schema import child, spell, walk
from perseid_operator.crd.structural import structural_schema

CRD = custom_resource_definition()
VERSION = CRD["spec"]["versions"][0]
ROOT = VERSION["schema"]["openAPIV3Schema"]
SPEC = ROOT["properties"]["spec"]
STATUS = ROOT["properties"]["status"]
FILE = Path(__file__).parents[3] / "manifests" / "base" / "crd.yaml"


def node(path: str) -> dict[str, Any]:
    """The schema at a path such as `spec.problems.test[].source`."""
    found = child(ROOT, tuple(path.replace("[]", ".[]").split(".")))
    assert found is not None, path
    return found


def as_json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The structural schema in the dialect of the library jsonschema: what the API server checks apart from CEL."""
    result: dict[str, Any] = {}
    for key, value in schema.items():
        match key:
            case "properties":
                result[key] = {name: as_json_schema(part) for name, part in value.items()}
                result["additionalProperties"] = False
            case "items" | "additionalProperties":
                result[key] = as_json_schema(value)
            case "exclusiveMinimum" | "exclusiveMaximum":
                bound = key.replace("exclusiveM", "m")
                result[key] = schema[bound]
            case "x-kubernetes-int-or-string":
                result["type"] = ["integer", "string"]
            case _ if not key.startswith("x-kubernetes"):
                result.setdefault(key, value)
    return result


validator = jsonschema.Draft202012Validator
VALIDATOR = validator(as_json_schema(SPEC))


def test_the_crd_says_who_it_is() -> None:
    assert CRD["metadata"]["name"] == CRD_NAME == "evolutionruns.perseid.dev"
    assert CRD["spec"]["scope"] == "Namespaced"
    assert CRD["spec"]["names"]["shortNames"] == ["evorun"]
    assert "all" not in CRD["spec"]["names"]["categories"]
    assert VERSION["subresources"] == {"status": {}}


def test_every_node_is_structural() -> None:
    for path, at in walk(ROOT):
        extensions = {"x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"} & set(at)
        assert len(extensions) + ("type" in at) == 1, spell(path)
        assert not {"$ref", "title", "anyOf", "oneOf", "const", "nullable", "x-model"} & set(at), spell(path)
        assert not ("properties" in at and "additionalProperties" in at), spell(path)
        if at.get("type") == "array":
            assert "items" in at, spell(path)
        if "default" in at:
            assert at["default"] is not None, spell(path)


def test_only_the_two_known_fields_have_no_type() -> None:
    untyped = {spell(path) for path, at in walk(ROOT) if "x-kubernetes-preserve-unknown-fields" in at}
    assert untyped == {"spec.engine.vllm.enforceEager", "spec.finetune.lora.targetModules"}


def test_everything_is_bounded() -> None:
    assert list(unbounded(ROOT)) == []


def test_a_field_without_bounds_is_refused_by_name() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {}}}}
    assert list(unbounded(schema, ("spec",))) == [
        "spec.name is a text of any length: give it a max_length",
        "spec.tags is a list of any length: give it a max_length",
    ]


def _models_below(model: type[ApiModel]) -> list[type[ApiModel]]:
    return [found for below in model.__subclasses__() for found in (below, *_models_below(below))]


def test_every_field_of_the_spec_is_described_on_one_line() -> None:
    assert list(undescribed(SPEC, ("spec",))) == []
    for path, at in walk(ROOT):
        assert "\n" not in at.get("description", ""), spell(path)
    assert node("spec.conversion.gate.keepFraction")["description"].startswith("`likelihood`: share of the parsed")


def test_a_field_without_a_docstring_takes_the_description_of_its_model() -> None:
    assert node("spec.model")["description"] == "The model that generation 0 starts from."


def test_a_description_tells_the_default_which_kubectl_explain_does_not() -> None:
    assert node("spec.finetune.lora.rank")["description"] == "Rank of the update matrices. Default: 16."
    assert node("spec.suspend")["description"].endswith(" Default: false.")
    assert node("spec.engine.vllm.blockSize")["description"].endswith(" Default: auto.")
    assert node("spec.evaluation.k")["description"].endswith(" Default: [1].")
    assert "Default" not in node("spec.evaluation.sampling")["description"]
    assert "Default" not in node("spec.synthesis.search.rounds")["description"]


def test_every_list_of_objects_that_is_decided_about_exists() -> None:
    known = {f"{model.__module__}.{model.__qualname__}" for model in _models_below(ApiModel)}
    assert set(ITEM_KEYS) <= known


def test_columns_show_fields_that_exist() -> None:
    assert list(columns_without_field(COLUMNS, ROOT)) == []
    assert [column["name"] for column in VERSION["additionalPrinterColumns"] if "priority" not in column] == [
        "Phase", "Gen", "Score", "Best", "GPU-h", "Age",
    ]  # fmt: skip
    wide = [column["name"] for column in VERSION["additionalPrinterColumns"] if column.get("priority") == 1]
    assert wide == ["Reason", "Run", "Link"]


def test_a_column_without_a_field_is_refused_by_name() -> None:
    wrong = Column("Luck", ("status", "luck"), "How lucky it was.")
    assert list(columns_without_field([wrong], ROOT)) == [
        "the column Luck shows status.luck, and there is no such field"
    ]


def test_lists_of_objects_are_merged_as_decided() -> None:
    kinds = {
        spell(path): at.get("x-kubernetes-list-map-keys", at["x-kubernetes-list-type"])
        for path, at in walk(ROOT)
        if at.get("type") == "array" and at["items"].get("type") == "object"
    }
    assert kinds == {
        "spec.problems.test": "atomic",
        "spec.meteor.questions.test": "atomic",
        "spec.failurePolicy.rules": "atomic",
        "spec.pipeline.env": "atomic",
        "spec.pipeline.secretEnv": "atomic",
        "spec.pipeline.imagePullSecrets": "atomic",
        **{f"spec.pipeline.stages.{to_camel(module_of(stage))}.tolerations": "atomic" for stage in STAGES},
        "status.conditions": ["type"],
        "status.generations": "atomic",
        "status.generations[].attempts": "atomic",
    }
    for path, at in walk(ROOT):
        if "x-kubernetes-list-map-keys" in at:
            assert set(at["x-kubernetes-list-map-keys"]) <= set(at["items"]["required"]), spell(path)


def test_an_absent_field_that_is_left_to_the_profile_stays_absent() -> None:
    for path in ("rounds", "branch", "evaluator", "rollout.policy"):
        assert "default" not in node(f"spec.synthesis.search.{path}")


def test_the_status_has_no_defaults() -> None:
    assert not [spell(path) for path, at in walk(STATUS) if "default" in at]


def test_an_empty_spec_is_filled_with_the_defaults_of_the_models() -> None:
    plain = EvolutionRunSpec().model_dump(mode="json", by_alias=True, exclude_none=True)
    assert completed({}, {"properties": {"spec": SPEC}})["spec"] == plain
    assert completed({}, SPEC) == plain


def test_a_default_that_differs_inside_is_written_out() -> None:
    assert node("spec.evaluation.sampling")["default"]["temperature"] == 0.6
    assert node("spec.evaluation.sampling.temperature")["default"] == 0.8
    assert node("spec.conversion.gate")["default"] == {}


# Three seconds: thirty specs with up to a hundred random fields each.
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(valid_specs())
def test_what_the_models_accept_is_accepted_and_means_the_same_with_defaults_filled_in(spec: dict[str, Any]) -> None:
    assert VALIDATOR.is_valid(spec), list(VALIDATOR.iter_errors(spec))
    filled = completed(spec, SPEC)
    assert VALIDATOR.is_valid(filled)
    assert EvolutionRunSpec.model_validate(filled) == EvolutionRunSpec.model_validate(spec)
    assert EvolutionRunSpec.model_validate(filled).model_dump(mode="json", by_alias=True, exclude_none=True) == filled
    assert completed(filled, SPEC) == filled


def test_the_spec_that_odd_values_are_put_into_says_something_about_every_field() -> None:
    elsewhere = (  # In another of the same kind.
        "spec.model.evolutionRun",
        "spec.problems.",
        "spec.pipeline.stages.",
        "spec.meteor.questions.dev.",
        "spec.meteor.questions.test[].",
        "spec.meteor.selfEvolution.search.",
    )
    assert [field for field in unsaid(SPEC, full_spec()) if not field.startswith(elsewhere)] == []


# A few seconds: every field of the spec with every odd value.
def test_schema_and_models_give_the_same_verdict_on_every_odd_value_of_every_field() -> None:
    verdicts = {True: 0, False: 0}
    sections = {name: validator(as_json_schema(part)) for name, part in SPEC["properties"].items()}
    for path, value, spec in odd_specs():
        accepted, breaks_only_a_rule = verdict(spec)
        section = str(path[0])
        assert sections[section].is_valid(spec[section]) == (accepted or breaks_only_a_rule), (path, value)
        verdicts[accepted] += 1
    assert verdicts[True] > 200
    assert verdicts[False] > 1000


class Unbounded(ApiModel):
    names: dict[str, Annotated[str, Field(max_length=3)]] = {}
    """Names."""


class Odd(ApiModel):
    either: Annotated[list[int], Field(max_length=2)] | Annotated[list[str], Field(max_length=2)] = []
    """One or the other."""
    number: Literal["none"] | Annotated[int, Field(ge=1, le=9)] | None = 3
    """Null would be filled in."""


def test_a_map_with_names_of_any_length_is_refused_by_name() -> None:
    with pytest.raises(CrdError, match=r"spec\.names has names of any length"):
        structural_schema(Unbounded, "spec", defaults=True)


def test_what_no_structural_schema_can_say_is_refused_by_name() -> None:
    with pytest.raises(CrdError) as raised:
        structural_schema(Odd, "spec", defaults=True)
    assert raised.value.problems == (
        "spec.either is a choice between two forms of array has no structural schema",
        "spec.number may be null but has another default: Kubernetes takes null for absent and fills it in",
    )


class Counted(ApiModel):
    many: Literal["all"] | Annotated[int, Field(ge=1, le=9)] = "all"
    """How many."""


def test_a_number_or_a_word_is_an_int_or_string() -> None:
    schema = structural_schema(Counted, "spec", defaults=True)["properties"]["many"]
    assert schema["x-kubernetes-int-or-string"] is True
    checks = validator(as_json_schema(schema))
    verdicts = {repr(value): checks.is_valid(value) for value in (1, 9, "all", 0, 10, "none", 2.5, True, None, [], {})}
    assert [value for value, valid in verdicts.items() if valid] == ["1", "9", "'all'"]


def test_an_object_with_rules_has_its_default_written_out() -> None:
    rule = {"x-kubernetes-validations": [{"rule": "self.a > 0", "message": "a"}]}
    inner = {"type": "object", "properties": {"a": {"type": "integer", "default": 1}}, "default": {"a": 1}}
    root = {"type": "object", "properties": {"free": {**inner}, "ruled": {**inner, **rule}}}
    shorten_defaults(root)
    assert root["properties"]["free"]["default"] == {}
    assert root["properties"]["ruled"]["default"] == {"a": 1}


# Two seconds: the text is long, and the library that writes it is careful.
def test_the_file_in_manifests_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == FILE.read_text()


def test_no_field_has_a_name_that_kubectl_takes_for_something_else() -> None:
    # kubectl reads YAML 1.1: `n: 4` arrives at the API server as the field `false`, and is refused as unknown.
    names = {path[-1] for path, _ in walk(ROOT) if path}
    assert not {name for name in names if name.lower() in ("y", "n", "yes", "no", "on", "off", "true", "false", "null")}


def test_the_yaml_reads_back_as_kubectl_reads_it() -> None:
    assert yaml.load(FILE.read_text(), Loader=yaml.CSafeLoader) == CRD  # PyYAML reads YAML 1.1, as kubectl does.
    assert len(json.dumps(CRD)) < 250_000, "kubectl's client-side apply keeps a copy in an annotation of 256 KiB"


# Four seconds: it writes the text three times.
def test_a_stale_or_missing_file_fails_with_the_command_that_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "crd.yaml"
    assert main(["--check", str(file)]) == 1
    assert "does not exist" in capsys.readouterr().err
    file.write_text(FILE.read_text())
    assert main(["--check", str(file)]) == 0
    assert capsys.readouterr().err == ""
    file.write_text(FILE.read_text().replace("maximum: 1024", "maximum: 1025", 1))
    assert main(["--check", str(file)]) == 1
    said = capsys.readouterr().err
    assert "is stale" in said
    assert f"python -m perseid_operator.crd > {file}" in said


# A second: another process, to see what it imports.
def test_the_command_needs_neither_kopf_nor_kfp_nor_torch() -> None:
    code = (
        "import sys, perseid_operator.crd.__main__ as m; m.main(['--check', sys.argv[1]]);"
        "print([name for name in ('kopf', 'kfp', 'torch', 'kubernetes', 'kubernetes_asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(FILE)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
