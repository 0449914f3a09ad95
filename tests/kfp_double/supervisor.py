"""Runs a command and writes down how it ended, whoever started it and whether that one still lives.

supervisor.py DIRECTORY COMMAND...: DIRECTORY/exit.json gets the exit code, atomically.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from perseid.processes import die_with_starter


def main(directory: Path, command: list[str]) -> None:
    die_with_starter()
    code = subprocess.run(command, check=False).returncode
    scratch = directory / ".exit.json"
    scratch.write_text(json.dumps({"code": code}))
    scratch.rename(directory / "exit.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
