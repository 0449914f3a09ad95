"""What a fork of the server does to itself before it runs generated code: from here on there is no way back."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from . import kernel, landlock, seccomp

VERDICT_DESCRIPTOR = 3
_FILE_BYTES = 16 * 2**20
_DESCRIPTORS = 64
_THREADS = 64


@dataclass(frozen=True)
class Confinement:
    """How executions of this server are confined. Made once, for all of them."""

    box: str
    """The execution's own directory."""
    uid: int
    """User that generated code runs as."""
    change_user: bool
    namespaces: bool
    landlock_version: int
    filter: bytes
    """BPF with the process id left open."""
    readable: tuple[str, ...]
    """What Landlock lets be read."""
    cpu_seconds: int
    memory_bytes: int

    def apply(self, server: int, null: int, output: int, verdict: int) -> None:
        """Confine the calling process. The descriptors become its stdin, stdout and stderr, and number 3.

        Raises OSError where a layer cannot be had; the caller must end then. Order matters: paths are opened while they
        can be, the user changes before the parent-death signal (the change clears it), the filter comes last.
        """
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(verdict, VERDICT_DESCRIPTOR)
        os.closerange(VERDICT_DESCRIPTOR + 1, 1 << 20)
        os.setsid()
        os.chdir(self.box)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        self._limit()
        if self.landlock_version:
            landlock.restrict(self.landlock_version, self.readable, [self.box, "/dev/null"])
        if self.change_user:
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
        # In a process-id namespace the kernel sees to it that nothing outlives the server, and the parent's id is 0.
        if not self.namespaces and os.getppid() != server:
            raise OSError("the server has gone")
        kernel.install_seccomp(seccomp.for_process(self.filter, os.getpid()))

    def _limit(self) -> None:
        for limit, soft, value in (
            (resource.RLIMIT_CORE, 0, 0),
            (resource.RLIMIT_FSIZE, _FILE_BYTES, _FILE_BYTES),
            (resource.RLIMIT_NOFILE, _DESCRIPTORS, _DESCRIPTORS),
            (resource.RLIMIT_NPROC, _THREADS, _THREADS),
            # The soft limit ends a program by SIGXCPU, which nothing else sends; the hard one whoever ignores that.
            (resource.RLIMIT_CPU, self.cpu_seconds, self.cpu_seconds + 1),
            (resource.RLIMIT_AS, self.memory_bytes, self.memory_bytes),
        ):
            hard = resource.getrlimit(limit)[1]
            bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (min(soft, bounded), bounded))
