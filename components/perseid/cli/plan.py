"""`perseid plan`: what a cluster would be asked for, said without one.

Nothing here knows when a generation starts: `decide` is driven as the operator drives it, on a clock that stands still,
with runs that all succeed, models that are all promoted and somebody who approves whatever waits for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perseid.api.attempt import Attempt
from perseid.api.base import API_VERSION, KIND, replace
from perseid.api.layout import attempt_key
from perseid.api.names import display_name, experiment_name
from perseid.api.names import storage_root as root_of
from perseid.api.pipeline import PipelineSpec
from perseid.api.reasons import ConditionType, Phase, Reason
from perseid.api.result import Gain, GenerationResult, ModelRef, Score, SetResult, YieldCounts
from perseid.api.spec import EvolutionRun, EvolutionRunSpec
from perseid.api.stages import LAST_STAGE, SHARDED_STAGE, StageName
from perseid.api.status import EvolutionRunStatus
from perseid.decide import Observed, ObservedRun, RunState, StartModel, Submit, decide
from perseid.runner.errors import RunnerError

GENERATIONS_SHOWN = 10
"""Unless more are asked for."""
OPERATOR_STORAGE = "OPERATOR-STORAGE"
"""Stands for the operator's own root where nobody has named it."""
PIPELINE_LIMIT = 450 * 1024
"""Bytes. The operator refuses a compiled pipeline that is longer."""
SUBMISSION_LIMIT = 900 * 1024
"""Bytes. The operator sends none that is longer: a run becomes one object in Kubernetes, with its growing status."""

_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)
_MANAGED_BY = "perseid.dev/operator"


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """The first attempt at a generation: one run in Kubeflow Pipelines."""

    generation: int
    attempt: int
    run_id: str
    display_name: str
    storage: str
    """What it writes lies below this."""
    start_model: str
    """Where the model lies that it starts from, if every generation before it is promoted."""
    starts: str
    """What has to happen before it is submitted."""
    bytes: int
    """Of the submission: the pipeline and its parameters."""


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """What a stage's pod gets."""

    name: str
    image: str
    resources: dict[str, Any]
    """Fields of `spec.pipeline.stages` that are set, and what of `spec.pipeline` is about this stage."""


@dataclass(frozen=True, slots=True)
class SubmissionPlan:
    """Everything that would be submitted, and what bounds it."""

    name: str
    namespace: str
    uid: str
    uid_is_placeholder: bool
    """Whether the ids are of no object that exists or will exist."""
    experiment: str
    storage: str
    """Root of the run's files."""
    pipeline_digest: str
    pipeline_bytes: int
    stages: list[PlannedStage]
    runs: list[PlannedRun]
    runs_not_shown: int
    limits: dict[str, str]
    notes: list[str]
    """What else somebody should know before applying the file."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def placeholder_uid(namespace: str, name: str) -> str:
    """A uid for an object that does not exist yet, drawn from its name."""
    return str(uuid5(NAMESPACE_URL, f"{API_VERSION}/namespaces/{namespace}/{KIND}/{name}"))


def plan_submissions(
    run: EvolutionRun,
    *,
    namespace: str,
    uid: str | None = None,
    generations: int | None = None,
    storage_root: str | None = None,
) -> SubmissionPlan:
    """What a cluster would be asked for, generation after generation. Compiles the pipeline, which takes a second.

    `generations` bounds how many are told of (default: 10), `storage_root` is the operator's own root. Raises
    ValueError where the uid is no UUID, and RunnerError for a pipeline that KFP cannot compile.
    """
    from perseid.pipelines.generation import compile_template  # KFP takes a second to import

    name, spec = run.metadata.name, run.spec
    lineage = uid or placeholder_uid(namespace, name)
    root = root_of(spec.storage.uri, storage_root or OPERATOR_STORAGE, namespace, name, lineage)
    try:
        pipeline, platform = compile_template(spec.template)
    except (TypeError, ValueError) as error:
        raise RunnerError(f"KFP cannot compile the pipeline of spec.pipeline: {error}") from error
    compiled = _canonical({"pipeline": pipeline, "platform": platform})
    shown = min(spec.generations.max, generations or GENERATIONS_SHOWN)
    runs = []
    for submit, starts in _rehearse(run, lineage, root, shown):
        attempt = Attempt(
            run=run,
            run_id=submit.run_id,
            generation=submit.generation,
            number=submit.attempt,
            storage=root,
            start_model=submit.start_model.uri,
        )
        runs.append(
            PlannedRun(
                generation=submit.generation,
                attempt=submit.attempt,
                run_id=submit.run_id,
                display_name=display_name(namespace, name, submit.generation, submit.attempt),
                storage=f"{root}/{attempt_key(submit.generation, submit.attempt)}",
                start_model=submit.start_model.uri,
                starts=starts,
                bytes=len(compiled) + len(_canonical(attempt.arguments())),
            )
        )
    return SubmissionPlan(
        name=name,
        namespace=namespace,
        uid=lineage,
        uid_is_placeholder=uid is None,
        experiment=experiment_name(namespace, name),
        storage=root,
        pipeline_digest=f"sha256:{hashlib.sha256(compiled).hexdigest()}",
        pipeline_bytes=len(compiled),
        stages=[
            PlannedStage(stage, spec.pipeline.stage_image, _set_fields(stage, spec.pipeline)) for stage in spec.stages
        ],
        runs=runs,
        runs_not_shown=spec.generations.max - len(runs),
        limits=_limits(run),
        notes=_notes(run, uid, storage_root, len(compiled), max((one.bytes for one in runs), default=0)),
    )


def _rehearse(run: EvolutionRun, uid: str, root: str, count: int) -> Iterator[tuple[Submit, str]]:
    """The first `count` submissions, and what each of them waits for."""
    spec, status = run.spec, EvolutionRunStatus(uid=uid)
    other = spec.model.evolution_run
    start = None
    approved = run.metadata.approved_generation
    awaited = ["the EvolutionRun is applied"]
    if other is not None:
        start = StartModel(ModelRef(uri=f"the best model of EvolutionRun {other}", generation=0))
        awaited.append(f"EvolutionRun {other} has a promoted model")
    runs: dict[str, ObservedRun] = {}
    while count > 0:
        observed = Observed(runs=runs, start_model=start, approved_generation=approved)
        plan = decide(spec, status, observed, _MOMENT)
        status = plan.status
        progressing = status.condition(ConditionType.PROGRESSING)
        if isinstance(plan.action, Submit):
            yield plan.action, " and ".join(awaited)
            count -= 1
            result = _promoted(spec, plan.action, root)
            runs = {plan.action.run_id: ObservedRun(RunState.SUCCEEDED, result=result)}
            awaited = [f"generation {plan.action.generation} has ended"]
        elif status.phase is Phase.SUSPENDED:
            awaited.append("spec.suspend is set to false")
            spec = replace(spec, suspend=False)
        elif progressing is not None and progressing.reason is Reason.AWAITING_APPROVAL:
            approved = status.generations[-1].index + 1
            awaited.append(f"somebody approves generation {approved}")
        elif status.phase.is_terminal:
            return
        else:
            raise RuntimeError(f"the rehearsal of {run.metadata.name} does not go on: {progressing}")


def _promoted(spec: EvolutionRunSpec, submit: Submit, root: str) -> GenerationResult:
    """The result of an attempt whose model is as much better as a model can be: that of its last training stage."""
    trained = next(stage for stage in reversed(spec.stages) if stage != LAST_STAGE)
    worst, best = (Score(pass_at_1=value, low=value, high=value, problems=1, samples=1) for value in (0.0, 1.0))
    return GenerationResult(
        generation=submit.generation,
        attempt=submit.attempt,
        run_id=submit.run_id,
        candidate=ModelRef(
            uri=f"{root}/{attempt_key(submit.generation, submit.attempt)}/{trained}/model",
            generation=submit.generation,
        ),
        dev=SetResult(name="dev", parent=worst, candidate=best, gain=Gain(value=1.0, low=1.0, high=1.0)),
        yields=YieldCounts(total=1, kept=1),
    )


def _set_fields(stage: StageName, pipeline: PipelineSpec) -> dict[str, Any]:
    resources = pipeline.stages.of(stage)
    said = resources.model_dump(mode="json", by_alias=False, exclude_defaults=True)
    if resources.gpus:
        said["gpu_type"] = resources.gpu_type
    if stage == SHARDED_STAGE and pipeline.shards > 1:
        said["shards"] = pipeline.shards
    if pipeline.nodes_of(stage) > 1:
        said["nodes"] = pipeline.nodes_of(stage)
    if pipeline.queue is not None and pipeline.queue_of(resources) == pipeline.queue:
        said["queue"] = pipeline.queue
    return said


def _limits(run: EvolutionRun) -> dict[str, str]:
    """By the field that sets them."""
    spec, generations = run.spec, run.spec.generations
    none = "none"

    def seconds(value: int | None) -> str:
        return none if value is None else f"{value} s"

    return {
        "generations.max": str(generations.max),
        "generations.patience": f"ends after {generations.patience} without promotion in a row",
        "generations.maxAttempts": f"{generations.max_attempts} for a generation, {len(spec.failure_policy.rules)}"
        " rules in failurePolicy",
        "generations.approval": generations.approval,
        "startDeadlineSeconds": seconds(spec.start_deadline_seconds),
        "activeDeadlineSeconds": seconds(spec.active_deadline_seconds),
        "ttlSecondsAfterFinished": seconds(spec.ttl_seconds_after_finished),
        "budget.gpuHours": none if spec.budget.gpu_hours is None else f"{spec.budget.gpu_hours:g}",
        "budget.mentorCost": none if spec.budget.mentor_cost is None else f"{spec.budget.mentor_cost:g}",
        "budget.mentorTokens": none if spec.budget.mentor_tokens is None else f"{spec.budget.mentor_tokens:,}",
    }


def _notes(run: EvolutionRun, uid: str | None, storage_root: str | None, pipeline: int, largest: int) -> list[str]:
    notes = []
    if uid is None:
        notes.append(
            "The ids depend on the object's uid. These belong to a placeholder that is drawn from the name; give the"
            " uid of an object that exists with --uid (kubectl get evorun NAME -o jsonpath={.metadata.uid})."
        )
    if run.spec.storage.uri is None and storage_root is None:
        notes.append(
            f"spec.storage.uri is not set, so the files will lie below the operator's own root, shown as"
            f" {OPERATOR_STORAGE}; give it with --storage-root."
        )
    if run.spec.pipeline.image is None:
        notes.append(
            "spec.pipeline.image is not set, so an operator takes its own default, and adds its other defaults of"
            " stages: environment, service account. Its pipeline then has another digest than this one."
        )
    if run.spec.generations.max > 1:
        notes.append(
            "Every generation is taken to succeed at its first attempt and to be promoted. Where one is not promoted,"
            " the next one starts from the best model before it."
        )
    if run.spec.suspend:
        notes.append("spec.suspend is true: nothing is submitted until it is false.")
    manager = run.spec.managed_by
    if manager is not None and manager != _MANAGED_BY:
        notes.append(f"spec.managedBy is {manager}: Perseid's operator leaves the run alone and submits nothing.")
    if run.spec.model.evolution_run == run.metadata.name:
        notes.append("spec.model.evolutionRun is the run itself: it would wait for its own model for ever.")
    if pipeline > PIPELINE_LIMIT:
        notes.append(
            f"The pipeline has {pipeline:,} bytes, and the operator refuses more than {PIPELINE_LIMIT:,}: shorten"
            " spec.pipeline.stages (labels, node selectors)."
        )
    if largest > SUBMISSION_LIMIT:
        notes.append(f"A submission has {largest:,} bytes, and the operator sends no more than {SUBMISSION_LIMIT:,}.")
    return notes


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def print_plan(console: Console, plan: SubmissionPlan) -> None:
    """The plan as tables."""

    def line(label: str, value: str) -> None:
        console.print(Text(f"{label:<12}", style="bold").append(Text(value, style="default")), soft_wrap=True)

    line("run", f"{plan.namespace}/{plan.name}")
    line("uid", f"{plan.uid} (placeholder)" if plan.uid_is_placeholder else plan.uid)
    line("experiment", plan.experiment)
    line("storage", plan.storage)
    line("pipeline", f"{plan.pipeline_digest}, {plan.pipeline_bytes:,} bytes")
    console.print(_runs(plan))
    console.print(_stages(plan))
    table = _table("limits", "field", "value")
    for field, value in plan.limits.items():
        table.add_row(field, Text(value))
    console.print(table)
    for note in plan.notes:
        console.print(f"Note: {note}", highlight=False, markup=False, emoji=False, soft_wrap=True)


def _runs(plan: SubmissionPlan) -> Table:
    shown = f", the first {len(plan.runs)} of {len(plan.runs) + plan.runs_not_shown}" if plan.runs_not_shown else ""
    table = _table(f"runs in Kubeflow Pipelines{shown}", "run", "id", "submitted when", "files below storage")
    for one in plan.runs:
        table.add_row(Text(one.display_name), one.run_id, Text(one.starts), one.storage.removeprefix(plan.storage)[1:])
    return table


def _stages(plan: SubmissionPlan) -> Table:
    table = _table("stages of each run", "stage", "image", "resources")
    for stage in plan.stages:
        said = ", ".join(f"{name} {_short(value)}" for name, value in stage.resources.items())
        table.add_row(stage.name, Text(stage.image), Text(said or "what the cluster gives by default"))
    return table


def _short(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={text}" for name, text in value.items())
    return str(value)


def _table(title: str, *columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table
