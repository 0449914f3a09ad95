from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perseid.api.attempt import Attempt
from perseid.api.layout import PROGRESS, RESULT, Layout, StorageError, local_path, read_stage_result
from perseid.api.progress import read_progress
from perseid.api.result import StageResult
from perseid.api.spec import EvolutionRun
from perseid.stages import runtime
from perseid.stages.context import StageContext
from perseid.stages.endings import MAX_MESSAGE
from perseid.stages.errors import StageError
from perseid.stages.kfp import run_component
from perseid.stages.progress import ProgressWriter
from perseid.stages.runtime import run_stage

RUN_ID = "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11"


def attempt(root: Path, number: int = 0, generation: int = 0, **spec: Any) -> Attempt:
    return Attempt(
        run=EvolutionRun.model_validate({"metadata": {"name": "stage"}, "spec": spec}),
        run_id=RUN_ID,
        generation=generation,
        number=number,
        storage=str(root),
        start_model="org/name",
    )


class Body:
    """A stage's body that counts how often it runs, appends to its journal, and may fail."""

    def __init__(self, stage: str = "convert", error: Exception | None = None, then: Callable[[], None] = lambda: None):
        self.stage, self.error, self.then = stage, error, then
        self.contexts: list[StageContext] = []

    async def __call__(self, context: StageContext) -> StageResult:
        self.contexts.append(context)
        with (context.directory / "journal.jsonl").open("a") as journal:
            journal.write(f"attempt {context.attempt.number}\n")
        self.then()
        if self.error is not None:
            raise self.error
        return StageResult(stage=self.stage, state="done", counts={"answers": 3})


def journal(root: Path, number: int, stage: str = "convert") -> list[str]:
    return (Layout(root, 0, number).stage(stage) / "journal.jsonl").read_text().splitlines()


def test_a_stage_writes_the_result_that_it_returns(tmp_path: Path) -> None:
    result = run_stage("convert", attempt(tmp_path), Body())
    assert result.counts == {"answers": 3}
    assert read_stage_result(tmp_path / "generations/000/attempts/0/convert") == result


def test_a_stage_that_is_done_returns_its_result_without_running(tmp_path: Path) -> None:
    body = Body()
    first = run_stage("convert", attempt(tmp_path), body)
    assert run_stage("convert", attempt(tmp_path), body) == first
    assert len(body.contexts) == 1


def test_a_failed_stage_leaves_its_error_raises_it_and_runs_again(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no disk"):
        run_stage("convert", attempt(tmp_path), Body(error=StageError("no disk")))
    failed = read_stage_result(Layout(tmp_path, 0, 0).stage("convert"))
    assert failed is not None
    assert (failed.state, failed.error) == ("failed", "no disk")
    assert run_stage("convert", attempt(tmp_path), Body()).state == "done"
    assert journal(tmp_path, 0) == ["attempt 0", "attempt 0"], "the first try's journal was lost"


@pytest.mark.parametrize(("error", "told"), [(ValueError(), "ValueError"), (ValueError("x" * 5000), "x" * 1023 + "…")])
def test_an_error_always_has_a_message_that_fits(tmp_path: Path, error: Exception, told: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the message is what is under test, in the file
        run_stage("convert", attempt(tmp_path), Body(error=error))
    failed = json.loads((Layout(tmp_path, 0, 0).stage("convert") / RESULT).read_text())
    assert failed["error"] == told
    assert len(failed["error"]) <= MAX_MESSAGE


def test_a_killed_stage_leaves_no_result_and_goes_on_in_its_directory(tmp_path: Path) -> None:
    def killed() -> None:
        raise KeyboardInterrupt  # like a kill, it passes every handler of errors

    with pytest.raises(KeyboardInterrupt):
        run_stage("convert", attempt(tmp_path), Body(then=killed))
    assert read_stage_result(Layout(tmp_path, 0, 0).stage("convert")) is None
    run_stage("convert", attempt(tmp_path), Body())
    assert len(journal(tmp_path, 0)) == 2


def test_a_new_attempt_takes_over_what_the_failed_one_had_without_writing_into_it(tmp_path: Path) -> None:
    with pytest.raises(StageError):
        run_stage("convert", attempt(tmp_path, 0), Body(error=StageError("no disk")))
    seen: list[bool] = []
    directory = Layout(tmp_path, 0, 1).stage("convert")
    body = Body(then=lambda: seen.append((directory / RESULT).exists()))
    assert run_stage("convert", attempt(tmp_path, 1), body).state == "done"
    assert seen == [False], "the failure was taken over"
    assert journal(tmp_path, 0) == ["attempt 0"]
    assert journal(tmp_path, 1) == ["attempt 0", "attempt 1"]


def test_a_new_attempt_takes_over_a_stage_that_was_done(tmp_path: Path) -> None:
    run_stage("convert", attempt(tmp_path, 0), Body())
    body = Body()
    assert run_stage("convert", attempt(tmp_path, 2), body).counts == {"answers": 3}
    assert body.contexts == []
    assert journal(tmp_path, 2) == ["attempt 0"]


def test_a_new_attempt_takes_over_the_newest_of_the_earlier_ones(tmp_path: Path) -> None:
    for number in (0, 1):
        with pytest.raises(StageError):
            run_stage("convert", attempt(tmp_path, number), Body(error=StageError("no disk")))
    run_stage("convert", attempt(tmp_path, 3), Body())
    assert journal(tmp_path, 3) == ["attempt 0", "attempt 1", "attempt 3"]


def test_the_last_stage_runs_in_every_attempt_because_it_writes_the_attempts_own_result(tmp_path: Path) -> None:
    run_stage("evaluate", attempt(tmp_path, 0), Body("evaluate"))
    body = Body("evaluate")
    run_stage("evaluate", attempt(tmp_path, 1), body)
    assert len(body.contexts) == 1
    assert journal(tmp_path, 1, "evaluate") == ["attempt 0", "attempt 1"]


def test_weights_are_shared_between_attempts_and_other_files_are_copied(tmp_path: Path) -> None:
    directory = Layout(tmp_path, 0, 0).stage("finetune")

    def train() -> None:
        for name in ("model.safetensors", "config.json"):
            (directory / name).write_text("{}")

    run_stage("finetune", attempt(tmp_path, 0), Body("finetune", then=train))
    run_stage("finetune", attempt(tmp_path, 1), Body("finetune"))
    later = Layout(tmp_path, 0, 1).stage("finetune")
    assert (later / "model.safetensors").samefile(directory / "model.safetensors")
    assert not (later / "config.json").samefile(directory / "config.json")


def test_a_takeover_that_was_killed_halfway_is_begun_anew(tmp_path: Path) -> None:
    run_stage("convert", attempt(tmp_path, 0), Body())
    half = Layout(tmp_path, 0, 1).attempt_directory / ".convert.inherited"
    half.mkdir(parents=True)
    (half / "half").write_text("")
    run_stage("convert", attempt(tmp_path, 1), Body())
    directory = Layout(tmp_path, 0, 1).stage("convert")
    assert not (directory / "half").exists()
    assert not half.exists()


def test_generations_take_over_nothing_from_each_other(tmp_path: Path) -> None:
    run_stage("convert", attempt(tmp_path, generation=0), Body())
    body = Body()
    run_stage("convert", attempt(tmp_path, generation=1), body)
    assert len(body.contexts) == 1


def test_a_generation_has_a_seed_of_its_own_that_its_attempts_share(tmp_path: Path) -> None:
    seeds: dict[tuple[int, int, int], int] = {}
    for seed, generation, number in [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0)]:
        body = Body(error=StageError("stop"))
        with pytest.raises(StageError):
            run_stage("convert", attempt(tmp_path / str(seed), number, generation, seed=seed), body)
        seeds[seed, generation, number] = body.contexts[0].seed
    assert seeds[1, 0, 0] == seeds[1, 0, 1]
    assert len(set(seeds.values())) == 3
    assert all(0 <= seed < 2**31 for seed in seeds.values())


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_seconds_of_a_stage_add_up_over_its_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(runtime, "ProgressWriter", lambda path, stage: ProgressWriter(path, stage, clock))

    def work() -> None:
        clock.now += 10.0
        body.contexts[-1].progress.begin("writing")

    body = Body(error=StageError("no disk"), then=work)
    with pytest.raises(StageError):
        run_stage("convert", attempt(tmp_path, 0), body)
    clock.now += 3600.0  # nothing runs in between
    body = Body(then=work)
    assert run_stage("convert", attempt(tmp_path, 1), body).usage.seconds == 20.0


def test_progress_is_written_no_more_often_than_anybody_looks_but_the_last_always(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / PROGRESS
    writer = ProgressWriter(path, "convert", clock)

    def shown() -> float:
        progress = read_progress(path)
        assert progress is not None
        return progress.done

    writer.begin("writing", total=100, unit="plans")
    for done in range(1, 100):
        clock.now += 0.001
        writer.update(done)
    assert shown() == 0
    clock.now += 0.3
    writer.update(99.5)
    assert shown() == 99.5
    writer.update(100, note="40 passed")
    assert shown() == 100


def test_a_new_task_is_shown_at_once_and_counts_from_where_it_begins(tmp_path: Path) -> None:
    clock = Clock()
    writer = ProgressWriter(tmp_path / PROGRESS, "finetune", clock)
    first = read_progress(tmp_path / PROGRESS)
    assert first is not None
    assert (first.stage, first.task) == ("finetune", "starting")
    clock.now += 5
    writer.begin("training", total=50, unit="steps", done=20)
    progress = read_progress(tmp_path / PROGRESS)
    assert progress is not None
    assert (progress.done, progress.done_at_start, progress.started_at, progress.elapsed) == (20, 20, 1005.0, 5.0)


def test_a_note_stays_until_there_is_another(tmp_path: Path) -> None:
    writer = ProgressWriter(tmp_path / PROGRESS, "convert", Clock())
    writer.begin("writing", total=2, unit="plans")
    writer.update(1, note="1 passed")
    writer.update(2)
    progress = read_progress(tmp_path / PROGRESS)
    assert progress is not None
    assert progress.note == "1 passed"


def test_a_clock_that_was_set_back_gives_no_negative_time(tmp_path: Path) -> None:
    clock = Clock()
    writer = ProgressWriter(tmp_path / PROGRESS, "convert", clock)
    clock.now -= 100
    assert writer.seconds == 0


def test_local_storage_is_a_path_or_a_file_uri() -> None:
    assert local_path("/runs/a") == local_path("file:///runs/a") == Path("/runs/a")
    with pytest.raises(StorageError, match="s3://bucket/runs"):
        local_path("s3://bucket/runs")


def test_files_in_object_storage_have_a_working_copy_and_a_lasting_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSEID_SCRATCH_DIR", str(tmp_path / "scratch"))
    told = attempt(tmp_path).model_copy(update={"storage": "s3://bucket/runs/"})
    layout = Layout.of(told)
    assert layout.root.parent == (tmp_path / "scratch").resolve()
    assert Layout.of(told.model_copy(update={"storage": "s3://bucket/runs"})).root == layout.root
    assert Layout.of(told.model_copy(update={"storage": "s3://bucket/run"})).root != layout.root
    assert layout.location(layout.result) == "s3://bucket/runs/generations/000/attempts/0/result.json"
    assert layout.key(layout.stage("convert")) == "generations/000/attempts/0/convert"
    assert not layout.root.exists(), "a layout makes nothing"


def test_in_a_directory_the_lasting_place_is_the_path(tmp_path: Path) -> None:
    layout = Layout.of(attempt(tmp_path))
    assert layout.location(layout.result) == str(layout.result)


def test_the_files_of_an_attempt_lie_where_the_layout_says(tmp_path: Path) -> None:
    layout = Layout.of(attempt(tmp_path, number=2, generation=7))
    assert layout.stage("convert") == tmp_path / "generations/007/attempts/2/convert"
    assert layout.result == tmp_path / "generations/007/attempts/2/result.json"
    assert layout.earlier("convert") == [tmp_path / f"generations/007/attempts/{n}/convert" for n in (1, 0)]
    assert layout.evaluations == tmp_path / "evaluations"


def test_an_unknown_stage_is_refused_before_anything_is_imported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no stage is called os"):
        run_component("os", ({}, RUN_ID, 0, 0, str(tmp_path), "org/name"), None)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
