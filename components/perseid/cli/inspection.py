"""Commands that look at runs on this machine: show. They change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus
from perseid.cli.terminal import open_console, or_exit
from perseid.runner.directory import RunDirectory

commands = typer.Typer()

RunPlace = Annotated[
    Path, typer.Argument(metavar="DIRECTORY", help="A run's directory, for example runs/NAME.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]


@commands.command()
def show(directory: RunPlace, as_json: AsJson = False) -> None:
    """Show how far a run is: its stages, yields and scores, tokens and time, and where its model is. At any moment."""
    from perseid.cli.showing import print_overview
    from perseid.report.overview import read_overview

    place = RunDirectory(directory)
    run, status = or_exit(lambda: recorded(place))
    overview = or_exit(lambda: read_overview(run, status, place.path))
    if as_json:
        print(json.dumps({**overview.to_dict(), "in_use": place.in_use()}, indent=2))  # noqa: T201  # the answer
    else:
        print_overview(open_console(), overview, in_use=place.in_use())


def recorded(directory: RunDirectory) -> tuple[EvolutionRun, EvolutionRunStatus]:
    """The run and all that is known of it. Raises RunnerError."""
    run, status = directory.recorded()
    return run, directory.whole_status(status)
