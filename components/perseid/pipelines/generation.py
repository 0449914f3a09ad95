"""One generation's pipeline, built from a spec and compiled to KFP's intermediate representation.

No `from __future__ import annotations` here: KFP reads the pipeline's annotations as objects.
"""

# KFP knows `dict`, and no parameters of it.
# mypy: disable-error-code="type-arg"

import tempfile
from collections.abc import Callable
from itertools import dropwhile
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler, dsl, kubernetes

from perseid.api.identity import definition
from perseid.api.passage import wrap
from perseid.api.pipeline import (
    CACHE,
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    QUEUE_LABEL,
    SCRATCH,
    GenerationTemplate,
    PipelineSpec,
    ResourcesSpec,
)
from perseid.api.spec import EvolutionRun
from perseid.api.stages import SHARDED_STAGE, SHARDS_TASK
from perseid.pipelines import components, launchers

GENERATION_PIPELINE = "perseid-generation"
FIRST_RUN_ID = "00000000-0000-0000-0000-000000000000"
"""Run id of a pipeline that somebody starts by hand."""


def build_pipeline(run: EvolutionRun, shards_at_once: int = 0) -> Callable[..., Any]:
    """The pipeline of one generation attempt. `shards_at_once`: 0 for all.

    Its parameters are the fields of `perseid.api.attempt.Attempt`: the defaults are the first attempt at the first
    generation, with the run itself in them, so that the compiled pipeline can be started as it is in the Kubeflow UI;
    only `storage` must be given.
    """
    template = run.spec.template
    # KFP knows no null, and reads a parameter's default as data.
    as_data = wrap(definition(run).model_dump(mode="json", by_alias=True, exclude_none=True))

    @dsl.pipeline(
        name=f"{GENERATION_PIPELINE}-{run.metadata.name}",
        description=f"One generation of {run.metadata.name}: {', '.join(template.stages)}.",
    )
    def generation(
        storage: str,
        run: dict = as_data,
        run_id: str = FIRST_RUN_ID,
        generation: int = 0,
        attempt: int = 0,
        start_model: str = wrap(run.spec.model.ref),
    ) -> str:
        return _stages(template, run, run_id, generation, attempt, storage, start_model, shards_at_once)

    return generation


def build_template(template: GenerationTemplate) -> Callable[..., Any]:
    """The pipeline of any generation of any run with these stages, images and resources: every parameter must be given.
    What an operator compiles, once for all runs that share them."""

    @dsl.pipeline(name=GENERATION_PIPELINE, description=f"One generation: {', '.join(template.stages)}.")
    def generation(storage: str, run: dict, run_id: str, generation: int, attempt: int, start_model: str) -> str:
        return _stages(template, run, run_id, generation, attempt, storage, start_model)

    return generation


def _stages(
    template: GenerationTemplate,
    run: Any,
    run_id: Any,
    generation: Any,
    attempt: Any,
    storage: Any,
    start_model: Any,
    shards_at_once: int = 0,
) -> Any:
    """The DAG, a chain; returns the last stage's output. `shards_at_once`: 0 for all."""
    common = {
        "run": run,
        "run_id": run_id,
        "generation": generation,
        "attempt": attempt,
        "storage": storage,
        "start_model": start_model,
    }
    pipeline = template.pipeline
    output: Any = None
    for stage in template.stages:
        resources = pipeline.stages.of(stage)
        taken = {} if output is None else {"before": output}
        if stage == SHARDED_STAGE and pipeline.shards > 1:
            taken = {"shards": _shards(template, common, shards_at_once)}
            resources = _to_join(resources)
        if pipeline.nodes_of(stage) > 1:
            task = launchers.LAUNCHERS[stage](**common, **taken)
            _place(task, pipeline, ResourcesSpec(retries=resources.retries))  # its resources are those of the nodes
            _give_variables(task, pipeline, ResourcesSpec())
            _tell_its_pod(task)
        else:
            task = components.COMPONENTS[stage](**common, **taken)
            _place(task, pipeline, resources)
            _give_environment(task, pipeline, resources)
        output = task.outputs["Output"]
    return output


def _shards(template: GenerationTemplate, common: dict[str, Any], at_once: int) -> Any:
    """The stage's shards side by side; returns their outputs as one."""
    with dsl.ParallelFor(list(range(template.pipeline.shards)), name=SHARDS_TASK, parallelism=at_once) as shard:
        task = components.synthesize_shard(shard=shard, **common)
        _place(task, template.pipeline, template.pipeline.stages.of(SHARDED_STAGE))
        _give_environment(task, template.pipeline, template.pipeline.stages.of(SHARDED_STAGE))
    return dsl.Collected(task.outputs["Output"])


def _to_join(shard: ResourcesSpec) -> ResourcesSpec:
    """What it takes to join what shards have found: their files, and neither a model nor a place in a GPU's queue."""
    return ResourcesSpec(scratch=shard.scratch, retries=shard.retries, timeout_seconds=shard.timeout_seconds)


def _place(task: dsl.PipelineTask, spec: PipelineSpec, resources: ResourcesSpec) -> None:
    task.set_container_image(spec.stage_image)
    # Sampling is not a pure function of the inputs that KFP fingerprints, and a stage finds its own finished work.
    task.set_caching_options(False)
    if resources.cpu:
        task.set_cpu_request(resources.cpu)
    if resources.memory:
        task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if resources.gpus:
        task.set_accelerator_type(resources.gpu_type).set_accelerator_limit(resources.gpus)
    if resources.retries:
        task.set_retry(resources.retries)
    if resources.timeout_seconds:
        kubernetes.set_timeout(task, resources.timeout_seconds)
    if resources.shared_memory_size:
        kubernetes.empty_dir_mount(
            task, volume_name="dshm", mount_path="/dev/shm", medium="Memory", size_limit=resources.shared_memory_size
        )
    if resources.scratch:
        kubernetes.empty_dir_mount(task, volume_name="scratch", mount_path=SCRATCH, size_limit=resources.scratch)
    for key, value in sorted(resources.node_selector.items()):
        kubernetes.add_node_selector(task, label_key=key, label_value=value)
    for one in resources.tolerations:
        kubernetes.add_toleration(task, **one.model_dump(by_alias=False))
    if spec.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, [one.name for one in spec.image_pull_secrets])
    queue = spec.queue_of(resources)
    queued = {} if queue is None else {QUEUE_LABEL: queue}
    for key, value in sorted({**resources.labels, **queued}.items()):
        kubernetes.add_pod_label(task, label_key=key, label_value=value)


def _give_environment(task: dsl.PipelineTask, spec: PipelineSpec, resources: ResourcesSpec) -> None:
    if spec.cache_claim is not None:
        kubernetes.mount_pvc(task, pvc_name=spec.cache_claim, mount_path=CACHE)
    _give_variables(task, spec, resources)


def _give_variables(task: dsl.PipelineTask, spec: PipelineSpec, resources: ResourcesSpec) -> None:
    for name, value in spec.variables(resources).items():
        task.set_env_variable(name, value)
    for entry in spec.secret_env:
        kubernetes.use_secret_as_env(task, secret_name=entry.secret, secret_key_to_env={entry.key: entry.name})


def _tell_its_pod(task: dsl.PipelineTask) -> None:
    """What a launcher must know of itself to own a TrainJob."""
    for name, path in ((POD_NAME, "metadata.name"), (POD_UID, "metadata.uid"), (POD_NAMESPACE, "metadata.namespace")):
        kubernetes.use_field_path_as_env(task, env_name=name, field_path=path)


def compile_pipeline(run: EvolutionRun, output: Path) -> None:
    """Write the pipeline's intermediate representation as YAML, atomically; the same run gives the same bytes."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        compiled = Path(scratch) / "pipeline.yaml"
        compiled.write_text(_compiled(build_pipeline(run)))
        compiled.replace(output)


def compile_template(template: GenerationTemplate) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The intermediate representation of `build_template`, and its part for Kubernetes where it has one."""
    documents = list(yaml.safe_load_all(_compiled(build_template(template))))
    return documents[0], documents[1] if len(documents) > 1 else None


def _compiled(pipeline: Any) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, package_path=str(path))
        # KFP's header repeats the parameters as comments, those of a dict in an order that differs by process.
        return "".join(dropwhile(lambda line: line.startswith("#"), path.read_text().splitlines(keepends=True)))
