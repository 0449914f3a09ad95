"""`python -m perseid.cli` is the command `perseid`."""

from perseid.cli.app import main

main()
