"""Commands that look at runs on this machine and change nothing in them; explain and calibrate are about run files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus
from perseid.cli import exits
from perseid.cli.completion import complete_field, complete_problem, complete_run
from perseid.cli.terminal import RunFile, end_on_sigterm, fail, load, open_console, or_exit, say
from perseid.report.models import choose_model
from perseid.runner.directory import RunDirectory, absolute_paths

commands = typer.Typer()

RunPlace = Annotated[
    Path,
    typer.Argument(
        metavar="DIRECTORY",
        help="A run's directory, for example runs/NAME.",
        show_default=False,
        autocompletion=complete_run,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]

ModelName = Annotated[Literal["best", "base"], typer.Option(help="The best model so far, or the run's start model.")]
OfGeneration = Annotated[
    int | None, typer.Option(min=0, help="The model of this generation, counted from 0, in place of --model.")
]


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


@commands.command()
def tree(
    directory: RunPlace,
    problem: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROBLEM]", help="Id of a train problem. Default: a list of all.", autocompletion=complete_problem
        ),
    ] = None,
    generation: Annotated[
        int | None, typer.Option(min=0, help="Counted from 0. Default: the newest that has trees.")
    ] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Show so many steps from the root. Default: all.")] = None,
) -> None:
    """Show the search tree of a problem: steps, visits, values, reflections, the best path and what its code did."""
    from perseid.cli.trees import print_forest, print_tree
    from perseid.report.forest import read_forest

    place = RunDirectory(directory)
    run, status = or_exit(lambda: recorded(place))
    forest = or_exit(lambda: read_forest(run, status, place.path, generation))
    if problem is None:
        print_forest(open_console(), forest)
    else:
        print_tree(open_console(), or_exit(lambda: forest.tree(problem)), depth)


@commands.command()
def compare(
    first: Annotated[
        Path, typer.Argument(metavar="A", help="A run's directory.", show_default=False, autocompletion=complete_run)
    ],
    second: Annotated[
        Path | None,
        typer.Argument(
            metavar="[B]", help="Another's. Default: the same run.", show_default=False, autocompletion=complete_run
        ),
    ] = None,
    generation: Annotated[
        int | None, typer.Option(min=0, help="Take this generation's model of B. Default: B's best one.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="N|base",
            help="Take this generation's model of A, or its base. Default: A's best one; of one run: base.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show two runs, or two generations of one, side by side: settings, scores, problems gained and lost, cost."""
    from perseid.cli.comparing import print_versus
    from perseid.report.versus import RunFiles, Which, compare_models

    if against is not None and against != "base" and not against.isdecimal():
        fail(exits.MISTAKE, f"--against is {against}; give a generation's number, counted from 0, or base")
    of_first: Which = ("base" if second is None else "best") if against is None else "base"
    if against is not None and against.isdecimal():
        of_first = int(against)
    places = [RunDirectory(first), RunDirectory(first if second is None else second)]
    runs = or_exit(lambda: [RunFiles(*recorded(place), place.path) for place in places])
    of_second: Which = "best" if generation is None else generation
    versus = or_exit(lambda: compare_models(runs[0], runs[1], of_first, of_second))
    if as_json:
        print(json.dumps(versus.to_dict(), indent=2))  # noqa: T201  # the answer
    else:
        print_versus(open_console(), versus)


@commands.command()
def chat(
    directory: RunPlace,
    model: ModelName = "best",
    generation: OfGeneration = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 512,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, max=2.0, help="0 is greedy. Default: that of spec.evaluation.sampling.")
    ] = None,
) -> None:
    """Talk to a run's model. /reset begins anew, /exit or Ctrl-D leaves, Ctrl-C stops an answer."""
    from perseid.cli.chat import chat_with

    place = RunDirectory(directory)
    run, status = or_exit(lambda: recorded(place))
    chosen = or_exit(lambda: choose_model(run, status, model if generation is None else generation))
    chat_with(run, chosen, max_tokens=max_tokens, temperature=temperature)


@commands.command()
def export(
    directory: RunPlace,
    to: Annotated[Path, typer.Option(help="Where to write it: a directory that is empty or not there yet.")],
    generation: Annotated[
        int | None, typer.Option(min=0, help="The model of this generation, counted from 0. Default: the best one.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", "--licence", help="As the hub spells it. Default: the base's, if known.")
    ] = None,
    push: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Then upload it to the hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="A repository that is made for it is public.")] = False,
) -> None:
    """Write a run's model as one directory: merged weights, tokenizer and a model card; with --push, to a hub, too."""
    from perseid.cli import exporting
    from perseid.report.versus import RunFiles

    place = RunDirectory(directory)
    run = or_exit(lambda: RunFiles(*recorded(place), place.path))
    model = or_exit(lambda: choose_model(run.run, run.status, "best" if generation is None else generation))
    if push is None or not exporting.is_export_of(to, model):
        or_exit(lambda: exporting.export(run, model, to, licence, name=push))
        say(f"wrote {to}: {model.words} of {run.name}")
    if push is not None:
        say(f"pushed {or_exit(lambda: exporting.push(to, push, public=public))}")


@commands.command()
def explain(
    field: Annotated[
        str,
        typer.Argument(
            metavar="[FIELD]",
            help="For example spec.synthesis.search. Default: the whole file.",
            autocompletion=complete_field,
        ),
    ] = "",
    recursive: Annotated[bool, typer.Option("--recursive", help="All fields below it, a line each.")] = False,
) -> None:
    """Explain a field of the run file: its type, its default, what is allowed and what it is for."""
    from perseid.api.reference import UnknownFieldError, parse_path
    from perseid.cli.explaining import print_field

    try:
        path = parse_path(field)
    except UnknownFieldError as error:
        fail(exits.MISTAKE, str(error))
    print_field(open_console(), path, recursive=recursive)


@commands.command()
def calibrate(
    file: RunFile,
    problems: Annotated[int, typer.Option(min=1, help="Train problems to try, evenly chosen.")] = 20,
    runs_dir: Annotated[Path, typer.Option(help="Directory that holds the runs' directories.")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost at most, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, and nothing else.")] = False,
) -> None:
    """Measure, before a run is paid for, whether its search's scores tell right from wrong, on some of its problems."""
    accepted = absolute_paths(load(file), file.resolve().parent)
    from perseid.cli import calibrating
    from perseid.cli.measured import print_measured, read_measured
    from perseid.cli.preflight import check

    or_exit(lambda: check(accepted, keys=not dry_run))
    chosen = or_exit(lambda: calibrating.sample_problems(accepted, problems))
    attempt = or_exit(lambda: calibrating.prepare(accepted, chosen, runs_dir))
    most = calibrating.most_tokens(attempt, len(chosen))
    say(f"{len(chosen)} problems; the model makes {most:,} tokens at most, kept in {attempt.storage}")
    if dry_run:
        return
    end_on_sigterm()
    try:
        or_exit(lambda: calibrating.carry_out(attempt, chosen, Console(stderr=True)))
    except KeyboardInterrupt:
        fail(exits.INTERRUPTED, f"stopped; what is done is in {attempt.storage}. The same command goes on from there.")
    measured = or_exit(lambda: read_measured(attempt))
    if as_json:
        print(json.dumps(measured.to_dict(), indent=2))  # noqa: T201  # the command's answer
    else:
        print_measured(open_console(), measured)


def recorded(directory: RunDirectory) -> tuple[EvolutionRun, EvolutionRunStatus]:
    """The run and all that is known of it. Raises RunnerError."""
    run, status = directory.recorded()
    return run, directory.whole_status(status)
