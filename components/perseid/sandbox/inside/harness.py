"""Runs an answer and its checks in the confined process, and reports in a way that the answer cannot easily imitate.

Each report is a line that begins with a token. The process draws it and tells the server before generated code runs;
after that it lives only in C callables on the interpreter's stack, in no frame's variables, no module and no object
that `gc` lists. An exit, a print, a patched builtin or a closed descriptor leaves the reports incomplete, and
incomplete is not passed. Code written to search this process's memory could still find the token: that is the limit of
every harness that runs tests in the process of the answer.
"""

from __future__ import annotations

import errno
import gc
import os
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import NoReturn

from .confine import VERDICT_DESCRIPTOR

OUT_OF_MEMORY = 87
"""Exit status when memory ran out while reporting."""
_DETAIL_CHARACTERS = 300
_DENIED = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})


def run(body: str, checks: list[str]) -> NoReturn:
    """Run and report; ends the process. The caller has confined it."""
    leave, out_of_memory = os._exit, MemoryError
    try:
        random.seed(0)  # so that a verdict repeats, as far as the code lets it
        for name in [name for name in sys.modules if name.partition(".")[0] == __name__.partition(".")[0]]:
            del sys.modules[name]
        lines = _reports(body, checks)
        deque(map(partial(os.write, VERDICT_DESCRIPTOR), map(os.urandom(16).hex().encode().__add__, lines)), maxlen=0)
        leave(0)
    except out_of_memory:
        leave(OUT_OF_MEMORY)
    finally:
        leave(1)


def _reports(body: str, checks: list[str]) -> Iterator[bytes]:
    # Whatever generated code may replace is taken hold of before it runs.
    run_code, everything, describe = exec, BaseException, _describe
    module = types.ModuleType("answer")
    sys.modules["answer"] = module
    namespace = module.__dict__
    gc.freeze()  # by now the callables that hold the token exist; frozen objects are in none of gc's lists
    yield b" hello\n"
    try:
        compiled = compile(body, "<answer>", "exec", dont_inherit=True)
        tests = [(compile(check, f"<test {number}>", "exec", dont_inherit=True)) for number, check in enumerate(checks)]
    except everything as error:
        yield b" body " + describe(error) + b"\n"
        return
    try:
        run_code(compiled, namespace)
    except everything as error:
        yield b" body " + describe(error) + b"\n"
        return
    yield b" body passed\n"
    for test in tests:
        try:
            run_code(test, namespace)
        except everything as error:
            yield b" check " + describe(error) + b"\n"
        else:
            yield b" check passed\n"
    yield b" end\n"


def _describe(
    error: BaseException,
    *,
    is_a: Callable[[object, type], bool] = isinstance,
    kinds: tuple[type, type, type] = (MemoryError, OSError, SystemExit),
    everything: type[BaseException] = BaseException,
    kind: type = type,
    text: Callable[[object], str] = str,
    quoted: Callable[[object], str] = ascii,
) -> bytes:
    """Outcome and one line of ASCII. Built-ins are bound beforehand: generated code can have replaced them by now."""
    out_of_memory, of_system, exits = kinds
    if is_a(error, out_of_memory):
        return b"memory MemoryError"
    outcome = b"failed "
    if is_a(error, exits):
        outcome = b"exited "
    elif is_a(error, of_system) and getattr(error, "errno", None) in _DENIED:
        outcome = b"denied "
    try:
        message = text(error)
    except everything:
        message = "(its message cannot be read)"
    last_line = f"{kind(error).__name__}: {message}" if message else kind(error).__name__
    return outcome + quoted(last_line[:_DETAIL_CHARACTERS])[1:-1][: 2 * _DETAIL_CHARACTERS].encode()
