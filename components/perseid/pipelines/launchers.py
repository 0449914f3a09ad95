"""The stages that a TrainJob runs, as lightweight KFP components: each launches it and waits for its end.

Names and parameters are those of `components.py`, whose rules hold here, too.
"""

# mypy: disable-error-code="type-arg"

from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl

from perseid.api.stages import StageName
from perseid.pipelines.components import IMAGE


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
    """Train on the records, on several nodes."""
    from perseid_trainjob.component import launch_component

    return launch_component("finetune", (run, run_id, generation, attempt, storage, start_model), metrics, model=model)


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
    """Learn from a mentor's answers, on several nodes."""
    from perseid_trainjob.component import launch_component

    return launch_component(
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
    """Answer, be judged, revise, and learn from what became right, on several nodes."""
    from perseid_trainjob.component import launch_component

    return launch_component(
        "self-assessment", (run, run_id, generation, attempt, storage, start_model), metrics, model=model, yields=yields
    )


LAUNCHERS: Mapping[StageName, Callable[..., Any]] = {
    "finetune": finetune,
    "mentor-supervised": mentor_supervised,
    "self-assessment": self_assessment,
}
"""Of `TRAIN_JOB_STAGES`."""
