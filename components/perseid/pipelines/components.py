"""The stages as lightweight KFP components.

KFP copies a component's source into the pipeline: a body must import what it needs, and stays a call into
perseid.stages. The annotations must be real objects, so this module has no `from __future__ import annotations`. Each
component takes the result of the one before it, which draws the edges of the DAG and the lineage in the UI. What the
six parameters are says `perseid.api.attempt.Attempt`.
"""

# KFP knows `dict`, and no parameters of it.
# mypy: disable-error-code="type-arg"

from kfp import dsl

IMAGE = "perseid-stage:latest"
"""KFP wants an image when it decorates; `generation.py` sets the spec's own on every task."""


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def synthesize(
    run: dict,
    run_id: str,
    generation: int,
    attempt: int,
    storage: str,
    start_model: str,
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Search for plans."""
    from perseid.stages.kfp import run_component

    return run_component("synthesize", (run, run_id, generation, attempt, storage, start_model), metrics)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def convert(
    run: dict,
    run_id: str,
    generation: int,
    attempt: int,
    storage: str,
    start_model: str,
    synthesized: str,
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Turn plans into code, verify it and write training records."""
    from perseid.stages.kfp import run_component

    return run_component("convert", (run, run_id, generation, attempt, storage, start_model), metrics)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finetune(
    run: dict,
    run_id: str,
    generation: int,
    attempt: int,
    storage: str,
    start_model: str,
    converted: str,
    metrics: dsl.Output[dsl.Metrics],
    model: dsl.Output[dsl.Model],
) -> str:
    """Train on the records."""
    from perseid.stages.kfp import run_component

    return run_component("finetune", (run, run_id, generation, attempt, storage, start_model), metrics, model)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    run: dict,
    run_id: str,
    generation: int,
    attempt: int,
    storage: str,
    start_model: str,
    finetuned: str,
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Score the trained model and the one it started from."""
    from perseid.stages.kfp import run_component

    return run_component("evaluate", (run, run_id, generation, attempt, storage, start_model), metrics)
