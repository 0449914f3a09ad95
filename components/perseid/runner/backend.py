"""Pipeline runs on this machine, as durable as a server's: a submission file is the run, an exit file is its end.

A run that was submitted but has no exit file is alive: if its process is gone (the machine went down, somebody killed
it), the backend starts it again, and the stages go on from what they had.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from perseid.api.attempt import Attempt
from perseid.api.layout import RESULT, newest_usage, parts_in, read_stage_result
from perseid.api.result import PaidUsage, ResultError, parse_result
from perseid.api.stages import STAGES
from perseid.api.status import EvolutionRunStatus, Intent
from perseid.decide.observed import ObservedRun, RunState
from perseid.processes import DIE_WITH, stop_group
from perseid.runner.directory import RunDirectory, write_atomically

SUBMISSION = "submission.json"
EXIT = "exit.json"
LOG = "log.txt"


class Backend(Protocol):
    """What the loop needs of whoever executes pipeline runs."""

    def observe(self, status: EvolutionRunStatus) -> Mapping[str, ObservedRun]:
        """What is known about the run that the status speaks of, by run id."""
        ...

    def submit(self, attempt: Attempt) -> None:
        """Make sure that the run exists."""
        ...

    def terminate(self, run_id: str) -> None:
        """Stop a run for good."""
        ...

    def wait(self, seconds: float) -> None:
        """Return when a run ends, or after that long."""
        ...

    def close(self) -> None:
        """Stop what runs here; it can be gone on with later."""
        ...


class LocalBackend:
    """Executes pipeline runs as child processes, at most one at a time.

    Raises RunnerError where the directory cannot be written: the run is as it was, and can be gone on with.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._attempt: Path | None = None
        self._run_id = ""

    def observe(self, status: EvolutionRunStatus) -> Mapping[str, ObservedRun]:
        """What is known about the current run; brings it back to life where its process is gone."""
        given_up = {run_id: ObservedRun(self._state_of(run_id)) for run_id in status.stopping}
        if status.current is None:
            return given_up
        return {**given_up, status.current.run_id: self._observe_current(status.current)}

    def _state_of(self, run_id: str) -> RunState:
        """Of a run that was given up: without its process there is nothing of it."""
        alive = self._process is not None and self._run_id == run_id and self._process.poll() is None
        return RunState.RUNNING if alive else RunState.FAILED

    def _observe_current(self, current: Intent) -> ObservedRun:
        directory = self._directory.attempt_directory(current.generation, current.attempt)
        if not (directory / SUBMISSION).exists():
            return ObservedRun(RunState.MISSING)
        code = self._exit_code(directory)
        if code is None:
            if self._process is None:
                self._start(directory, current.run_id)
            return ObservedRun(RunState.RUNNING)
        if code != 0:
            # Directories are in the order of attempts: what the newest one says of a stage stands.
            attempts = [self._directory.attempt_directory(current.generation, n) for n in range(current.attempt + 1)]
            paid = PaidUsage.of(newest_usage(attempts, STAGES).values())
            return dataclasses.replace(_failed(directory, code), paid=paid)
        return _succeeded(directory)

    def submit(self, attempt: Attempt) -> None:
        """Make sure that the run exists."""
        directory = self._directory.attempt_directory(attempt.generation, attempt.number)
        submission = directory / SUBMISSION
        if not submission.exists():
            with self._directory.writable():
                write_atomically(submission, attempt.model_dump_json(by_alias=True, indent=2))
        if self._process is None and not (directory / EXIT).exists():
            self._start(directory, attempt.run_id)

    def terminate(self, run_id: str) -> None:
        """Stop a run for good."""
        if self._process is not None and self._attempt is not None and self._run_id == run_id:
            stop_group(self._process)
            self._write_exit(self._attempt, self._process.returncode)

    def wait(self, seconds: float) -> None:
        """Return when the run ends, or after that long."""
        if self._process is None:
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def close(self) -> None:
        """Stop the process. Without an exit file the run counts as alive, and the next backend goes on with it."""
        if self._process is not None:
            stop_group(self._process)
            self._process = None

    def _start(self, directory: Path, run_id: str) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", DIE_WITH: str(os.getpid())}
        with self._directory.writable():
            log = (directory / LOG).open("ab")
        with log:
            # A session of its own: Ctrl-C in the terminal reaches `perseid run` alone, which ends the stages in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "perseid.runner.worker", str(directory / SUBMISSION)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self._attempt, self._run_id = directory, run_id

    def _exit_code(self, directory: Path) -> int | None:
        if self._process is not None and self._attempt == directory:
            code = self._process.poll()
            if code is not None:
                self._write_exit(directory, code)
        try:
            return int(json.loads((directory / EXIT).read_text())["code"])
        except FileNotFoundError:
            return None

    def _write_exit(self, directory: Path, code: int) -> None:
        with self._directory.writable():
            write_atomically(directory / EXIT, json.dumps({"code": code}))
        self._process = None


def _succeeded(directory: Path) -> ObservedRun:
    try:
        return ObservedRun(RunState.SUCCEEDED, result=parse_result((directory / RESULT).read_bytes()))
    except FileNotFoundError:
        return ObservedRun(RunState.SUCCEEDED)
    except ResultError as error:
        return ObservedRun(RunState.SUCCEEDED, result_error=str(error))


def _failed(directory: Path, code: int) -> ObservedRun:
    """Which stage failed, where one did, and why: what it says itself, or what is known of its end."""
    log = directory / LOG
    for stage in STAGES:
        results = {part.name: read_stage_result(part) for part in parts_in(directory, stage)}
        for name, result in results.items():
            if result is not None and result.error:
                error = f"{name}: {result.error} (log: {log})"
                return ObservedRun(RunState.FAILED, error=error, failed_stage=stage, spent_budget=result.spent_budget)
        for name, result in results.items():
            if result is None:
                error = f"{name} ended without a result; was it killed, or out of memory? (log: {log})"
                return ObservedRun(RunState.FAILED, error=error, failed_stage=stage)
    return ObservedRun(RunState.FAILED, error=f"the pipeline ended with exit code {code} (log: {log})")
