"""Calibration before a run is paid for: a sample of its problems is searched and answered, as the run would do it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from perseid.api.attempt import Attempt
from perseid.api.base import replace
from perseid.api.identity import spec_digest
from perseid.api.layout import PROGRESS, Layout, read_stage_result
from perseid.api.problems import ProblemSet
from perseid.api.progress import read_progress
from perseid.api.spec import EvolutionRun
from perseid.cli.bounds import most_tokens_of_problem
from perseid.cli.measured import STAGES
from perseid.cli.view import pace
from perseid.data.jsonl import write_jsonl
from perseid.data.problems import load_problems
from perseid.data.records import Problem
from perseid.processes import DIE_WITH, stop_group
from perseid.report.files import spread
from perseid.runner.backend import SUBMISSION
from perseid.runner.directory import RunDirectory, write_atomically
from perseid.runner.errors import RunnerError

LEAST_PLANS = 4
"""Plans of a problem that are answered at least: of the best one alone, nothing orders right and wrong."""
PROBLEMS = "problems.jsonl"
LOOK_SECONDS = 0.5


def sample_problems(run: EvolutionRun, count: int) -> list[Problem]:
    """Train problems with tests, evenly chosen. Raises RunnerError and DataError."""
    if "sra-mcts" not in run.spec.methods:
        raise RunnerError(
            f"{run.metadata.name} has no search to calibrate: spec.methods is {', '.join(run.spec.methods)}; METEOR"
            " measures its judges in every run (docs/meteor.md)"
        )
    tested = [one for one in load_problems(run.spec.problems.train, Path("/")) if one.tests]
    if not tested:
        raise RunnerError(
            "no problem of spec.problems.train has tests: nothing says which answers are right, so nothing can be"
            " calibrated; give some of them tests"
        )
    return spread(tested, count)


def prepare(run: EvolutionRun, problems: Sequence[Problem], runs_dir: Path) -> Attempt:
    """What the calibration does, and where; the same file and number of problems get the same directory.

    Nothing is written. Raises RunnerError.
    """
    ids = "\n".join(one.id for one in problems)
    digest = hashlib.sha256(f"{spec_digest(run.spec)}\n{ids}".encode()).hexdigest()[:12]
    # No run can be called so: there is a dot in it.
    root = (runs_dir / f"{run.metadata.name}.calibration" / digest).resolve()
    start = RunDirectory(runs_dir / run.metadata.name).start_model(run)
    spec = run.spec
    synthesis = replace(spec.synthesis, plans_per_problem=max(LEAST_PLANS, spec.synthesis.plans_per_problem))
    train = ProblemSet(source="jsonl", path=str(root / PROBLEMS))
    changed = spec.model_copy(
        update={
            "problems": replace(spec.problems, train=train),
            "synthesis": synthesis,
            "pipeline": replace(spec.pipeline, shards=1),
        }
    )
    return Attempt(
        run=run.model_copy(update={"spec": changed}),
        run_id="calibration",
        generation=0,
        number=0,
        storage=str(root),
        start_model=spec.model.ref if start is None or start.model is None else start.model.uri,
    )


def most_tokens(attempt: Attempt, problems: int) -> int:
    """Tokens that models make at most."""
    return problems * most_tokens_of_problem(attempt.run.spec)


def carry_out(attempt: Attempt, problems: Sequence[Problem], console: Console) -> None:
    """Search and answer, in a process of its own. Raises RunnerError, and KeyboardInterrupt where it is stopped."""
    root = Path(attempt.storage)
    with RunDirectory(root).locked():
        try:
            write_jsonl(root / PROBLEMS, problems)
            write_atomically(root / SUBMISSION, attempt.model_dump_json(by_alias=True, indent=2))
        except OSError as error:
            raise RunnerError(f"cannot write {root}: {error.strerror}; give another --runs-dir") from error
        _carry_out(root, console)


def _carry_out(root: Path, console: Console) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", DIE_WITH: str(os.getpid())}
    with (root / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "perseid.stages.calibrating", str(root / SUBMISSION)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches us alone, and we end it in order
        )
    try:
        with console.status("starting") as status:
            while process.poll() is None:
                status.update(Text(_now(root)))
                try:
                    process.wait(LOOK_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
    finally:
        stop_group(process)
    if process.returncode != 0:
        raise RunnerError(_failure(root))


def _now(root: Path) -> str:
    layout = Layout(root, 0, 0)
    for stage in reversed(STAGES):
        progress = read_progress(layout.stage(stage) / PROGRESS)
        if progress is not None:
            amount = f" {progress.done:.0f}/{progress.total:.0f} {progress.unit}" if progress.total else ""
            return f"{progress.stage}: {progress.task}{amount}, {pace(progress, time.time())} {progress.note}"
    return "starting"


def _failure(root: Path) -> str:
    layout = Layout(root, 0, 0)
    for stage in STAGES:
        result = read_stage_result(layout.stage(stage))
        if result is not None and result.error:
            return f"{stage}: {result.error} (log: {root / 'log.txt'})"
    return f"the calibration ended without a result; was it killed, or out of memory? (log: {root / 'log.txt'})"
