import pytest

from perseid.api.identity import spec_changes, spec_digest
from perseid.api.spec import EvolutionRunSpec


def spec(**fields: object) -> EvolutionRunSpec:
    return EvolutionRunSpec.model_validate(fields)


def test_the_digest_does_not_depend_on_defaults_written_out() -> None:
    assert spec_digest(spec()) == spec_digest(spec(seed=0, finetune={"epochs": 3}))


@pytest.mark.parametrize("fields", [{"suspend": True}, {"generations": {"max": 7}}])
def test_what_may_change_is_no_part_of_the_digest(fields: dict[str, object]) -> None:
    assert spec_digest(spec()) == spec_digest(spec(**fields))
    changes = spec_changes(spec(), spec(**fields))
    assert len(changes) == 1
    assert changes[0].may_change


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"generations": {"patience": 2}},
        {"finetune": {"lora": {"rank": 8}}},
        {"synthesis": {"search": {"rounds": 3}}},
        {"problems": {"test": []}},
    ],
)
def test_any_other_change_gives_another_digest(fields: dict[str, object]) -> None:
    assert spec_digest(spec()) != spec_digest(spec(**fields))
    assert not any(change.may_change for change in spec_changes(spec(), spec(**fields)))


def test_a_digest_is_the_same_everywhere() -> None:
    digest = spec_digest(spec())
    assert digest.startswith("sha256:")
    assert len(digest) == 71
    assert digest == spec_digest(EvolutionRunSpec.model_validate_json(spec().model_dump_json()))


def test_changes_are_named_as_in_the_file() -> None:
    old = spec(problems={"test": [{"split": "test"}]})
    new = spec(
        problems={"test": [{"split": "dev"}]},
        finetune={"lora": {"rank": 8}},
        synthesis={"search": {"rounds": 3}, "evaluatorEndpoint": {"baseUrl": "u", "model": "m"}},
        suspend=True,
    )
    shown = [str(change) for change in spec_changes(old, new)]
    assert shown[0] == 'spec.problems.test[0].split: "test" -> "dev"'
    assert "spec.synthesis.search.rounds: nothing -> 3" in shown
    assert "spec.finetune.lora.rank: 16 -> 8" in shown
    assert "spec.suspend: false -> true" in shown
    assert any(line.startswith("spec.synthesis.evaluatorEndpoint: nothing -> {") for line in shown)
    assert len(shown) == 5


def test_equal_specs_have_no_changes() -> None:
    assert spec_changes(spec(seed=1), spec(seed=1)) == []


def test_a_list_of_another_length_is_one_change() -> None:
    changes = spec_changes(spec(), spec(problems={"test": []}))
    assert [change.path for change in changes] == ["spec.problems.test"]
