"""The `perseid` command.

`app` holds the commands, `view` shows a run while it goes on, `tables` what came out of it, `preflight` finds mistakes
before anything is started.
"""

from perseid.cli.app import main

__all__ = ["main"]
