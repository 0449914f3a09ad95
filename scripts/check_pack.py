"""Check the problem pack and print its sizes. Exit code 1, with every violation named, when it breaks a rule."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

from perseid.data.humaneval import load_prose
from perseid.data.pack_check import SPLITS, Pack, PackError, check_pack, read_pack


def print_sizes(pack: Pack) -> None:
    """Print a table: a row for each level, a column for each split."""
    sizes = Counter((split, problem.level) for split, problem in pack.located())
    print(f"{'level':<12}" + "".join(f"{split:>8}" for split in (*SPLITS, "all")))
    for level in ("one-line", "easy", "medium"):
        row = [sizes[split, level] for split in SPLITS]
        print(f"{level:<12}" + "".join(f"{size:>8}" for size in (*row, sum(row))))
    row = [len(pack.splits[split]) for split in SPLITS]
    print(f"{'all':<12}" + "".join(f"{size:>8}" for size in (*row, sum(row))))
    row = [len({problem.family for problem in pack.splits[split]}) for split in SPLITS]
    print(f"{'families':<12}" + "".join(f"{size:>8}" for size in (*row, sum(row))))
    print(f"wrong solutions: {len(pack.wrong)}")


def main() -> int:
    """Run all checks; 0 when none is violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, help="directory of the pack; default: the one inside perseid")
    parser.add_argument("--mbpp", type=Path, help="mbpp.jsonl, to look for near-duplicates of MBPP as well")
    arguments = parser.parse_args()
    benchmarks = load_prose()
    if arguments.mbpp is not None:
        for line in arguments.mbpp.read_text(encoding="utf-8").splitlines():
            task = json.loads(line)
            benchmarks[f"MBPP/{task['task_id']}"] = task["text"]
    try:
        pack = read_pack(arguments.pack or files("perseid.data.pack"))
    except PackError as error:
        print(error, file=sys.stderr)
        return 1
    violations = check_pack(pack, benchmarks)
    print_sizes(pack)
    for violation in violations:
        print(f"VIOLATION {violation}", file=sys.stderr)
    print(f"{len(violations)} violations" if violations else "no violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
