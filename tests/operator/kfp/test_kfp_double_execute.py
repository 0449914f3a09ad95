"""Runs that the double really carries out."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from kfp_processes import double_process, eventually
from kfp_samples import new_id, run_request

from kfp_double import KfpDouble
from kfp_double.executing import SUBMISSION, ProcessExecutor, compiled
from kfp_double.parts import Timing
from perseid.api.attempt import Attempt
from perseid.api.layout import Layout
from perseid.api.load import load_run
from perseid.api.reasons import StageState
from perseid.api.result import MentorBudget, parse_result
from perseid.api.spec import EvolutionRun
from perseid.runner.directory import absolute_paths
from perseid_operator import sight
from perseid_operator.kfp import KfpClient, KfpRun, KfpRunState, RunRejectedError, RunRequest
from perseid_operator.results import ResultReader, StageFailure

Clients = Callable[..., KfpClient]
STAND_IN = Path(__file__).with_name("kfp_stand_in_worker.py")
RUN, METEOR, BOTH = (
    EvolutionRun.model_validate({"metadata": {"name": "executed"}, "spec": {"methods": methods}})
    for methods in (["sra-mcts"], ["meteor"], ["sra-mcts", "meteor"])
)
IN_SHARDS = EvolutionRun.model_validate({"metadata": {"name": "executed"}, "spec": {"pipeline": {"shards": 3}}})


def generation_request(attempt: Attempt, experiment: str, own: bool = False) -> RunRequest:
    """A run of the template that the operator posts, or of the run's own pipeline."""
    template, its_own = compiled(attempt.run)
    pipeline, platform = its_own if own else template
    return run_request(
        experiment,
        run_id=attempt.run_id,
        pipeline_spec=pipeline,
        platform_spec=platform,
        parameters=attempt.arguments(),
    )


def attempt_at(storage: Path, run: EvolutionRun = RUN, start_model: str = "base") -> Attempt:
    return Attempt(run=run, run_id=new_id(), generation=0, number=0, storage=str(storage), start_model=start_model)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    directory = tmp_path / "storage"
    directory.mkdir()
    return directory


@pytest.fixture
async def double(tmp_path: Path) -> AsyncIterator[KfpDouble]:
    executor = ProcessExecutor(tmp_path / "workflows", die_with=os.getpid(), worker=(str(STAND_IN),))
    async with KfpDouble(state=tmp_path / "state", timing=Timing().scaled(0.01), executor=executor) as running:
        yield running


async def ended(kfp: KfpClient, run_id: str, tasks: int) -> KfpRun:
    """The run when it is over and shows so many tasks."""
    found: list[KfpRun] = []

    async def is_over() -> bool:
        run = await kfp.get_run(run_id)
        assert run is not None
        found[:] = [run]
        return run.is_final and len(run.tasks) == tasks and all(task.end is not None for task in run.tasks.values())

    await eventually(is_over)
    return found[0]


@pytest.mark.parametrize("run", [RUN, METEOR, BOTH], ids=lambda run: "+".join(run.spec.methods))
@pytest.mark.parametrize("own", [False, True], ids=["template", "own"])
async def test_a_posted_run_is_carried_out_and_shows_its_stages(
    double: KfpDouble, kfp: KfpClient, experiment: str, storage: Path, own: bool, run: EvolutionRun
) -> None:
    # Takes a second or two: a process starts and the pipeline is compiled.
    (storage / "script").write_text("succeed")
    attempt = attempt_at(storage, run)
    await kfp.create_run(generation_request(attempt, experiment, own))
    stages = run.spec.stages
    over = await ended(kfp, attempt.run_id, tasks=len(stages))
    assert over.state is KfpRunState.SUCCEEDED
    assert {name: task.state for name, task in over.tasks.items()} == dict.fromkeys(stages, KfpRunState.SUCCEEDED)
    assert sight.stages_of(over) == dict.fromkeys(stages, StageState.SUCCEEDED), "as the operator sees them"
    assert double.counters().executions == {attempt.run_id: 1}


async def test_a_run_in_shards_is_carried_out_and_shows_its_search_as_one_stage(
    kfp: KfpClient, experiment: str, storage: Path
) -> None:
    # Takes a second or two: a process starts and the pipeline is compiled.
    (storage / "script").write_text("succeed")
    attempt = attempt_at(storage, IN_SHARDS)
    await kfp.create_run(generation_request(attempt, experiment))
    over = await ended(kfp, attempt.run_id, tasks=5)
    assert over.state is KfpRunState.SUCCEEDED
    assert set(over.tasks) == {"synthesize-shards", *IN_SHARDS.spec.stages}
    assert sight.stages_of(over) == dict.fromkeys(IN_SHARDS.spec.stages, StageState.SUCCEEDED)


def told(directory: Path) -> Attempt:
    """What the stages of the one run were told."""
    (submission,) = directory.rglob(SUBMISSION)
    return Attempt.model_validate_json(submission.read_bytes())


SPECIAL = EvolutionRun.model_validate(
    {
        "metadata": {"name": "executed"},
        "spec": {"conversion": {"instructions": ["{{workflow.name}} costs $$5 in $(HOME) \N{ROCKET}"]}},
    }
)


async def test_texts_that_argo_and_the_kubelet_would_fill_in_reach_the_stages_as_they_are(
    kfp: KfpClient, experiment: str, storage: Path, tmp_path: Path
) -> None:
    # Takes a second or two: a process starts and the pipeline is compiled.
    (storage / "script").write_text("succeed")
    attempt = attempt_at(storage, SPECIAL)
    await kfp.create_run(generation_request(attempt, experiment))
    assert (await ended(kfp, attempt.run_id, tasks=4)).state is KfpRunState.SUCCEEDED
    assert told(tmp_path) == attempt


async def test_a_parameter_that_would_arrive_as_something_else_is_refused(
    kfp: KfpClient, experiment: str, storage: Path
) -> None:
    posted = fields(generation_request(attempt_at(storage), experiment))
    bare = SPECIAL.model_dump(mode="json", by_alias=True, exclude_none=True)
    with pytest.raises(RunRejectedError, match="does not reach a stage as it is"):
        await kfp.create_run(
            run_request(experiment, **{**posted, "parameters": {**posted["parameters"], "storage": "$$"}})
        )
    bare["spec"]["conversion"]["instructions"] = ["{{workflow.name}}"]
    with pytest.raises(RunRejectedError, match="does not reach a stage as it is"):
        await kfp.create_run(run_request(experiment, **{**posted, "parameters": {**posted["parameters"], "run": bare}}))


async def test_a_template_of_other_stages_is_refused_for_a_run(
    double: KfpDouble, kfp: KfpClient, experiment: str, storage: Path
) -> None:
    posted = generation_request(attempt_at(storage, METEOR), experiment)
    parameters = attempt_at(storage, BOTH).arguments()
    with pytest.raises(RunRejectedError, match=r"not what perseid\.pipelines compiles"):
        await kfp.create_run(run_request(experiment, **{**fields(posted), "parameters": parameters}))
    assert double.workflows() == []


async def test_a_stage_of_meteor_that_fails_is_the_one_that_is_shown_to_fail(
    double: KfpDouble, kfp: KfpClient, experiment: str, storage: Path
) -> None:
    # Takes a second or two: a process starts and the pipeline is compiled.
    (storage / "script").write_text("fail in self-assessment")
    attempt = attempt_at(storage, METEOR)
    await kfp.create_run(generation_request(attempt, experiment))
    run = await ended(kfp, attempt.run_id, tasks=2)
    assert run.state is KfpRunState.FAILED
    assert sight.stages_of(run) == {
        "mentor-supervised": StageState.SUCCEEDED,
        "self-assessment": StageState.FAILED,
    }
    told = await ResultReader().failure(str(storage), 0, 0)
    assert told == StageFailure("self-assessment", "no judge is paid for", MentorBudget(mentor_tokens=7))


async def test_a_stage_that_fails_fails_its_run(
    double: KfpDouble, kfp: KfpClient, experiment: str, storage: Path
) -> None:
    # Takes a second or two: a process starts and the pipeline is compiled.
    (storage / "script").write_text("fail in convert")
    attempt = attempt_at(storage)
    await kfp.create_run(generation_request(attempt, experiment))
    run = await ended(kfp, attempt.run_id, tasks=2)
    assert run.state is KfpRunState.FAILED
    assert {name: task.state for name, task in run.tasks.items()} == {
        "synthesize": KfpRunState.SUCCEEDED,
        "convert": KfpRunState.FAILED,
    }


async def has_started(kfp: KfpClient, run_id: str) -> None:
    async def synthesizes() -> bool:
        run = await kfp.get_run(run_id)
        return run is not None and run.state is KfpRunState.RUNNING and "synthesize" in run.tasks

    await eventually(synthesizes)


def group_of(storage: Path) -> int:
    """The process group of the run's newest process."""
    return os.getpgid(int((storage / "starts").read_text().split()[-1]))


async def is_gone(group: int) -> None:
    async def gone() -> bool:
        return not members(group)

    await eventually(gone)


def members(group: int) -> list[int]:
    """The processes of a group, without those that only wait for somebody to notice their end."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX" and int(fields[2]) == group:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("how", ["terminate", "delete", "lose"])
async def test_whatever_ends_a_run_ends_all_its_processes(
    double: KfpDouble, kfp: KfpClient, experiment: str, storage: Path, how: str
) -> None:
    # Takes a second or two: a process starts and the pipeline is compiled.
    (storage / "script").write_text("hang")
    attempt = attempt_at(storage)
    await kfp.create_run(generation_request(attempt, experiment))
    await has_started(kfp, attempt.run_id)
    group = group_of(storage)
    assert len(members(group)) >= 2
    match how:
        case "terminate":
            assert await kfp.terminate(attempt.run_id)
            assert (await ended(kfp, attempt.run_id, tasks=1)).was_terminating
        case "delete":
            assert await kfp.delete(attempt.run_id)
        case "lose":
            await double.lose_workflow(attempt.run_id)
    await is_gone(group)


async def test_a_killed_pod_fails_its_run(double: KfpDouble, kfp: KfpClient, experiment: str, storage: Path) -> None:
    # Takes a second or two: a process starts and the pipeline is compiled.
    (storage / "script").write_text("hang")
    attempt = attempt_at(storage)
    await kfp.create_run(generation_request(attempt, experiment))
    await has_started(kfp, attempt.run_id)
    os.killpg(group_of(storage), signal.SIGKILL)
    run = await ended(kfp, attempt.run_id, tasks=1)
    assert run.state is KfpRunState.FAILED
    assert not run.was_terminating
    assert [workflow["message"] for workflow in double.workflows()] == ["main: Error (exit code 137)"]


def another_image(request: RunRequest) -> dict[str, Any]:
    executors = {
        name: {"container": {**executor["container"], "image": "other"}}
        for name, executor in request.pipeline_spec["deploymentSpec"]["executors"].items()
    }
    return {"pipeline_spec": {**request.pipeline_spec, "deploymentSpec": {"executors": executors}}}


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (another_image, "not what perseid.pipelines compiles"),
        (lambda request: {"platform_spec": {"platforms": {"kubernetes": {"pipelineConfig": {}}}}}, "not what perseid"),
        (lambda request: {"parameters": {**request.parameters, "generation": -1}}, "make no attempt"),
        (lambda request: {"parameters": {"storage": "/tmp"}}, "needs the parameters"),
    ],
)
async def test_a_pipeline_that_is_not_the_runs_own_is_refused(
    double: KfpDouble,
    kfp: KfpClient,
    experiment: str,
    storage: Path,
    spoil: Callable[[RunRequest], dict[str, Any]],
    complaint: str,
) -> None:
    request = generation_request(attempt_at(storage), experiment, own=True)
    changes = spoil(request)
    with pytest.raises(RunRejectedError, match=complaint):
        await kfp.create_run(run_request(experiment, **{**fields(request), **changes}))
    assert double.workflows() == []


def fields(request: RunRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in ("run_id", "pipeline_spec", "platform_spec", "parameters")}


@pytest.mark.slow  # A tiny model is searched with, trained and scored, in four processes that import torch.
@pytest.mark.timeout(600)
async def test_a_generation_goes_on_while_the_double_is_killed_and_found_again(
    clients: Clients, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny_run

    for name, value in tiny_run.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    path = tiny_run.write_run(tmp_path)
    run = absolute_paths(load_run(path), path.parent)
    attempt = attempt_at(storage, run, run.spec.model.ref)
    state = tmp_path / "state"
    arguments = ("--mode", "execute", "--state", str(state), "--scale", "0.1", "--die-with", str(os.getpid()))
    async with double_process(*arguments) as first:
        kfp = clients(first.url)
        await kfp.create_run(generation_request(attempt, await kfp.ensure_experiment("tiny", "")))
        await has_started(kfp, attempt.run_id)
        await first.kill()
    async with double_process(*arguments) as second:
        kfp = clients(second.url, request_timeout=60.0)
        over: list[KfpRun] = []

        async def is_over() -> bool:
            over[:] = [seen for seen in [await kfp.get_run(attempt.run_id)] if seen is not None]
            return over[0].is_final and len(over[0].tasks) == len(run.spec.stages)

        await eventually(is_over, seconds=500.0)
        assert over[0].state is KfpRunState.SUCCEEDED, next(state.rglob("log.txt")).read_text()
        assert (await second.state())["counters"]["executions"] == {attempt.run_id: 1}
    result = parse_result(Layout.of(attempt).result.read_bytes())
    assert (result.run_id, result.generation) == (attempt.run_id, 0)
