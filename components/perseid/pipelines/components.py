"""The stages as lightweight KFP components.

KFP copies a component's source into the pipeline: a body must import what it needs, and stays a call into
perseid.stages. The annotations must be real objects, so this module has no `from __future__ import annotations`. Each
component takes the result of the one `before` it, which draws the edges of the DAG in the UI; the first
one has none, or those of its `shards`. What the other six parameters are says `perseid.api.attempt.Attempt`.
"""

# KFP knows `dict`, and no parameters of it.
# mypy: disable-error-code="type-arg"

from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl

from perseid.api.pipeline import STAGE_IMAGE
from perseid.api.stages import StageName

IMAGE = STAGE_IMAGE
"""KFP wants an image when it decorates; `generation.py` sets the spec's own on every task."""


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def synthesize_shard(
    run: dict,
    run_id: str,
    generation: int,
    attempt: int,
    storage: str,
    start_model: str,
    shard: int,
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Search for plans of one shard's problems."""
    from perseid.stages.kfp import run_component

    return run_component("synthesize", (run, run_id, generation, attempt, storage, start_model), metrics, shard=shard)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def synthesize(
    run: dict,
    run_id: str,
    generation: int,
    attempt: int,
    storage: str,
    start_model: str,
    metrics: dsl.Output[dsl.Metrics],
    yields: dsl.Output[dsl.Markdown],
    shards: list = [],
) -> str:
    """Search for plans, or join what the shards have found."""
    from perseid.stages.kfp import run_component

    return run_component("synthesize", (run, run_id, generation, attempt, storage, start_model), metrics, yields=yields)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def convert(
    run: dict,
    run_id: str,
    generation: int,
    attempt: int,
    storage: str,
    start_model: str,
    metrics: dsl.Output[dsl.Metrics],
    yields: dsl.Output[dsl.Markdown],
    before: str = "",
) -> str:
    """Turn plans into code, verify it and write training records."""
    from perseid.stages.kfp import run_component

    return run_component("convert", (run, run_id, generation, attempt, storage, start_model), metrics, yields=yields)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finetune(
    run: dict,
    run_id: str,
    generation: int,
    attempt: int,
    storage: str,
    start_model: str,
    metrics: dsl.Output[dsl.Metrics],
    model: dsl.Output[dsl.Model],
    before: str = "",
) -> str:
    """Train on the records."""
    from perseid.stages.kfp import run_component

    return run_component("finetune", (run, run_id, generation, attempt, storage, start_model), metrics, model=model)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def mentor_supervised(
    run: dict,
    run_id: str,
    generation: int,
    attempt: int,
    storage: str,
    start_model: str,
    metrics: dsl.Output[dsl.Metrics],
    model: dsl.Output[dsl.Model],
    yields: dsl.Output[dsl.Markdown],
    before: str = "",
) -> str:
    """Learn from a mentor's answers."""
    from perseid.stages.kfp import run_component

    return run_component(
        "mentor-supervised",
        (run, run_id, generation, attempt, storage, start_model),
        metrics,
        model=model,
        yields=yields,
    )


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def self_assessment(
    run: dict,
    run_id: str,
    generation: int,
    attempt: int,
    storage: str,
    start_model: str,
    metrics: dsl.Output[dsl.Metrics],
    model: dsl.Output[dsl.Model],
    yields: dsl.Output[dsl.Markdown],
    before: str = "",
) -> str:
    """Answer, be judged, revise, and learn from what became right."""
    from perseid.stages.kfp import run_component

    return run_component(
        "self-assessment", (run, run_id, generation, attempt, storage, start_model), metrics, model=model, yields=yields
    )


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def self_evolution(
    run: dict,
    run_id: str,
    generation: int,
    attempt: int,
    storage: str,
    start_model: str,
    metrics: dsl.Output[dsl.Metrics],
    model: dsl.Output[dsl.Model],
    yields: dsl.Output[dsl.Markdown],
    before: str = "",
) -> str:
    """Learn from expensive decoding what cheap decoding gets wrong."""
    from perseid.stages.kfp import run_component

    return run_component(
        "self-evolution", (run, run_id, generation, attempt, storage, start_model), metrics, model=model, yields=yields
    )


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    run: dict,
    run_id: str,
    generation: int,
    attempt: int,
    storage: str,
    start_model: str,
    metrics: dsl.Output[dsl.Metrics],
    scores: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    candidate: dsl.Output[dsl.Model],
    before: str = "",
) -> str:
    """Score the trained model and the one it started from."""
    from perseid.stages.kfp import run_component

    return run_component(
        "evaluate",
        (run, run_id, generation, attempt, storage, start_model),
        metrics,
        generation=(scores, report, candidate),
    )


COMPONENTS: Mapping[StageName, Callable[..., Any]] = {
    "synthesize": synthesize,
    "convert": convert,
    "finetune": finetune,
    "mentor-supervised": mentor_supervised,
    "self-assessment": self_assessment,
    "self-evolution": self_evolution,
    "evaluate": evaluate,
}
