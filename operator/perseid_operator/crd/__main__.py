"""`python -m perseid_operator.crd`: print the CustomResourceDefinition, or check that a file holds it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from perseid_operator.crd.definition import custom_resource_definition
from perseid_operator.crd.errors import CrdError
from perseid_operator.crd.text import COMMAND, crd_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit status: 0, 1 where the file is stale or the models have no CRD, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Print the CustomResourceDefinition of EvolutionRun.")
    parser.add_argument("--check", metavar="FILE", type=Path, help="print nothing; fail where FILE does not hold it")
    options = parser.parse_args(arguments)
    try:
        text = crd_text(custom_resource_definition())
    except CrdError as error:
        sys.stderr.write(f"No CustomResourceDefinition can be made of the models:\n{error}\n")
        return 1
    if options.check is None:
        sys.stdout.write(text)
        return 0
    file: Path = options.check
    if not file.is_file():
        sys.stderr.write(f"{file} does not exist. Write it with\n  {COMMAND} > {file}\n")
        return 1
    if file.read_text(encoding="utf-8") != text:
        sys.stderr.write(f"{file} is stale: the models in perseid.api have changed. Write it anew with\n")
        sys.stderr.write(f"  {COMMAND} > {file}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
