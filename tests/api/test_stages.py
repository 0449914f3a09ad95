"""Which stages a run goes through."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from perseid.api.pipeline import StagesSpec
from perseid.api.spec import EvolutionRunSpec
from perseid.api.stages import (
    LAST_STAGE,
    METEOR_STAGES,
    SRA_MCTS_STAGES,
    STAGES,
    MeteorStage,
    Method,
    module_of,
    stages_of,
)

METHODS = st.lists(st.sampled_from(get_args(Method)), min_size=1, max_size=2)
CHOSEN = st.lists(st.sampled_from(get_args(MeteorStage)), min_size=1, max_size=3)


@given(METHODS, CHOSEN)
def test_stages_come_in_their_order_whatever_order_they_are_named_in(
    methods: list[Method], meteor: list[MeteorStage]
) -> None:
    stages = stages_of(methods, meteor)
    assert list(stages) == sorted(set(stages), key=STAGES.index)
    assert stages[-1] == LAST_STAGE
    assert set(SRA_MCTS_STAGES) <= set(stages) or "sra-mcts" not in methods
    assert {stage for stage in stages if stage in METEOR_STAGES} == (set(meteor) if "meteor" in methods else set())
    assert EvolutionRunSpec.model_validate({"methods": methods, "meteor": {"stages": meteor}}).stages == stages


def test_a_run_that_says_nothing_goes_through_sra_mcts() -> None:
    assert EvolutionRunSpec().stages == ("synthesize", "convert", "finetune", "evaluate")


def test_every_stage_has_its_own_resources_under_the_name_that_yaml_spells_in_camel_case() -> None:
    fields = {info.alias or name: name for name, info in StagesSpec.model_fields.items()}
    assert list(fields.values()) == [module_of(stage) for stage in STAGES]
    for name, alias in zip(STAGES, fields, strict=True):
        given_resources = StagesSpec.model_validate({alias: {"gpus": 3}})
        assert [given_resources.of(stage).gpus for stage in STAGES] == [3 if stage == name else 0 for stage in STAGES]
