"""The stages of a generation: their names, their order, and which of them a run goes through."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field

StageName = Literal[
    "synthesize", "convert", "finetune", "mentor-supervised", "self-assessment", "self-evolution", "evaluate"
]
STAGES: tuple[StageName, ...] = get_args(StageName)
"""All stages there are, in the order in which a generation goes through those of its methods."""
LAST_STAGE: StageName = "evaluate"
"""Every generation ends with it; it writes what the generation was worth."""

MeteorStage = Literal["mentor-supervised", "self-assessment", "self-evolution"]
METEOR_STAGES: tuple[MeteorStage, ...] = get_args(MeteorStage)
"""In the paper's order (arXiv 2411.11933)."""
SRA_MCTS_STAGES: tuple[StageName, ...] = ("synthesize", "convert", "finetune")
"""Search for plans, plan to code, training (arXiv 2411.11053)."""

ENGINELESS_STAGES: tuple[StageName, ...] = ("finetune",)
"""Those that run no engine: they train and ask nothing."""

TRAIN_JOB_STAGES: tuple[StageName, ...] = ("finetune", "mentor-supervised", "self-assessment")
"""Those that learn from answers, which `spec.pipeline.trainJob` spreads over nodes."""

Method = Literal["sra-mcts", "meteor"]
Methods = Annotated[list[Method], Field(min_length=1, max_length=2)]
MeteorStages = Annotated[list[MeteorStage], Field(min_length=1, max_length=3)]


def stages_of(methods: Sequence[Method], meteor: Sequence[MeteorStage]) -> tuple[StageName, ...]:
    """The stages that a generation goes through, in their order; `meteor` are those that METEOR has if it is a method.

    In whatever order methods and stages are named: those that train start from the model that the one before has made.
    """
    chosen: set[StageName] = {LAST_STAGE}
    if "sra-mcts" in methods:
        chosen |= set(SRA_MCTS_STAGES)
    if "meteor" in methods:
        chosen |= set(meteor)
    return tuple(stage for stage in STAGES if stage in chosen)


SHARDED_STAGE: StageName = "synthesize"
"""The stage that `spec.pipeline.shards` splits. It joins in the end what its shards have found."""
SHARD = f"{SHARDED_STAGE}-shard"
"""What a shard's task is called in a pipeline, and what the names of the shards' directories begin with."""
SHARDS_TASK = f"{SHARDED_STAGE}-shards"
"""What the task of all shards together is called in a pipeline."""


def shard_name(shard: int) -> str:
    """What a shard is called, and its directory: beside the stage's own, because each directory has one writer."""
    return f"{SHARD}-{shard:02d}"


def stage_of(name: str) -> StageName | None:
    """The stage that a stage's or a shard's name, or that of their task, belongs to; None for any other name."""
    if name == SHARD or re.fullmatch(rf"{SHARD}-[0-9]{{2}}", name):
        return SHARDED_STAGE
    return next((stage for stage in STAGES if stage == name), None)


def module_of(stage: str) -> str:
    """A stage's name, or `SHARD`, as Python and KFP's functions spell it."""
    return stage.replace("-", "_")
