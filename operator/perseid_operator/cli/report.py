"""`perseid report NAME`: from the run's result files where they can be read, else from its status; it says which.

The HTML page needs the files: without them there are no trees and no answers to show.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus
from perseid.cli.report import write_report
from perseid.cli.tables import print_summary
from perseid.data.errors import DataError
from perseid.report.summary import Summary, summarise
from perseid.runner.errors import RunnerError
from perseid_operator.cli.access import Access
from perseid_operator.cli.errors import ClusterError
from perseid_operator.cli.history import whole_status
from perseid_operator.cli.results import ResultFiles, ResultsUnreachableError, storage_of
from perseid_operator.cli.runs import SeenRun
from perseid_operator.cli.tables import plain, print_status_report


async def print_report(console: Console, access: Access, seen: SeenRun, storage: str | None, *, as_json: bool) -> None:
    """Print the report. Raises ClusterError where the object holds nothing that a report could be made of."""
    run = seen.run()
    status, missing = await whole_status(access, seen)
    root = storage or storage_of(run, status)
    try:
        summary = _from_files(run, status, root)
        source = f"Made from the result files in {root}."
    except ResultsUnreachableError as error:
        summary = None
        source = f"Made from the object's status alone, so it has scores on dev only: {error}."
    source = f"{source} {missing}".rstrip()
    if as_json:
        data = _from_status(run, status) if summary is None else summary.to_dict()
        text = json.dumps({"source": "status" if summary is None else "files", "note": source, **data}, indent=2)
        console.out(text, highlight=False)
        return
    if summary is None:
        print_status_report(console, run, status)
    else:
        print_summary(console, summary)
    console.print(plain(source), soft_wrap=True)


async def write_page(access: Access, seen: SeenRun, storage: str | None, output: Path) -> str:
    """Write the HTML report of the run's files; returns what is to be said of generations that it lacks.

    Raises ClusterError where the files cannot be read from here.
    """
    run = seen.run()
    status, missing = await whole_status(access, seen)
    root = storage or storage_of(run, status)
    try:
        if root is None:
            raise ResultsUnreachableError("nothing says where the run's files are; name the place with --storage")
        with ResultFiles(root).for_page(status) as directory:
            write_report(run, status, directory, output)
    except (ResultsUnreachableError, DataError, RunnerError) as error:
        raise ClusterError(f"the report of {seen.name} cannot be written: {error}") from error
    return missing


def _from_files(run: EvolutionRun, status: EvolutionRunStatus, root: str | None) -> Summary:
    if root is None:
        raise ResultsUnreachableError("nothing says where the run's files are; name the place with --storage")
    with ResultFiles(root).for_report(status) as directory:
        try:
            return summarise(run, status, directory)
        except (DataError, ValueError, OSError) as error:
            said = str(error).replace(str(directory), root)
            raise ResultsUnreachableError(f"the result files in {root} are not whole: {said}") from error


def _from_status(run: EvolutionRun, status: EvolutionRunStatus) -> dict[str, Any]:
    promoted = status.promoted
    return {
        "name": run.metadata.name,
        "phase": status.phase.value,
        "model": run.spec.model.ref if promoted is None else promoted.uri,
        "promoted_generation": None if promoted is None or promoted.is_base else promoted.generation,
        "promoted_score": status.promoted_score,
        "generations": [
            {
                "index": one.index,
                "phase": one.phase.value,
                **({} if one.result is None else one.result.model_dump(mode="json", by_alias=False)),
            }
            for one in status.generations
        ],
    }
