"""Programs that a control plane is made of: started, waited for, paused, ended, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

START_SECONDS = 50.0
"""What a program gets to become ready: ten times what it needs, and three of them less than a test's time limit."""
POLL_SECONDS = 0.05
STOP_SECONDS = 20.0
"""What a program gets between SIGTERM and SIGKILL."""
SHOWN_LOG_LINES = 30


class StartFailedError(RuntimeError):
    """A program of the control plane ended or did not become ready; the end of its log is in the message."""


class Starter:
    """One thread that starts programs and lives as long as they may. They end by `close`, or with this process.

    PR_SET_PDEATHSIG means the thread that started a process, not its process. Started from a thread of a pool, an API
    server would die in the middle of the tests.
    """

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="control-plane")

    def start(
        self,
        command: list[str],
        log: Path,
        *,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own, out of reach of Ctrl-C; its output is added to `log`."""
        return self._thread.submit(self._start, command, log, directory, environment).result()

    def close(self) -> None:
        """Kill whatever was started and nobody stopped."""
        self._thread.shutdown()
        for process in self._started:
            process.kill()  # One that has only just started may not have told the kernel whom it must not outlive.
            process.wait()

    def _start(
        self, command: list[str], log: Path, directory: Path | None, environment: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes]:
        wrapper = [sys.executable, "-IS", str(Path(__file__).with_name("die_with_parent.py")), str(os.getpid())]
        with log.open("ab") as output:
            process = subprocess.Popen(
                wrapper + command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process


class Program:
    """A program with its log. `ready` says whether it can be used; `start` waits for that."""

    def __init__(self, command: list[str], log: Path, starter: Starter, ready: Callable[[], bool]) -> None:
        self.name = Path(command[0]).name
        self._command = command
        self._log = log
        self._starter = starter
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, or None where none runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises StartFailedError when it ends before, or is not ready in `START_SECONDS`; it does not run then.
        """
        self._process = self._starter.start(self._command, self._log)
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(POLL_SECONDS)
                raise StartFailedError(f"{self.name} ended with code {code} while starting; {self.end_of_log()}")
            if time.monotonic() > deadline:
                self.kill()
                raise StartFailedError(f"{self.name} was not ready in {START_SECONDS:.0f} s; {self.end_of_log()}")

    def stop(self) -> None:
        """End it as a cluster would: SIGTERM, and SIGKILL when that is ignored."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let it neither work nor answer; what it listens on still takes connections."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self.name} does not run, so it cannot be paused")
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def end_of_log(self) -> str:
        """Where its log is, and the last lines of it."""
        return end_of(self._log)


def end_of(log: Path) -> str:
    """The last lines of a log, under its path."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join([f"the end of {log}:", *lines[-SHOWN_LOG_LINES:]])


def reserve_port() -> socket.socket:
    """A free port of 127.0.0.1 that stays ours until the socket is closed, whether or not a program listens on it.

    The program must bind it with SO_REUSEPORT. Without the reservation a port is anybody's between two starts, even the
    local end of a client's attempt to connect to it.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reservation.bind(("127.0.0.1", 0))
    return reservation
