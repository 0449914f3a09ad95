"""What all commands share: the console, and mistakes as one paragraph with an exit code."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer
from rich.console import Console

from perseid.api.errors import RunFileError
from perseid.api.load import load_run
from perseid.api.spec import EvolutionRun
from perseid.cli import exits
from perseid.data.errors import DataError
from perseid.runner.errors import RunnerError

LOG_WIDTH = 140
T = TypeVar("T")
RunFile = Annotated[Path, typer.Argument(metavar="RUN.YAML", help="The file with the EvolutionRun.")]


def open_console() -> Console:
    """The standard output."""
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH  # a pipe has no width of its own, and rich would fold tables at 80
    return console


def load(file: Path) -> EvolutionRun:
    """The run in a file, or the end of the command with every mistake in it."""
    try:
        return load_run(file)
    except RunFileError as error:
        fail(exits.MISTAKE, str(error))


def or_exit(call: Callable[[], T]) -> T:
    """What the call returns, or the end of the command with what was wrong."""
    try:
        return call()
    except (RunnerError, DataError) as error:
        fail(exits.MISTAKE, str(error))


def fail(code: int, message: str) -> NoReturn:
    """End the command with a message on the error output."""
    say(message)
    raise typer.Exit(code)


def end_on_sigterm() -> None:
    """Let SIGTERM end the command as Ctrl-C does: in order, and to be gone on with."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def say(message: str) -> None:
    """One line on the error output, beside the command's answer."""
    Console(stderr=True).print(message, highlight=False, markup=False, soft_wrap=True)


def printable(text: str) -> str:
    """Text that a model or a data set has written, without what a terminal would take for a command."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)
