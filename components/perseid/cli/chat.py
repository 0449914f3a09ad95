"""Talking to a run's model, in a terminal or from a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import resource_tracker

import typer
from rich.console import Console

from perseid.api.spec import EvolutionRun
from perseid.cli import exits
from perseid.cli.terminal import fail, printable, say
from perseid.engines.protocol import (
    Engine,
    EngineError,
    Message,
    PromptTooLongError,
    Request,
    Sampling,
    StreamingEngine,
)
from perseid.report.models import ChosenModel

HELP = "/reset begins anew, /exit or Ctrl-D leaves, Ctrl-C stops an answer."
_OVER = b"\0"


def chat_with(run: EvolutionRun, model: ChosenModel, *, max_tokens: int, temperature: float | None) -> None:
    """Talk until the user leaves. The engine is the run's own; nothing is written anywhere."""
    spec = run.spec.evaluation.sampling
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=spec.temperature if temperature is None else temperature,
        top_p=spec.top_p,
        seed=run.spec.seed,
    )
    with asyncio.Runner() as runner:
        try:
            with _interrupts_held(), _leaving_on_interrupt():
                engine = runner.run(_open(run, model))
        except EngineError as error:
            fail(exits.MISTAKE, str(error))
        say(f"{model.words} of {run.metadata.name}, {model.ref}. {HELP}")
        try:
            _Chat(engine, sampling, runner).talk()
        finally:
            with _interrupts_held():
                runner.run(engine.close())


async def _open(run: EvolutionRun, model: ChosenModel) -> Engine:
    from perseid.engines.factory import open_engine
    from perseid.engines.models import resolve_model

    spec = run.spec
    found = await asyncio.to_thread(
        resolve_model, model.ref, model.revision, trust_remote_code=spec.model.trust_remote_code
    )
    await asyncio.to_thread(found.fetch_weights)
    return await open_engine(
        found.path, found.model_id, spec.engine, spec.model.dtype, trust_remote_code=spec.model.trust_remote_code
    )


class _Chat:
    def __init__(self, engine: Engine, sampling: Sampling, runner: asyncio.Runner) -> None:
        self._engine = engine
        self._sampling = sampling
        self._runner = runner
        self._history: list[Message] = []

    def talk(self) -> None:
        for line in _lines():
            if line == "/exit":
                return
            if line == "/reset":
                self._history.clear()
                say("The conversation is forgotten.")
            elif line.startswith("/"):
                say(f"There is no command {line}. {HELP}")
            elif line:
                self._answer(line)

    def _answer(self, line: str) -> None:
        before = list(self._history)
        self._history.append(Message("user", line))
        # Turn by turn another seed, so that the same question may get another answer, and the same talk the same ones.
        turn = sum(message.role == "user" for message in self._history)
        request = Request(
            tuple(self._history),
            replace(self._sampling, seed=self._sampling.seed + turn),
            kind="chat",
        )
        shown = _Shown()
        try:
            text, cut = self._runner.run(self._ask(request, shown))
        except KeyboardInterrupt:
            # What was read stays said: the user may go on from it.
            shown.end()
            say("stopped")
            text, cut = shown.text, False
        except PromptTooLongError as error:
            self._history = before
            say(f"{error}. /reset begins a new conversation.")
            return
        except EngineError as error:
            self._history = before
            fail(exits.MISTAKE, str(error))
        if text:
            self._history.append(Message("assistant", text))
        else:
            self._history = before
        if cut:
            say(f"The answer was cut off at {self._sampling.max_tokens} tokens; --max-tokens allows more.")

    async def _ask(self, request: Request, shown: _Shown) -> tuple[str, bool]:
        if isinstance(self._engine, StreamingEngine):
            generation = await self._engine.stream(request, shown.update)
        else:
            generation = await self._engine.generate(request)
        answer = generation.completions[0]
        shown.end(answer.text)
        return answer.text, answer.finish_reason == "length"


class _Shown:
    """An answer on the standard output, as far as it has come."""

    def __init__(self) -> None:
        self.text = ""

    def update(self, text: str) -> None:
        # What a tokenizer has decoded to half a character changes with the next token: it waits.
        self._show(text.rstrip("\N{REPLACEMENT CHARACTER}"))

    def end(self, text: str | None = None) -> None:
        """No more comes; `text` is the whole answer, where it came to its end."""
        if text is not None:
            self._show(text)
            self.text = text
        typer.echo()

    def _show(self, text: str) -> None:
        if len(text) > len(self.text):
            typer.echo(printable(text[len(self.text) :]), nl=False)
            sys.stdout.flush()
            self.text = text


def _lines() -> Iterator[str]:
    """What the user says, line by line. Ctrl-C at the prompt clears the line."""
    prompt = ""
    if sys.stdin.isatty():
        import readline  # noqa: F401  # gives input() its editing and history

        prompt = "> "
    while True:
        try:
            yield input(prompt).strip()
        except EOFError:
            if prompt:
                Console(stderr=True).print()
            return
        except KeyboardInterrupt:
            if not prompt:
                raise typer.Exit(exits.INTERRUPTED) from None
            Console(stderr=True).print()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the block is over; processes that are started in it never see one, and outlive a stopped
    answer: a terminal sends it to all of them, and vLLM's engine would end.
    """
    # Whoever starts Python's resource tracker finds SIGINT unblocked after it: it is started before.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextlib.contextmanager
def _leaving_on_interrupt() -> Iterator[None]:
    """Within `_interrupts_held`: Ctrl-C ends the command at once.

    Weights are fetched and loaded in threads that nothing can stop and that Python would wait for, and nothing has been
    said yet that could be lost.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        # Some thread must be open for the signal. Whichever it reaches (numpy's are), a byte comes through the pipe.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while (byte := os.read(reading, 1)) != _OVER:
            if byte[0] == signal.SIGINT:
                say("stopped; weights that were being fetched go on from there the next time")
                for child in multiprocessing.active_children():
                    child.kill()
                os._exit(exits.INTERRUPTED)

    before = signal.signal(signal.SIGINT, lambda *_: None), signal.set_wakeup_fd(writing)
    watcher = threading.Thread(target=watch, name="leave-on-interrupt", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before[1])
        signal.signal(signal.SIGINT, before[0])
        os.write(writing, _OVER)
        watcher.join()
        os.close(reading)
        os.close(writing)
