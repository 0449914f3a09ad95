"""Runs generated Python where it can do no harm, and says what came of it.

`Sandbox` keeps a pool of fork servers: slim interpreters without site-packages. An execution is one fork of a server,
which confines itself before it runs a line of generated code. What guarantees what:

- The system call filter (seccomp, an allow-list), always; without it nothing is run: no sockets, no new processes or
  programs, no signals to others, no ptrace, mounts, keys or other users' ids. Threads are allowed.
- Resource limits, always: CPU time, address space, files of 16 MiB, 64 descriptors, no core dump, 64 threads (counted
  over all the user's processes where there are neither namespaces nor a user of its own).
- The server's watch, always: wall clock, 1 MiB of output, the end of the process when the server or its owner ends.
- Namespaces, where the kernel and the container allow them (to root, or with a user namespace): a read-only root
  directory with nothing in it but Python and system libraries, a directory of its own in memory with 16 MiB, no network
  device, no sight of other processes, and none survives.
- Landlock (Linux 5.13 and later), beside namespaces or instead: reads Python and system libraries, writes its own
  directory alone. Without namespaces that directory is on disk, and limited for each file but not in their number.
- With neither of these two nothing can be opened for writing, its own directory included; but it *can read* what its
  user may read, the environments of that user's processes included.
- A user of its own, where the caller is root: files of others are out of reach by permissions too. Where other users
  cannot read Python and namespaces are denied, code stays root, without capabilities and under Landlock; without
  Landlock nothing is run.

Generated code gets an empty environment, an empty working directory, /dev/null as stdin, hash and random seeds of 0.
What it prints is counted and thrown away; of its exceptions some hundred characters come back.

Not guaranteed: a verdict against code that searches its own process's memory for the harness (see `inside.harness`), or
whose results compare equal to everything; and no layer here is proof against a hole in the kernel. Where that matters,
run the whole stage in a virtual machine or gVisor. Linux 5.8 or later on x86_64 or aarch64.
"""

from perseid.sandbox.errors import SandboxError, SandboxUnavailableError
from perseid.sandbox.pool import OptionalLayer, Sandbox
from perseid.sandbox.results import Execution, Outcome, Verdict
from perseid.sandbox.verdicts import program_for, run_tests

__all__ = [
    "Execution",
    "OptionalLayer",
    "Outcome",
    "Sandbox",
    "SandboxError",
    "SandboxUnavailableError",
    "Verdict",
    "program_for",
    "run_tests",
]
