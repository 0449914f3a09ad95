"""A launcher and its stage's files, where a TrainJob would run the stage: what is skipped, told and left behind."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from perseid.api.attempt import Attempt
from perseid.api.layout import RESULT
from perseid.api.result import StageResult, StageUsage
from perseid.api.spec import EvolutionRun
from perseid.api.stages import StageName
from perseid.stages.context import StageContext
from perseid.stages.errors import StageError
from perseid.stages.runtime import run_stage
from perseid.storage.objects import Objects
from perseid_trainjob import component
from perseid_trainjob.component import launch_component, own_pod, run_on_nodes
from perseid_trainjob.errors import TrainJobError
from perseid_trainjob.manifest import LauncherPod

STAGE: StageName = "finetune"
POD = LauncherPod("p", "u", "n")
Work = Callable[[], None]


def attempt(root: str, number: int = 0) -> Attempt:
    spec = {"pipeline": {"trainJob": {"numNodes": 2}}}
    return Attempt(
        run=EvolutionRun.model_validate({"metadata": {"name": "launched"}, "spec": spec}),
        run_id="6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11",
        generation=0,
        number=number,
        storage=root,
        start_model="org/name",
    )


def stored(root: str, number: int = 0) -> StageResult:
    found = Objects(root).read(f"generations/000/attempts/{number}/{STAGE}/{RESULT}")
    assert found is not None
    return StageResult.model_validate_json(found[0])


def first_node(told: Attempt, error: Exception | None = None) -> None:
    """What the first node does."""

    async def body(context: StageContext) -> StageResult:
        if error is not None:
            raise error
        return StageResult(
            stage=STAGE, state="done", counts={"samples": 3}, metrics={"trained": 0.0}, usage=StageUsage(calls=3)
        )

    run_stage(STAGE, told, body)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], list[str]]:
    """Stands in for Kubernetes and Trainer: a TrainJob is some work. Gives the stages that were launched."""

    def works(work: Work) -> list[str]:
        launched: list[str] = []

        def launch(told: Attempt, stage: StageName, *_: Any) -> None:
            launched.append(stage)
            work()

        monkeypatch.setattr(component, "connect", lambda: None)
        monkeypatch.setattr(component, "launch", launch)
        return launched

    return works


def test_what_the_nodes_have_done_is_published_and_not_done_again(
    root: str, trainer: Callable[[Work], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    told = attempt(root)
    launched = trainer(lambda: first_node(told))
    for name in ("PERSEID_POD_NAME", "PERSEID_POD_UID", "PERSEID_POD_NAMESPACE"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setattr(component, "end_on_sigterm", lambda: None)
    logged: dict[str, float] = {}
    metrics: Any = SimpleNamespace(log_metric=logged.__setitem__)
    model: Any = SimpleNamespace(path=str(tmp_path / "model"), metadata={})
    parameters = tuple(told.arguments().values())
    for _ in range(2):
        place = launch_component(STAGE, parameters, metrics, model=model)  # type: ignore[arg-type]
        assert place == f"{root}/generations/000/attempts/0/finetune/{RESULT}"
    assert launched == [STAGE], "a stage that was done was launched"
    assert logged == {"trained": 0.0}
    assert "too few training records" in model.metadata["skipped"]


def test_a_stage_that_failed_on_the_nodes_is_told_in_its_own_words(
    root: str, trainer: Callable[[Work], list[str]]
) -> None:
    told = attempt(root)

    def fails() -> None:
        with pytest.raises(StageError):
            first_node(told, StageError("no memory"))
        raise TrainJobError("the TrainJob x has failed")

    trainer(fails)
    with pytest.raises(TrainJobError, match=r"no memory \(the TrainJob x has failed\)"):
        run_on_nodes(told, STAGE, POD)
    assert stored(root).error == "no memory"


def test_a_stage_that_is_done_stays_so_where_another_node_fails_after_it(
    root: str, trainer: Callable[[Work], list[str]]
) -> None:
    told = attempt(root)

    def fails_late() -> None:
        first_node(told)
        raise TrainJobError("the TrainJob x has failed: a pod of node 3")

    trainer(fails_late)
    run_on_nodes(told, STAGE, POD)
    assert (stored(root).state, stored(root).usage.calls) == ("done", 3)


def test_what_kept_a_trainjob_from_running_becomes_the_stages_result_and_a_next_try_goes_on(
    root: str, trainer: Callable[[Work], list[str]]
) -> None:
    told = attempt(root)

    def refused() -> None:
        raise TrainJobError("no such runtime")

    trainer(refused)
    for _ in range(2):  # the second time its words of the first are there, and no stage's own
        with pytest.raises(TrainJobError, match=r"^no such runtime$"):
            run_on_nodes(told, STAGE, POD)
        assert (stored(root).state, stored(root).error) == ("failed", "no such runtime")
    trainer(lambda: first_node(told))
    run_on_nodes(told, STAGE, POD)
    assert (stored(root).state, stored(root).usage.calls) == ("done", 3)


def test_a_runtime_that_starts_something_else_is_found_out(root: str, trainer: Callable[[Work], list[str]]) -> None:
    trainer(lambda: None)
    with pytest.raises(TrainJobError, match="has left no result"):
        run_on_nodes(attempt(root), STAGE, POD)
    assert "has left no result" in (stored(root).error or "")


def test_the_next_attempt_takes_over_what_the_nodes_had_done(root: str, trainer: Callable[[Work], list[str]]) -> None:
    first_node(attempt(root))
    launched = trainer(lambda: None)
    run_on_nodes(attempt(root, number=1), STAGE, POD)
    assert launched == []
    assert stored(root, 1).state == "done"


@pytest.mark.usefixtures("server")
def test_a_directory_is_no_place_for_nodes_to_meet(tmp_path: Any) -> None:
    with pytest.raises(TrainJobError, match=r"set storage.uri to s3://bucket/prefix, or remove trainJob"):
        run_on_nodes(attempt(str(tmp_path)), STAGE, POD)


def test_a_process_that_is_no_pod_of_a_pipeline_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERSEID_POD_NAME", raising=False)
    with pytest.raises(TrainJobError, match="PERSEID_POD_NAME"):
        own_pod()
