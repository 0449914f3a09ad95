"""The backend with real processes; a worker without a pipeline stands in for the real one (about 0.5 s to start)."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_fakes import START, make_run

from perseid.api.attempt import Attempt
from perseid.api.base import replace
from perseid.api.result import MentorBudget, PaidUsage
from perseid.api.status import EvolutionRunStatus, Intent
from perseid.decide.observed import ObservedRun, RunState
from perseid.runner import backend as backend_module
from perseid.runner.backend import EXIT, LOG, SUBMISSION, LocalBackend
from perseid.runner.directory import RunDirectory
from perseid.runner.errors import RunnerError

HERE = Path(__file__).parent
RUN_ID = "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11"
PATIENCE_SECONDS = 60.0


class World:
    """A run directory, and backends over it."""

    def __init__(self, root: Path) -> None:
        self.directory = RunDirectory(root)
        self.directory.path.mkdir(parents=True, exist_ok=True)
        self.attempt = Attempt(
            run=make_run(), run_id=RUN_ID, generation=0, number=0, storage=str(root), start_model="embedded:x"
        )
        intent = Intent(generation=0, attempt=0, run_id=RUN_ID, intent_time=START)
        self.status = EvolutionRunStatus(uid=RUN_ID, current=intent)
        self.place = self.directory.attempt_directory(0, 0)
        self.backends: list[LocalBackend] = []

    def backend(self, script: str) -> LocalBackend:
        (self.directory.path / "script").write_text(script)
        self.backends.append(LocalBackend(self.directory))
        return self.backends[-1]

    def look(self, backend: LocalBackend) -> ObservedRun:
        return backend.observe(self.status)[RUN_ID]

    def run(self, script: str) -> ObservedRun:
        backend = self.backend(script)
        backend.submit(self.attempt)
        backend.wait(PATIENCE_SECONDS)
        return self.look(backend)

    def starts(self) -> list[int]:
        return [int(line) for line in (self.place / "starts").read_text().split()]

    def until_started(self, backend: LocalBackend, times: int) -> None:
        file = self.place / "starts"
        while not file.exists() or len(self.starts()) < times:
            assert self.look(backend).state is RunState.RUNNING
            backend.wait(0.02)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    real = subprocess.Popen

    def with_stand_in(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        if command[1:3] == ["-m", "perseid.runner.worker"]:
            command = [command[0], str(HERE / "stand_in_worker.py"), *command[3:]]
        return real(command, **options)

    monkeypatch.setattr(backend_module.subprocess, "Popen", with_stand_in)
    made = World(tmp_path / "fake")
    yield made
    for backend in made.backends:
        backend.close()


def test_a_run_that_was_never_submitted_is_missing(world: World) -> None:
    backend = world.backend("succeed")
    assert world.look(backend).state is RunState.MISSING
    assert backend.observe(EvolutionRunStatus(uid=RUN_ID)) == {}


def test_a_run_that_ends_well_is_seen_with_its_result(world: World) -> None:
    seen = world.run("succeed")
    assert seen.state is RunState.SUCCEEDED
    assert seen.result is not None
    assert seen.result.run_id == RUN_ID


def test_a_result_that_cannot_be_trusted_is_told_as_such(world: World) -> None:
    seen = world.run("write nonsense")
    assert seen.state is RunState.SUCCEEDED
    assert seen.result is None
    assert "generation" in (seen.result_error or "")


def test_a_failure_says_the_failed_stage_its_error_and_the_log(world: World) -> None:
    seen = world.run("fail in convert")
    assert seen.state is RunState.FAILED
    assert seen.error == f"convert: no disk (log: {world.place / 'log.txt'})"
    assert seen.failed_stage == "convert"


def test_a_failure_in_a_stage_of_meteor_is_told_with_its_name(world: World) -> None:
    seen = world.run("fail in self-assessment")
    assert seen.error == f"self-assessment: no judge (log: {world.place / 'log.txt'})"
    assert seen.failed_stage == "self-assessment"
    assert seen.spent_budget is None
    assert seen.paid == PaidUsage(cost=2.5, tokens=27), "it was paid for although it failed"


def test_the_cost_of_a_failed_attempt_has_in_it_what_only_an_earlier_one_tells_of(world: World) -> None:
    earlier = world.place
    world.run("fail in self-assessment")
    world.attempt = world.attempt.model_copy(update={"number": 1})
    world.status = replace(world.status, current=replace(world.status.current, attempt=1))
    world.place = world.directory.attempt_directory(0, 1)
    assert world.place != earlier
    seen = world.run("be killed in synthesize")
    assert seen.failed_stage == "synthesize"
    assert seen.paid == PaidUsage(cost=2.5, tokens=27)


def test_a_failure_for_lack_of_budget_tells_the_budget(world: World) -> None:
    seen = world.run("fail for lack of budget")
    assert seen.failed_stage == "self-assessment"
    assert seen.spent_budget == MentorBudget(mentor_cost=5.0)


def test_a_stage_that_was_killed_is_said_to_have_left_no_result(world: World) -> None:
    seen = world.run("be killed in synthesize")
    assert seen.state is RunState.FAILED
    assert "synthesize ended without a result; was it killed, or out of memory?" in (seen.error or "")
    assert seen.failed_stage == "synthesize"


def test_a_pipeline_that_breaks_outside_its_stages_says_its_exit_code(world: World) -> None:
    seen = world.run("break")
    assert "exit code 3" in (seen.error or "")
    assert seen.failed_stage is None


def test_an_end_is_remembered_by_the_next_backend_and_nothing_runs_again(world: World) -> None:
    first = world.run("succeed")
    later = world.backend("break")
    later.submit(world.attempt)
    assert world.look(later) == first
    assert len(world.starts()) == 1


def test_a_submission_is_not_repeated_while_its_process_runs(world: World) -> None:
    backend = world.backend("hang")
    backend.submit(world.attempt)
    world.until_started(backend, 1)
    backend.submit(world.attempt)
    assert world.look(backend).state is RunState.RUNNING
    assert len(world.starts()) == 1


def test_a_run_whose_process_is_gone_with_its_backend_is_started_again_by_the_next(world: World) -> None:
    backend = world.backend("hang")
    backend.submit(world.attempt)
    world.until_started(backend, 1)
    backend.close()
    assert not (world.place / "exit.json").exists(), "close has ended the run for good"

    later = world.backend("succeed")
    assert world.look(later).state is RunState.RUNNING
    later.wait(PATIENCE_SECONDS)
    assert world.look(later).state is RunState.SUCCEEDED
    assert len(world.starts()) == 2


def test_closing_ends_the_process(world: World) -> None:
    backend = world.backend("hang")
    backend.submit(world.attempt)
    world.until_started(backend, 1)
    backend.close()
    with pytest.raises(ProcessLookupError):
        os.kill(world.starts()[0], 0)
    backend.close()  # a second time is no mistake


def test_a_terminated_run_is_over_for_good(world: World) -> None:
    backend = world.backend("hang")
    backend.submit(world.attempt)
    world.until_started(backend, 1)
    backend.terminate("00000000-0000-0000-0000-000000000000")
    assert world.look(backend).state is RunState.RUNNING, "another run was terminated"
    backend.terminate(RUN_ID)
    assert json.loads((world.place / "exit.json").read_text()) == {"code": -signal.SIGTERM}
    assert world.look(backend).state is RunState.FAILED
    assert world.look(world.backend("succeed")).state is RunState.FAILED


@pytest.mark.parametrize("full", [SUBMISSION, LOG, EXIT])
def test_a_disk_that_is_full_in_the_middle_is_told_and_the_run_can_be_gone_on_with(
    world: World, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    with monkeypatch.context() as disk:
        fill_disk(disk, full)
        with pytest.raises(RunnerError, match="No space left on device") as told:
            world.run("succeed")
    assert "the same command goes on" in str(told.value)
    assert "Traceback" not in str(told.value)
    assert world.run("succeed").state is RunState.SUCCEEDED


def fill_disk(disk: pytest.MonkeyPatch, name: str) -> None:
    """From now on there is no room for files of that name."""

    def refuse(path: Path) -> None:
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    write, open_file = backend_module.write_atomically, Path.open

    def write_atomically(path: Path, text: str) -> None:
        refuse(path)
        write(path, text)

    def open_(path: Path, *arguments: Any, **options: Any) -> Any:
        refuse(path)
        return open_file(path, *arguments, **options)

    disk.setattr(backend_module, "write_atomically", write_atomically)
    disk.setattr(Path, "open", open_)


def test_waiting_without_a_process_returns_at_once(world: World) -> None:
    world.backend("hang").wait(PATIENCE_SECONDS)


def test_a_killed_run_takes_its_worker_and_the_stage_behind_a_shell_with_it(world: World) -> None:
    (world.directory.path / "script").write_text("hang behind a shell")
    world.place.mkdir(parents=True)
    (world.place / "submission.json").write_text(world.attempt.model_dump_json(by_alias=True))
    # What stands in for `perseid run`: it starts the worker as the backend does, and waits.
    program = (
        "import os, subprocess, sys; os.environ['PERSEID_DIE_WITH'] = str(os.getpid());"
        "subprocess.run(sys.argv[1:], start_new_session=True)"
    )
    worker = [sys.executable, str(HERE / "stand_in_worker.py"), str(world.place / "submission.json")]
    run = subprocess.Popen([sys.executable, "-c", program, *worker])
    try:
        ready = world.place / "ready"
        while not ready.exists() or not ready.read_text():  # there is nothing to wait on but the file
            assert run.poll() is None
        (worker_pid,) = world.starts()
        shell = int(Path(f"/proc/{worker_pid}/task/{worker_pid}/children").read_text())
        stage = int(Path(f"/proc/{shell}/task/{shell}/children").read_text())
        handles = [os.pidfd_open(pid) for pid in (worker_pid, shell, stage)]
    finally:
        run.kill()
        run.wait()
    for handle in handles:
        assert select.select([handle], [], [], 10)[0], "a process has outlived its run"


def test_a_process_whose_starter_is_dead_already_does_not_begin() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    program = "from perseid.processes import die_with_starter; die_with_starter(); print('began')"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PERSEID_DIE_WITH": str(gone.pid)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == ""
