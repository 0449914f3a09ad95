"""Does a run make the embedded model better at problems that it never saw, and what of it does the search?

Carries out examples/evolve-cpu.yaml with several seeds, and beside it one generation of each baseline from the same
base model, with the same train problems, gate, training and evaluation, and about as many tokens for its data: chains
of thought, Tree of Thoughts, and Monte Carlo tree search by each evaluator, with and without reflection, with plans in
the training data and without. The example itself samples without a plan: its first generation is that baseline.

What each run came to is kept in benchmarks/results/efficacy.jsonl, so that hours of work can be done in several
sittings and on several machines: what is in there is not run again, unless its settings have changed since. `--table`
prints the tables of what is there; `--arms`, `--seeds` and `--hours` say how much to do; `--directory DIR` keeps the
runs, and goes on with what it finds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from efficacy_outcomes import FILE, Outcome, read_outcome, read_outcomes
from efficacy_tables import tables
from perseid.api.layout import EVALUATIONS

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLE = REPOSITORY / "examples" / "evolve-cpu.yaml"
EVOLVE = "evolve"
ONE_GENERATION = {
    "generations": {"max": 1},
    "problems": {"test": [{"source": "pack", "split": "test", "levels": ["one-line"]}]},
}


def _searched(plans: int, samples: int, **search: Any) -> dict[str, Any]:
    settings = {"synthesis": {"search": search, "plansPerProblem": plans}, "conversion": {"samplesPerPlan": samples}}
    return ONE_GENERATION | settings


# About as many tokens for the data as the 16 answers without a plan take; what an executing evaluator has executed goes
# through the gate, too, which costs nothing more: hence its many plans.
ARMS: Mapping[str, dict[str, Any]] = {
    EVOLVE: {},
    "chain of thought": _searched(5, 1, algorithm="cot"),
    "tree of thoughts": _searched(64, 2, algorithm="tot", branch=2, keep=1, maxDepth=4),
    "mcts, blend": _searched(64, 2, algorithm="mcts", branch=2, rounds=4),
    "mcts, execution": _searched(64, 2, algorithm="mcts", branch=2, rounds=4, evaluator={"type": "execution"}),
    "mcts, likelihood": _searched(3, 3, algorithm="mcts", evaluator={"type": "likelihood"}),
    "mcts, spoken score": _searched(3, 3, algorithm="mcts", evaluator={"type": "ladder"}),
    "mcts, blend, reflection": _searched(64, 2, algorithm="mcts", branch=2, rounds=3, reflection="before-expansion"),
    "mcts, blend, plans learned": _searched(64, 2, algorithm="mcts", branch=2, rounds=4),
}
ARMS["mcts, blend, plans learned"]["conversion"]["thinking"] = True


def main() -> int:
    """Do what is not done yet, and print what is known; the exit code says whether all runs ran."""
    options = _options()
    failed: list[str] = []
    if not options.table:
        deadline = time.monotonic() + options.hours * 3600
        with tempfile.TemporaryDirectory(prefix="perseid-efficacy-") as scratch:
            directory = (options.directory or Path(scratch)).resolve()
            directory.mkdir(parents=True, exist_ok=True)
            wanted = [(arm, seed) for seed in range(options.seeds) for arm in options.arms]
            failed = _carry_out(wanted, directory, deadline)
    print(tables(_current(read_outcomes()), EVOLVE))
    for one in failed:
        print(one, file=sys.stderr)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--hours", type=float, default=24.0, help="no run is begun after that many")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--table", action="store_true")
    return parser.parse_args()


def _carry_out(wanted: Sequence[tuple[str, int]], directory: Path, deadline: float) -> list[str]:
    """What failed: one bad run does not cost a night."""
    FILE.parent.mkdir(exist_ok=True)  # now, and not after an hour's work
    done = {(one.arm, one.seed) for one in _current(read_outcomes())}
    failed = []
    for arm, seed in wanted:
        if (arm, seed) in done:
            continue
        if time.monotonic() > deadline:
            print("no time is left for more runs", file=sys.stderr)
            break
        print(f"{time.strftime('%T')} {arm}, seed {seed}", file=sys.stderr)
        outcome = _run(arm, seed, directory)
        if outcome is None:
            failed.append(f"{arm}, seed {seed}: perseid run did not end well; see {directory / _name(arm, seed)}")
            continue
        with FILE.open("a") as file:
            file.write(outcome.model_dump_json() + "\n")
    return failed


def _run(arm: str, seed: int, directory: Path) -> Outcome | None:
    run = yaml.safe_load(EXAMPLE.read_text())
    run["metadata"]["name"] = name = _name(arm, seed)
    run["spec"] = _spec(arm) | {"seed": seed}
    file = directory / f"{name}.yaml"
    file.write_text(yaml.safe_dump(run, sort_keys=False))
    _share_base_scores(directory, seed, directory / name)
    command = [sys.executable, "-m", "perseid.cli", "run", str(file), "--runs-dir", str(directory), "--quiet"]
    if subprocess.run(command, check=False).returncode != 0:
        return None
    return read_outcome(directory / name, arm, seed, _digest(arm), _commit())


def _name(arm: str, seed: int) -> str:
    return f"{arm.replace(',', '').replace(' ', '-')}-{seed}"


def _spec(arm: str) -> dict[str, Any]:
    return _merged(yaml.safe_load(EXAMPLE.read_text())["spec"], ARMS[arm])


def _digest(arm: str) -> str:
    """Of the arm's settings: what was run with others is another arm."""
    return hashlib.sha256(json.dumps(_spec(arm), sort_keys=True).encode()).hexdigest()[:16]


def _current(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those with the settings of today; of the others it is said that they are left out."""
    current = [one for one in outcomes if one.arm in ARMS and one.settings == _digest(one.arm)]
    if stale := len(outcomes) - len(current):
        print(f"{stale} results with other settings are left out", file=sys.stderr)
    return current


def _commit() -> str | None:
    """With "-dirty" where something but the results differs from it."""
    git = ["git", "-C", str(REPOSITORY)]
    said = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if said.returncode != 0:
        return None
    apart = [*git, "diff", "--quiet", "HEAD", "--", ".", f":!{FILE.parent.relative_to(REPOSITORY)}"]
    changed = subprocess.run(apart, check=False).returncode != 0
    return said.stdout.strip() + ("-dirty" if changed else "")


def _share_base_scores(directory: Path, seed: int, run: Path) -> None:
    """Scores are kept by what they depend on: those of the base model, which another run of the seed has, are taken."""
    for other in directory.glob(f"*-{seed}/{EVALUATIONS}/*"):
        place = run / EVALUATIONS / other.name
        if not place.exists():
            half = place.with_name(f"{place.name}.half")  # of a copy that was killed
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(other, half)
            half.rename(place)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others put over them. A search is replaced as a whole."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "search"
        merged[key] = _merged(merged[key], value) if both else value
    return merged


if __name__ == "__main__":
    sys.exit(main())
