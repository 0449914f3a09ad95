"""`perseid report DIRECTORY`: the report of a run on this machine, as one HTML file."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path

from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus
from perseid.cli.outputs import cannot_write
from perseid.runner.directory import RunDirectory
from perseid.runner.errors import RunnerError

REPORT = "report.html"
"""In the run's directory, where no other file is named."""


def is_directory(target: str) -> bool:
    """Whether a directory is named, or can only be meant: names in a cluster have no slash and no dot."""
    return Path(target).is_dir() or "/" in target or target in {".", ".."}


def report_directory(target: Path, output: Path | None) -> Path:
    """Write the report of the run in a directory, whether it goes on or not; returns the file.

    Raises RunnerError and DataError.
    """
    directory = RunDirectory(target)
    run, status = directory.recorded()
    status = directory.whole_status(status)
    return write_report(run, status, directory.path, output or directory.path / REPORT)


def write_report(run: EvolutionRun, status: EvolutionRunStatus, root: Path, output: Path) -> Path:
    """Write the report of the files below `root`, atomically. Raises RunnerError and DataError."""
    from perseid.report.document import read_report  # what reads and shows all files takes a second to import
    from perseid.report.render import render

    if output.is_dir():
        raise RunnerError(f"{output} is a directory; give the file to write, for example {output / REPORT}")
    page = render(read_report(run, status, root, datetime.now(UTC)))
    # Not as the run's own files are written: those are their owner's alone, and a report is there to be passed on.
    scratch = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(page, encoding="utf-8")
        scratch.replace(output)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise RunnerError(cannot_write(output, error)) from error
    return output
