"""One execution: fork, confine, run, watch, kill, and judge what came back."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time
from pathlib import Path
from typing import TypedDict

from . import harness, namespaces
from .confine import Confinement

_OUTPUT_BYTES = 2**20
_REPORT_BYTES = 1024
_CONFINEMENT_FAILED = 86


class Reply(TypedDict):
    """What the server answers. `error` is set where the sandbox itself failed; then the rest says nothing."""

    outcome: str
    detail: str
    wall_seconds: float
    cpu_seconds: float
    checks_passed: list[bool]
    error: str


class Executor:
    """Runs one program after the other, each in a process of its own."""

    def __init__(self, confinement: Confinement, wall_seconds: float, lifeline: int) -> None:
        self._confinement = confinement
        self._wall_seconds = wall_seconds
        self._lifeline = lifeline
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._own_pids = os.pidfd_open(os.getpid()) if confinement.namespaces else -1

    def run(self, body: str, checks: list[str]) -> Reply:
        """Run a program; `checks` are run after it, each by itself. Raises EOFError when the pool has gone."""
        self._open_box()
        try:
            return self._fork(body, checks)
        finally:
            self._close_box()

    def _open_box(self) -> None:
        if self._confinement.namespaces:
            namespaces.fresh_box(self._confinement.uid)
            namespaces.fresh_process_ids(self._own_pids)
            return
        box = Path(self._confinement.box)
        box.mkdir(mode=0o700)
        if self._confinement.change_user:
            os.chown(box, self._confinement.uid, self._confinement.uid)

    def _close_box(self) -> None:
        if self._confinement.namespaces:
            namespaces.drop_box()
        else:
            shutil.rmtree(self._confinement.box)

    def _fork(self, body: str, checks: list[str]) -> Reply:
        verdict_in, verdict_out = os.pipe()
        output_in, output_out = os.pipe()
        started = time.monotonic()
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self._confinement.apply(server, self._null, output_out, verdict_out)
            except BaseException as error:  # noqa: BLE001 - nothing may return into the server's loop
                os.write(2, f"{error!r}".encode()[:_REPORT_BYTES])
                os._exit(_CONFINEMENT_FAILED)
            harness.run(body, checks)
        os.close(verdict_out)
        os.close(output_out)
        watch = _Watch(pid, verdict_in, output_in, self._lifeline, 2**16 + _REPORT_BYTES * len(checks))
        try:
            watch.until(started + self._wall_seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            watch.drain()
            os.close(verdict_in)
            os.close(output_in)
        wall, cpu = time.monotonic() - started, usage.ru_utime + usage.ru_stime
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _CONFINEMENT_FAILED and not watch.reports:
            return _reply("", "", wall, cpu, [], bytes(watch.output).decode(errors="replace") or "cannot confine")
        return self._judge(watch, status, wall, cpu, len(checks))

    def _judge(self, watch: _Watch, status: int, wall: float, cpu: float, checks: int) -> Reply:
        body, results, ended = _read_reports(bytes(watch.reports))
        passed = [verdict == "passed" for verdict, _ in results]
        passed = (passed + [False] * checks)[:checks]
        outcome, detail = "", ""
        if watch.stopped:
            outcome, detail = watch.stopped
            detail = detail or f"wall-clock limit of {self._wall_seconds:g} s"
        elif os.WIFSIGNALED(status) and not ended:
            outcome, detail = self._signal(os.WTERMSIG(status), cpu)
        elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == harness.OUT_OF_MEMORY and not ended:
            outcome, detail = "memory", "MemoryError"
        elif body[0] != "passed":
            outcome, detail = body
        elif failed := [result for result in results if result[0] != "passed"]:
            outcome, detail = failed[0]
        elif not ended or len(results) != checks:
            outcome, detail = "exited", f"exit status {os.waitstatus_to_exitcode(status)} before the tests were done"
        else:
            outcome = "passed"
        return _reply(outcome, detail, wall, cpu, passed, "")

    def _signal(self, number: int, cpu: float) -> tuple[str, str]:
        # The kernel counts CPU time for the limit by ticks of its clock, for `cpu` exactly: on a busy machine they
        # differ by more than a tenth.
        if number == signal.SIGXCPU or (number == signal.SIGKILL and cpu >= 0.9 * self._confinement.cpu_seconds):
            return "timeout", f"CPU limit of {self._confinement.cpu_seconds} s"
        if number == signal.SIGKILL:
            return "memory", "killed by the kernel, which was out of memory"
        if number == signal.SIGSYS:
            return "denied", "a system call of another architecture"
        return "crashed", signal.Signals(number).name


class _Watch:
    """Collects what an execution writes until it ends, is too late or writes too much."""

    def __init__(self, pid: int, verdict: int, output: int, lifeline: int, most_reports: int) -> None:
        self.reports = bytearray()
        self.output = bytearray()
        self.stopped: tuple[str, str] | None = None
        self._written = 0
        self._most_reports = most_reports
        self._verdict, self._output, self._lifeline = verdict, output, lifeline
        self._process = os.pidfd_open(pid)
        self._poller = select.poll()
        for descriptor in (verdict, output, self._process):
            self._poller.register(descriptor, select.POLLIN)
            os.set_blocking(descriptor, False)
        self._poller.register(lifeline, 0)  # a request may wait there; only its end matters

    def until(self, deadline: float) -> None:
        """Watch. Raises EOFError when the pool has gone."""
        try:
            while self.stopped is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    self.stopped = ("timeout", "")
                    return
                for descriptor, event in self._poller.poll(left * 1000 + 1):
                    if descriptor == self._lifeline and event:
                        raise EOFError
                    if descriptor == self._process:
                        return
                    if not self._read(descriptor):
                        self._poller.unregister(descriptor)
        finally:
            os.close(self._process)

    def drain(self) -> None:
        """Read what is left after the end."""
        for descriptor in (self._verdict, self._output):
            while self.stopped is None and self._read(descriptor):
                pass

    def _read(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, 2**16)
        except BlockingIOError:
            return False
        if descriptor == self._verdict:
            self.reports += data
            if len(self.reports) > self._most_reports:
                self.stopped = ("output", "flooded the verdict channel")
        else:
            self._written += len(data)
            self.output += data[: max(0, _REPORT_BYTES - len(self.output))]
            if self._written > _OUTPUT_BYTES:
                self.stopped = ("output", f"printed more than {_OUTPUT_BYTES} bytes")
        return bool(data)


def _read_reports(data: bytes) -> tuple[tuple[str, str], list[tuple[str, str]], bool]:
    """The body's verdict, those of the checks, and whether the end was reported.

    The first line tells the token; it is written before generated code runs. One line without it voids the rest.
    """
    nothing = ("exited", "ended before the tests were done")
    first, _, rest = data.partition(b"\n")
    token, _, greeting = first.partition(b" ")
    if greeting != b"hello" or len(token) != 32:
        return nothing, [], False
    body, results, ended = nothing, [], False
    for line in rest.splitlines():
        said, _, words = line.partition(b" ")
        if said != token or ended:
            return ("denied", "wrote to the verdict channel"), [], False
        about, _, verdict = words.partition(b" ")
        outcome, _, detail = verdict.decode("ascii", "replace").partition(" ")
        if about == b"body":
            body = (outcome, detail)
        elif about == b"check":
            results.append((outcome, detail))
        else:
            ended = about == b"end"
    return body, results, ended


def _reply(outcome: str, detail: str, wall: float, cpu: float, checks: list[bool], error: str) -> Reply:
    return {
        "outcome": outcome,
        "detail": detail,
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "checks_passed": checks,
        "error": error,
    }
