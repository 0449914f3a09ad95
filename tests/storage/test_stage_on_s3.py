"""The runtime of stages over a real S3 server: what a directory gives, a bucket gives too."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from s3_server import BUCKET, S3Server

from perseid.api.attempt import Attempt
from perseid.api.layout import RESULT, SCRATCH_DIRECTORY, Layout, StorageError
from perseid.api.result import StageResult, StageUsage
from perseid.api.spec import EvolutionRun
from perseid.stages import kfp
from perseid.stages.context import StageContext
from perseid.stages.errors import StageError
from perseid.stages.runtime import run_stage
from perseid.stages.spending import open_budget
from perseid.storage import pusher, stage
from perseid.storage.errors import OwnershipLostError, StorageRefusedError
from perseid.storage.mirror import DirectoryMirror
from perseid.storage.objects import Objects
from sample_manifest import MANIFEST

RUN_ID = "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11"
STAGE_KEY = "generations/000/attempts/{}/{}"


def attempt(root: str, number: int = 0, **spec: Any) -> Attempt:
    return Attempt(
        run=EvolutionRun.model_validate({"metadata": {"name": "stage"}, "spec": spec}),
        run_id=RUN_ID,
        generation=0,
        number=number,
        storage=root,
        start_model="org/name",
    )


class Body:
    """A stage's body that counts its runs, appends to its journal, and may fail."""

    def __init__(self, stage: str = "convert", error: Exception | None = None, then: Callable[[], None] = lambda: None):
        self.stage, self.error, self.then = stage, error, then
        self.contexts: list[StageContext] = []

    async def __call__(self, context: StageContext) -> StageResult:
        self.contexts.append(context)
        with (context.directory / "journal.jsonl").open("a") as journal:
            journal.write(f"attempt {context.attempt.number}\n")
        (context.directory / "out.jsonl").write_text("{}\n")
        self.then()
        if self.error is not None:
            raise self.error
        return StageResult(stage=self.stage, state="done", counts={"answers": 3})


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """Go on on another machine: with an empty scratch directory."""
    count = iter(range(100))
    return lambda: monkeypatch.setenv(SCRATCH_DIRECTORY, str(tmp_path / f"machine-{next(count)}"))


def journal(root: str, number: int, name: str = "convert") -> list[str]:
    found = Objects(root).read(f"{STAGE_KEY.format(number, name)}/journal.jsonl")
    assert found is not None
    return found[0].decode().splitlines()


def result(root: str, number: int, name: str = "convert") -> StageResult | None:
    found = Objects(root).read(f"{STAGE_KEY.format(number, name)}/{RESULT}")
    return None if found is None else StageResult.model_validate_json(found[0])


def test_a_stage_that_is_done_returns_its_result_anywhere_without_running(
    root: str, elsewhere: Callable[[], None]
) -> None:
    body = Body()
    first = run_stage("convert", attempt(root), body)
    assert first == result(root, 0)
    elsewhere()
    assert run_stage("convert", attempt(root), body) == first
    assert len(body.contexts) == 1
    assert not body.contexts[0].layout.stage("convert").is_relative_to(os.environ[SCRATCH_DIRECTORY])


def test_keys_are_those_of_a_directory(root: str, tmp_path: Path) -> None:
    run_stage("convert", attempt(root), Body())
    run_stage("convert", attempt(str(tmp_path / "local")), Body())
    local = {path.relative_to(tmp_path / "local").as_posix() for path in (tmp_path / "local").rglob("*.json*")}
    assert {found.key for found in Objects(root).list("")} == local | {
        f"{STAGE_KEY.format(0, 'convert')}/.perseid-index.json"
    }


def test_a_failed_stage_leaves_its_error_with_lasting_places_and_goes_on_elsewhere(
    root: str, elsewhere: Callable[[], None]
) -> None:
    body = Body()
    body.then = lambda: (_ for _ in ()).throw(StageError(f"{body.contexts[-1].directory}/out.jsonl:3: no id"))
    with pytest.raises(StageError):
        run_stage("convert", attempt(root), body)
    failed = result(root, 0)
    assert failed is not None
    assert failed.error == f"{root}/{STAGE_KEY.format(0, 'convert')}/out.jsonl:3: no id"
    elsewhere()
    assert run_stage("convert", attempt(root), Body()).state == "done"
    assert journal(root, 0) == ["attempt 0", "attempt 0"]


def test_a_new_attempt_takes_over_what_the_earlier_ones_had(root: str, elsewhere: Callable[[], None]) -> None:
    with pytest.raises(StageError):
        run_stage("convert", attempt(root, 0), Body(error=StageError("no disk")))
    elsewhere()
    run_stage("convert", attempt(root, 2), Body())
    assert (journal(root, 0), journal(root, 2)) == (["attempt 0"], ["attempt 0", "attempt 2"])
    elsewhere()
    body = Body()
    assert run_stage("convert", attempt(root, 3), body).counts == {"answers": 3}
    assert body.contexts == [], "a stage that was done was run again"
    assert journal(root, 3) == ["attempt 0", "attempt 2"]


def test_the_last_stage_runs_in_every_attempt_and_writes_its_result_before_its_own(root: str) -> None:
    for number in (0, 1):
        body = Body("evaluate")
        body.then = lambda body=body: body.contexts[-1].layout.result.write_text(f"{body.contexts[-1].attempt.number}")
        run_stage("evaluate", attempt(root, number), body)
        assert len(body.contexts) == 1
        assert Objects(root).read(f"generations/000/attempts/{number}/{RESULT}")[0] == f"{number}".encode()  # type: ignore[index]
    assert journal(root, 1, "evaluate") == ["attempt 0", "attempt 1"]


def test_a_later_stage_gets_the_files_that_it_asks_for_and_no_others(root: str, elsewhere: Callable[[], None]) -> None:
    run_stage("synthesize", attempt(root), Body("synthesize"))
    elsewhere()
    found: dict[str, bool] = {}

    async def body(context: StageContext) -> StageResult:
        path = context.output("synthesize", "out.jsonl")
        found["out.jsonl"] = path.read_text() == "{}\n"
        found["journal.jsonl"] = (path.parent / "journal.jsonl").exists()
        found["absent"] = context.output("synthesize", "absent").exists()
        found[RESULT] = context.output("synthesize", RESULT).exists()
        return StageResult(stage="convert", state="done")

    run_stage("convert", attempt(root), body)
    assert found == {"out.jsonl": True, "journal.jsonl": False, "absent": False, RESULT: True}


def test_evaluations_are_shared_between_generations(root: str, elsewhere: Callable[[], None]) -> None:
    place = "evaluations/dev-1"
    seen: list[bool] = []

    async def body(context: StageContext) -> StageResult:
        assert context.storage is not None
        await asyncio.to_thread(context.storage.fetch_evaluations)
        scores = context.layout.root / place / "scores.json"
        seen.append(scores.exists())
        scores.parent.mkdir(parents=True, exist_ok=True)
        (scores.parent / "answers.jsonl").write_text("{}\n")
        scores.write_text("{}")
        context.layout.result.write_text("{}")
        return StageResult(stage="evaluate", state="done")

    run_stage("evaluate", attempt(root, 0), body)
    elsewhere()
    run_stage("evaluate", attempt(root, 1), body)
    assert seen == [False, True]
    assert {found.key for found in Objects(root).list(place)} == {f"{place}/answers.jsonl", f"{place}/scores.json"}


def test_the_budget_counts_on_any_machine_what_was_spent_before(root: str, elsewhere: Callable[[], None]) -> None:
    spent: list[tuple[float, int]] = []

    def paying(cost: float) -> Callable[[StageContext], Any]:
        async def body(context: StageContext) -> StageResult:
            budget = await asyncio.to_thread(open_budget, context)
            spent.append((budget.spent.cost, budget.spent.tokens))
            usage = StageUsage(cost=cost, paid_tokens=int(10 * cost))
            return StageResult(stage=context.stage, state="done", usage=usage)

        return body

    first, again = (attempt(root, number, methods=["meteor"], budget={"mentorCost": 1000.0}) for number in (0, 1))
    run_stage("mentor-supervised", first, paying(1.0))
    elsewhere()
    run_stage("self-assessment", first, paying(2.0))
    elsewhere()
    # The second attempt took over what the first had paid for: it is the same money.
    run_stage("mentor-supervised", again, paying(99.0))
    later = first.model_copy(update={"generation": 1})
    run_stage("mentor-supervised", later, paying(4.0))
    elsewhere()
    run_stage("self-assessment", later, paying(8.0))
    assert spent == [(0.0, 0), (1.0, 10), (3.0, 30), (7.0, 70)]


def test_answers_behind_a_score_are_fetched_when_they_are_asked_for(root: str, elsewhere: Callable[[], None]) -> None:
    place = "evaluations/dev-1"
    seen: list[tuple[bool, str]] = []

    async def score(context: StageContext) -> StageResult:
        path = context.layout.root / place / "answers.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
        path.with_name("scores.json").write_text("{}")
        return StageResult(stage=context.stage, state="done")

    async def compare(context: StageContext) -> StageResult:
        assert context.storage is not None
        path = context.layout.root / place / "answers.jsonl"
        await asyncio.to_thread(context.storage.fetch_evaluations)
        there = path.exists()
        await asyncio.to_thread(context.storage.fetch_evaluation_file, path)
        seen.append((there, path.read_text()))
        return StageResult(stage=context.stage, state="done")

    run_stage("self-assessment", attempt(root), score)
    elsewhere()
    run_stage("self-evolution", attempt(root), compare)
    assert seen == [(False, "{}\n")]


def test_what_a_component_hands_on_are_uris(root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def train(context: StageContext) -> StageResult:
        (context.directory / "model").mkdir()
        (context.directory / "model" / "perseid-model.json").write_text(MANIFEST.model_dump_json())
        return StageResult(stage="finetune", state="done", metrics={"trained": 1.0})

    class Artifact:
        def __init__(self) -> None:
            self.path, self.metadata = str(tmp_path / "artifact"), dict[str, str]()

        def log_metric(self, name: str, value: float) -> None:
            self.metadata[name] = str(value)

    monkeypatch.setattr(kfp.importlib, "import_module", lambda _: type("Stage", (), {"run": staticmethod(train)}))
    told = attempt(root)
    parameters = (told.run.model_dump(mode="json", by_alias=True), RUN_ID, 0, 0, root, "org/name")
    for machine in ("first", "second"):
        monkeypatch.setenv(SCRATCH_DIRECTORY, str(tmp_path / machine))
        model = Artifact()
        where = kfp.run_component("finetune", parameters, Artifact(), model=model)  # type: ignore[arg-type]
        assert where == f"{root}/{STAGE_KEY.format(0, 'finetune')}/{RESULT}"
        assert model.metadata["uri"] == f"{root}/{STAGE_KEY.format(0, 'finetune')}/model"
        assert Path(model.path).read_text() == MANIFEST.model_dump_json()


def test_wrong_credentials_end_a_stage_before_it_begins(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    body = Body()
    began = time.monotonic()
    with pytest.raises(StorageRefusedError, match="AWS_SECRET_ACCESS_KEY"):
        run_stage("convert", attempt(root), body)
    assert time.monotonic() - began < 5
    assert body.contexts == []


@pytest.mark.usefixtures("server")
def test_a_missing_bucket_ends_a_stage_before_it_begins() -> None:
    body = Body()
    with pytest.raises(StorageRefusedError, match="no bucket absent"):
        run_stage("convert", attempt("s3://absent/runs"), body)
    assert body.contexts == []


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "1e9"])
def test_an_interval_that_is_no_time_is_refused(root: str, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(pusher.PUSH_SECONDS, text)
    with pytest.raises(StorageError, match=pusher.PUSH_SECONDS):
        run_stage("convert", attempt(root), Body())


def taken_over(root: str, directory: Path) -> DirectoryMirror:
    """Another try, on another machine, has begun."""
    other = DirectoryMirror(Objects(root), STAGE_KEY.format(0, "convert"), directory)
    other.take_over()
    other.pull()
    return other


def test_a_stage_that_was_taken_over_is_stopped_and_changes_nothing(
    root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(pusher.PUSH_SECONDS, "0.1")
    stopped: list[str] = []

    async def body(context: StageContext) -> StageResult:
        taken_over(root, tmp_path / "other")
        try:
            await asyncio.Event().wait()  # until it is stopped
        except asyncio.CancelledError:
            stopped.append("cancelled")
            (context.directory / "too-late").write_text("x")
            raise
        raise AssertionError

    with pytest.raises(OwnershipLostError, match="another try of this stage"):
        run_stage("convert", attempt(root), body)
    assert stopped == ["cancelled"]
    assert result(root, 0) is None
    assert not [found for found in Objects(root).list("") if "too-late" in found.key]


def test_training_in_a_thread_is_stopped_by_its_next_progress(
    root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(pusher.PUSH_SECONDS, "0.1")
    steps: list[int] = []

    async def body(context: StageContext) -> StageResult:
        def train() -> None:
            taken_over(root, tmp_path / "other")
            while True:
                context.progress.begin("training")
                steps.append(1)
                assert len(steps) < 100_000, "nobody stops it"

        await asyncio.to_thread(train)
        raise AssertionError

    with pytest.raises(OwnershipLostError):
        run_stage("convert", attempt(root), body)
    assert result(root, 0) is None


def test_a_stage_that_ends_after_it_was_taken_over_does_not_claim_to_be_done(root: str, tmp_path: Path) -> None:
    others: list[DirectoryMirror] = []
    body = Body(then=lambda: others.append(taken_over(root, tmp_path / "other")))
    with pytest.raises(OwnershipLostError):
        run_stage("convert", attempt(root), body)
    assert result(root, 0) is None
    others[0].finish(b"the other's")
    assert Objects(root).read(f"{STAGE_KEY.format(0, 'convert')}/{RESULT}")[0] == b"the other's"  # type: ignore[index]


# Slow (15 s): the server is stopped and started again, while a push and the last one are tried.
@pytest.mark.slow
def test_an_outage_of_the_storage_is_waited_for_and_told_when_it_lasts(
    tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    del server  # for the environment; this test stops a server of its own
    own = S3Server(tmp_path / "seaweedfs")
    own.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT", own.endpoint)
        monkeypatch.setenv(pusher.PUSH_SECONDS, "0.1")
        monkeypatch.setattr("perseid.storage.stores.Patience.WORK._value_", (1, 2))
        root = f"s3://{BUCKET}/outage"

        async def body(context: StageContext) -> StageResult:
            own.stop()
            (context.directory / "out.jsonl").write_text("{}\n")
            failed = threading.Event()
            monkeypatch.setattr(pusher.log, "warning", lambda *_: failed.set())
            assert await asyncio.to_thread(failed.wait, 60)
            return StageResult(stage="convert", state="done")

        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            own.start()

        monkeypatch.setattr(stage, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pause))
        assert run_stage("convert", attempt(root), body).state == "done"
        assert len(pauses) == 1
        assert {found.key.rpartition("/")[2] for found in Objects(root).list("")} >= {"out.jsonl", RESULT}

        monkeypatch.setattr(stage, "FINISH_SECONDS", 0.0)
        with pytest.raises(StorageError, match=rf"what evaluate has made could not be stored.*{root}.*AWS_ENDPOINT"):
            run_stage("evaluate", attempt(root), Body("evaluate", then=own.stop))
    finally:
        own.stop()


def test_a_scratch_directory_is_private_and_one_that_cannot_be_is_told_with_its_variable(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("convert", attempt(root), Body())
    assert Path(os.environ[SCRATCH_DIRECTORY]).stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(SCRATCH_DIRECTORY, str(tmp_path / "file" / "scratch"))
    with pytest.raises(StorageError, match=SCRATCH_DIRECTORY):
        run_stage("convert", attempt(root), Body())


def test_a_local_run_asks_nothing_of_object_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    monkeypatch.setenv(SCRATCH_DIRECTORY, str(scratch))
    monkeypatch.setattr("perseid.storage.objects.open_store", None)
    before = threading.active_count()
    body = Body(then=lambda: threads.append(threading.active_count()))
    threads: list[int] = []
    run_stage("convert", attempt(str(tmp_path / "run")), body)
    assert not scratch.exists()
    assert threads == [before]
    layout = Layout.of(attempt(str(tmp_path / "run")))
    assert sorted(path.name for path in layout.attempt_directory.iterdir()) == ["convert", "convert.lock"]
