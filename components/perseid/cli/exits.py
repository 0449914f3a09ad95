"""Exit codes of `perseid`, as documented in the README."""

OK = 0
FAILED = 1
"""The run failed: its attempts are used up."""
MISTAKE = 2
"""The command line, the run file, its data or the surroundings are wrong; nothing was changed."""
SUSPENDED = 3
"""spec.suspend is true; nothing runs."""
INTERRUPTED = 130
"""Ctrl-C or SIGTERM; the same command goes on."""
