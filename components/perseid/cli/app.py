"""The commands: run, validate, compile, plan, report; those that look at runs; and those that plugins bring."""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from typer.models import CommandInfo

from perseid import __version__
from perseid.api.reasons import Phase
from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus
from perseid.cli import exits
from perseid.cli.completion import complete_run
from perseid.cli.inspection import commands as inspection
from perseid.cli.outputs import cannot_write
from perseid.cli.preflight import check
from perseid.cli.preflight_machine import check_machine
from perseid.cli.tables import print_summary
from perseid.cli.terminal import RunFile, end_on_sigterm, fail, load, open_console, or_exit
from perseid.cli.view import LinesView, LiveView, SilentView, View
from perseid.data.errors import DataError
from perseid.report.summary import summarise
from perseid.runner.backend import LocalBackend
from perseid.runner.directory import RunDirectory, absolute_paths
from perseid.runner.errors import RunnerError
from perseid.runner.loop import drive

app = typer.Typer(
    name="perseid",
    help="One YAML file makes a language model better.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)

PLUGINS = "perseid.commands"
"""Entry points of this group are typer apps: their commands become commands of `perseid`, in place of ours of the same
name: the operator's `report` knows runs in clusters beside those in directories."""
CLUSTER_COMMANDS = ("get", "describe", "logs", "suspend", "resume", "approve", "report")
"""What the extra `operator` brings; `report` is ours as well, for directories."""
NEEDS_OPERATOR = (
    f"needs Perseid's extra `operator`, which is not installed in {sys.prefix}: pip install 'perseid[operator]'"
)


def main() -> None:
    """Entry point of the command."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        print(f"perseid {__version__}")  # noqa: T201  # the command's answer
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """One YAML file makes a language model better."""


@app.command()
def validate(file: RunFile) -> None:
    """Check a run file: every mistake with its line, what is allowed and the nearest right name."""
    run = load(file)
    or_exit(lambda: check(absolute_paths(run, file.resolve().parent), keys=False))
    Console().print(f"{file} is valid: EvolutionRun {run.metadata.name}", highlight=False, markup=False, soft_wrap=True)


@app.command("compile")
def compile_(
    file: RunFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the pipeline.")] = Path(
        "pipeline.yaml"
    ),
) -> None:
    """Write the Kubeflow pipeline of one generation."""
    run = load(file)
    if output.is_dir():
        fail(exits.MISTAKE, f"{output} is a directory; give the file to write, for example {output / 'pipeline.yaml'}")
    from perseid.pipelines.generation import compile_pipeline  # KFP takes a second to import

    try:
        compile_pipeline(run, output)
    except OSError as error:
        fail(exits.MISTAKE, cannot_write(output, error))
    Console().print(f"wrote {output}", highlight=False, markup=False)


@app.command()
def plan(
    file: RunFile,
    uid: Annotated[
        UUID | None,
        typer.Option(help="uid of the object, where it exists. Default: a placeholder drawn from its name."),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Default: the file's own, else `default`.")
    ] = None,
    generations: Annotated[
        int | None, typer.Option(min=1, help="Tell of this many generations. Default: all, up to 10.")
    ] = None,
    storage_root: Annotated[
        str | None, typer.Option(help="The operator's own root of files, for runs without spec.storage.uri.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON, and nothing else.")] = False,
) -> None:
    """Say what a cluster would be asked for, with ids. A dry run: it needs no cluster, and nothing is submitted."""
    accepted = load(file)
    from perseid.cli.plan import plan_submissions, print_plan

    planned = or_exit(
        lambda: plan_submissions(
            accepted,
            namespace=namespace or accepted.metadata.namespace or "default",
            uid=None if uid is None else str(uid),
            generations=generations,
            storage_root=storage_root,
        )
    )
    if as_json:
        print(json.dumps(planned.to_dict(), indent=2))  # noqa: T201  # the command's answer
    else:
        print_plan(open_console(), planned)


@app.command()
def run(
    file: RunFile,
    runs_dir: Annotated[Path, typer.Option(help="Directory that holds the runs' directories.")] = Path("runs"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")] = False,
) -> None:
    """Carry a run through on this machine. The same command goes on with a run that was stopped."""
    accepted = absolute_paths(load(file), file.resolve().parent)
    or_exit(lambda: check(accepted, keys=True))
    directory = RunDirectory(runs_dir / accepted.metadata.name)
    if directory.is_new:
        or_exit(lambda: check_machine(accepted, directory.path))
    console = open_console()
    view: View
    if quiet or as_json:
        view = SilentView()
    elif console.is_terminal:
        view = LiveView(console, directory.path, accepted)
    else:
        view = LinesView(console, directory.path, accepted)
    # What the end needs is loaded now: in hours, another version may be installed. `validate` need not wait for it.
    importlib.import_module("perseid.report.render")
    status = or_exit(lambda: _drive(accepted, directory, view))
    _report(accepted, directory, or_exit(lambda: directory.whole_status(status)), console, quiet=quiet, as_json=as_json)
    if status.phase is Phase.FAILED:
        raise typer.Exit(exits.FAILED)
    if not status.phase.is_terminal:
        raise typer.Exit(exits.SUSPENDED)


@app.command()
def report(
    run: Annotated[
        str,
        typer.Argument(
            metavar="DIRECTORY", help="A run's directory, for example runs/NAME.", autocompletion=complete_run
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write. Default: report.html in the directory.")
    ] = None,
) -> None:
    """Write the report of a run, one HTML file, whether the run goes on or not."""
    from perseid.cli.report import is_directory, report_directory

    if not is_directory(run):
        fail(exits.MISTAKE, f"there is no directory {run}; the report of a run in a cluster {NEEDS_OPERATOR}")
    written = or_exit(lambda: report_directory(Path(run), output))
    Console().print(f"wrote {written}", highlight=False, markup=False, soft_wrap=True)


def _drive(accepted: EvolutionRun, directory: RunDirectory, view: View) -> EvolutionRunStatus:
    # SIGTERM ends a run as Ctrl-C does: in order, and to be gone on with.
    end_on_sigterm()
    with directory.locked():
        backend = LocalBackend(directory)
        try:
            with view:
                return drive(accepted, directory, backend, lambda: datetime.now(UTC), view.update)
        except KeyboardInterrupt:
            # A second Ctrl-C must not cut the clean-up short: what it would leave behind is killed with us anyway.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            backend.close()
            fail(
                exits.INTERRUPTED,
                f"stopped; what is done is in {directory.path}. The same command goes on from there.",
            )
        finally:
            backend.close()


def _report(
    accepted: EvolutionRun,
    directory: RunDirectory,
    status: EvolutionRunStatus,
    console: Console,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    summary = or_exit(lambda: summarise(accepted, status, directory.path))
    if as_json:
        print(json.dumps(summary.to_dict(), indent=2))  # noqa: T201  # the command's answer
    elif not quiet:
        print_summary(console, summary)
    _write_page(accepted, directory, status, console, quiet=quiet or as_json)
    if status.phase is Phase.FAILED and not as_json:
        Console(stderr=True).print(f"error: {summary.message}", style="red", highlight=False, markup=False)


def _write_page(
    accepted: EvolutionRun, directory: RunDirectory, status: EvolutionRunStatus, console: Console, *, quiet: bool
) -> None:
    from perseid.cli.report import REPORT, write_report

    try:
        page = write_report(accepted, status, directory.path, directory.path / REPORT)
    except (RunnerError, DataError) as error:
        # What the run came to stands, and its exit code says that; the report can be made again.
        again = f"`perseid report {directory.path}` writes it when that is mended"
        Console(stderr=True).print(
            f"there is no report: {error}; {again}", highlight=False, markup=False, soft_wrap=True
        )
        return
    if not quiet:
        console.print(f"Report: {page}", highlight=False, markup=False, soft_wrap=True)


def add_plugins(to: typer.Typer) -> None:
    """Add the commands of every plugin that can be loaded, and hidden ones that say how to get those of clusters."""
    for plugin in entry_points(group=PLUGINS):
        try:
            commands = plugin.load()
        except ImportError as error:
            logging.getLogger(__name__).debug("the plugin %s cannot be loaded: %s", plugin.value, error)
            continue
        brought = {_name(command) for command in commands.registered_commands}
        to.registered_commands[:] = [one for one in to.registered_commands if _name(one) not in brought]
        to.registered_commands.extend(commands.registered_commands)
    there = {_name(command) for command in to.registered_commands}
    for name in CLUSTER_COMMANDS:
        if name not in there:
            to.command(name, hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(
                _absent
            )


def _name(command: CommandInfo) -> str:
    return str(command.name or getattr(command.callback, "__name__", ""))


def _absent(context: typer.Context) -> None:
    fail(exits.MISTAKE, f"`perseid {context.info_name}` speaks to clusters and {NEEDS_OPERATOR}")


if os.environ.get("PERSEID_LOG") == "debug":
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)

app.registered_commands.extend(inspection.registered_commands)
add_plugins(app)
