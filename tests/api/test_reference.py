"""Every field of the contract can be explained, and a wrong path leads to a right one."""

from __future__ import annotations

import pytest

from perseid.api.fields import annotation_at
from perseid.api.reference import UnknownFieldError, field_reference, parse_path, walk

ALL = list(walk())


def test_every_field_of_the_spec_has_a_type_and_a_description() -> None:
    assert len(ALL) > 200
    undescribed = [one.name for one in ALL if not one.description]
    assert set(undescribed) <= {"apiVersion", "kind"}
    assert all(one.kind for one in ALL)
    odd = {word for one in ALL for word in one.kind.split() if word[:1].isupper()}
    assert not odd, "a type is told by the name of a class"


def test_every_field_is_found_by_its_own_name() -> None:
    for one in ALL:
        assert parse_path(one.name if one.path else "") == one.path
        assert annotation_at(one.path) is not None


def test_a_number_has_its_range_and_its_default() -> None:
    seed = field_reference(parse_path("spec.seed"))
    assert (seed.kind, seed.default, seed.required, seed.may_change) == ("whole number", "0", False, False)
    assert seed.allowed == "at least 0 and below 2147483648"


def test_a_choice_has_its_values_and_a_list_says_what_its_items_may_be_and_how_many() -> None:
    assert "vllm" in field_reference(parse_path("spec.engine.type")).allowed.split(" | ")
    methods = field_reference(parse_path("spec.methods"))
    assert methods.kind == "list of texts"
    assert methods.default == '["sra-mcts"]'
    assert methods.allowed == "sra-mcts | meteor; at least 1 and at most 2 items"


def test_what_may_change_while_a_run_exists_says_so_also_below_a_field() -> None:
    assert field_reference(parse_path("spec.suspend")).may_change
    assert field_reference(parse_path("spec.budget")).may_change
    assert all(one.may_change for one in walk(parse_path("spec.budget")))
    assert not field_reference(parse_path("spec.generations")).may_change
    assert field_reference(parse_path("spec.generations.max")).may_change


def test_a_required_field_has_no_default() -> None:
    name = field_reference(parse_path("metadata.name"))
    assert (name.required, name.default) == (True, None)
    assert "matches ^[a-z0-9]" in name.allowed


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ()),
        ("spec", ("spec",)),
        ("evorun.spec.seed", ("spec", "seed")),
        ("spec.problems.test.source", ("spec", "problems", "test", 0, "source")),
        ("spec.problems.test[].source", ("spec", "problems", "test", 0, "source")),
        ("spec.problems.test[3].source", ("spec", "problems", "test", 0, "source")),
    ],
)
def test_paths_are_read_as_people_write_them(text: str, path: tuple[str | int, ...]) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spec.sintesis", "spec has no field sintesis; did you mean spec.synthesis?"),
        ("spec.learningRate", "there is spec.finetune.learningRate"),
        ("spec.seed.x", "spec.seed is a value: it has no fields"),
        ("spec.qqqq", "spec has no field qqqq; it has "),
        ("nonsense", "EvolutionRun has no field nonsense; it has apiVersion, kind, metadata, spec"),
    ],
)
def test_a_wrong_path_leads_to_a_right_one(text: str, said: str) -> None:
    with pytest.raises(UnknownFieldError) as caught:
        parse_path(text)
    assert said in str(caught.value)
