"""The commands. Each says what it does and with what; the work is done in the modules beside this one.

Nothing of `perseid.cli` nor of Kubernetes' client is imported here at the top: `perseid.cli` loads this module as a
plugin, and `perseid validate` must not wait a second for a client that it does not use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer
from rich.console import Console

from perseid.api.base import APPROVED_GENERATION, KIND
from perseid.api.stages import StageName
from perseid_operator.cli.errors import ClusterError

if TYPE_CHECKING:
    from perseid_operator.cli.access import Access
    from perseid_operator.cli.runs import SeenRun

PIPE_WIDTH = 240
"""Columns where the output is no terminal: tables are to be read by line there, and not folded."""
T = TypeVar("T")

Name = Annotated[str, typer.Argument(metavar="NAME", help=f"The {KIND}.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Default: that of the kubeconfig's context, else `default`.")
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig. Default: its current one.")]
Kubeconfig = Annotated[
    Path | None, typer.Option(help="Default: the variable KUBECONFIG, else ~/.kube/config, else the pod's own account.")
]
Storage = Annotated[
    str | None, typer.Option(help="Where the run's files are, if not where its spec says: a directory or s3://...")
]

commands = typer.Typer(no_args_is_help=True)


def _complete_directory(incomplete: str) -> list[str]:
    """Runs on this machine; a name in a cluster is not looked up while somebody types."""
    from perseid.cli.completion import complete_run

    return complete_run(incomplete)


@commands.command()
def get(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help=f"One {KIND}. Default: all of them.")] = None,
    namespace: Namespace = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Look in all namespaces.")] = False,
    output: Annotated[Literal["table", "json"], typer.Option("--output", "-o", help="How to print.")] = "table",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on and show what changes.")] = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show runs in a cluster: how far they are, what they are worth, and where to look at them."""
    if name is not None and all_namespaces:
        _exit("a name and --all-namespaces do not go together; name the namespace with --namespace")

    async def work(access: Access) -> None:
        from perseid_operator.cli.listing import Listing

        where = None if all_namespaces else namespace or access.target.namespace
        listing = Listing(access, where, name, _console(), output)
        await (listing.watch() if watch else listing.show())

    _with_access(kubeconfig, context, work)


@commands.command()
def describe(name: Name, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Show all that is known about a run: generations, scores, conditions, what it does now, and what to do next."""

    async def work(access: Access) -> None:
        from perseid_operator.cli.tables import print_run

        print_run(_console(), await _seen(access, namespace, name), datetime.now(UTC))

    _with_access(kubeconfig, context, work)


@commands.command()
def logs(
    name: Name,
    namespace: Namespace = None,
    stage: Annotated[StageName | None, typer.Option(help="One stage. Default: all of them, in their order.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt ends.")] = False,
    generation: Annotated[int | None, typer.Option(min=0, help="Counted from 0. Default: the newest.")] = None,
    attempt: Annotated[int | None, typer.Option(min=0, help="Counted from 0. Default: the newest.")] = None,
    tail: Annotated[int | None, typer.Option(min=1, help="So many lines of each pod. Default: all.")] = None,
    pods_in: Annotated[
        str | None, typer.Option(help="Namespace of Kubeflow's pods. Default: the run's own, `kubeflow`, then all.")
    ] = None,
    storage: Storage = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print what a run's stages write. Only that goes to the standard output; everything else to the error output."""

    async def work(access: Access) -> None:
        from perseid_operator.cli.logs import Shown, Wanted, show_logs

        wanted = Wanted(stage, generation, attempt, follow, tail, pods_in, storage)
        await show_logs(access, await _seen(access, namespace, name), wanted, Shown(typer.echo, _say))

    _with_access(kubeconfig, context, work)


@commands.command()
def suspend(
    name: Name,
    namespace: Namespace = None,
    terminate: Annotated[
        bool | None,
        typer.Option(
            "--terminate/--drain", help="Stop the generation under way, or let it finish. Default: the spec's."
        ),
    ] = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Hold a run: nothing more is submitted until it is resumed."""

    async def work(access: Access) -> None:
        seen = await _seen(access, namespace, name)
        _refuse_if_over(seen, "suspended")
        policy = seen.suspend_policy if terminate is None else "terminate" if terminate else "drain"
        if seen.suspend and seen.suspend_policy == policy:
            _say(f"{name} is suspended already (suspendPolicy {policy})")
            return
        await _patch(access, seen, {"spec": {"suspend": True, "suspendPolicy": policy}})
        follows = {
            "drain": "The generation that is under way, if one is, may finish; nothing more is submitted.",
            "terminate": "The generation that is under way, if one is, is stopped, and tried again after the pause; its"
            " finished stages are kept.",
        }
        _say(f"{name} is being suspended. {follows[policy]} `perseid resume {name}` lets it go on.")

    _with_access(kubeconfig, context, work)


@commands.command()
def resume(name: Name, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Let a suspended run go on."""

    async def work(access: Access) -> None:
        seen = await _seen(access, namespace, name)
        _refuse_if_over(seen, "resumed")
        if not seen.suspend:
            _say(f"{name} is not suspended")
            return
        await _patch(access, seen, {"spec": {"suspend": False}})
        _say(f"{name} goes on as soon as the operator has seen it.")

    _with_access(kubeconfig, context, work)


@commands.command()
def approve(
    name: Name,
    namespace: Namespace = None,
    generation: Annotated[
        int | None, typer.Option(min=0, help="Counted from 0. Default: the one that waits. Earlier ones are included.")
    ] = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let the next generation start, where spec.generations.approval is manual."""

    async def work(access: Access) -> None:
        from perseid_operator.cli.approval import generation_to_approve

        seen = await _seen(access, namespace, name)
        approved = generation_to_approve(seen.run(), seen.known_status(), generation)
        await _patch(access, seen, {"metadata": {"annotations": {APPROVED_GENERATION: str(approved)}}})
        _say(f"generation {approved} of {name} is approved")

    _with_access(kubeconfig, context, work)


@commands.command()
def report(
    run: Annotated[
        str,
        typer.Argument(
            metavar="DIRECTORY|NAME",
            help=f"A run's directory on this machine, or the {KIND}.",
            autocompletion=_complete_directory,
        ),
    ],
    namespace: Namespace = None,
    storage: Storage = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the report as an HTML file. Default for a directory: report.html in it."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Of a run in a cluster: print the report as JSON, and nothing else.")
    ] = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what came out of a run: of one in a cluster, the page that `perseid run` prints at its end; of a directory,
    and with --output, one HTML file with scores, search trees, answers and the calibration of its evaluators.
    """
    from perseid.cli.report import is_directory

    if is_directory(run):
        if (namespace, storage, context, kubeconfig) != (None, None, None, None) or as_json:
            _exit(f"{run} is a directory: of the options, --output alone goes with it; the others are for clusters")
        _report_directory(Path(run), output)
        return
    if output is not None and as_json:
        _exit("--output writes HTML and --json prints JSON; give one of them")

    async def work(access: Access) -> None:
        from perseid_operator.cli.report import print_report, write_page

        seen = await _seen(access, namespace, run)
        if output is None:
            await print_report(_console(), access, seen, storage, as_json=as_json)
        else:
            missing = await write_page(access, seen, storage, output)
            _say(f"wrote {output}. {missing}".rstrip(". "))

    _with_access(kubeconfig, context, work)


def _report_directory(directory: Path, output: Path | None) -> None:
    from perseid.cli.report import report_directory
    from perseid.data.errors import DataError
    from perseid.runner.errors import RunnerError

    try:
        _say(f"wrote {report_directory(directory, output)}")
    except (RunnerError, DataError) as error:
        _exit(str(error))


async def _seen(access: Access, namespace: str | None, name: str) -> SeenRun:
    from perseid_operator.cli.runs import seen_run

    return seen_run(await access.run(namespace or access.target.namespace, name))


async def _patch(access: Access, seen: SeenRun, patch: dict[str, Any]) -> None:
    # With the uid, so that an object of the same name that was made in between is not changed for the one looked at.
    metadata = {"uid": seen.uid, **patch.get("metadata", {})}
    await access.patch(seen.namespace, seen.name, {**patch, "metadata": metadata})
    if seen.managed_by is not None:
        _say(f"Note: spec.managedBy is {seen.managed_by}, so it is up to that to heed this.")


def _refuse_if_over(seen: SeenRun, what: str) -> None:
    if seen.is_over:
        raise ClusterError(f"{seen.name} is {seen.phase}: it is over, and can no longer be {what}")


def _with_access(kubeconfig: Path | None, context: str | None, work: Callable[[Access], Awaitable[T]]) -> T:
    """Run a command against the cluster, with every expected failure as one paragraph."""
    from perseid.cli import exits

    try:
        from perseid_operator.cli.access import Access
    except ModuleNotFoundError as error:
        _exit(
            f"this command speaks to clusters and needs Perseid's extra `operator` (there is no {error.name} here):"
            " pip install 'perseid[operator]'"
        )

    async def session() -> T:
        async with await Access.open(kubeconfig, context) as access:
            return await work(access)

    try:
        return asyncio.run(session())
    except ClusterError as error:
        _exit(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(exits.INTERRUPTED) from None


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def _say(message: str) -> None:
    Console(stderr=True).print(message, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _exit(message: str) -> NoReturn:
    from perseid.cli import exits

    _say(message)
    raise typer.Exit(exits.MISTAKE)
