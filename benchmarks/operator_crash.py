"""SIGKILL the operator at random moments, on a real API server, and count pipeline runs.

Dozens of EvolutionRuns of three generations each are under way at any time; an operator's process lives for a random
time up to some seconds, is killed, and the next one goes on. At the end every attempt that was to be executed must have
been executed exactly once, nothing may be alive, and every generation must be there. KFP is the tests' double, which
executes a run a second time whenever its id is posted twice, as the real one does.

    python benchmarks/operator_crash.py --kills 1000
    python benchmarks/operator_crash.py --kills 100 --workflows

With --workflows the double's Workflows are real custom resources and the operator looks at them (PERSEID_WORKFLOWS=on):
then it goes by them where it finds an intent that it did not write itself. One that nobody knows any more but the
cluster is an orphan.

Every await of the shell is killed one by one in tests/operator/shell/test_exactly_once.py; this is the other half: real
processes and real time. A thousand kills take about half an hour on 2 cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "cluster")]

from cluster_binaries import find_or_build  # noqa: E402
from control_plane import ControlPlane  # noqa: E402
from operator_world import OperatorWorld, expected_runs, is_over, kill, operator_world, phase  # noqa: E402

from kfp_double.cluster_objects import ClusterObjects  # noqa: E402

ACTIVE = 24
GENERATIONS = 3
NAMESPACE = "crash"


async def main() -> int:
    """Run it; the exit code says whether the promise held."""
    options = _options()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="perseid-operator-crash-") as scratch:
        directory = Path(scratch)
        (directory / "control-plane").mkdir()
        with ControlPlane(find_or_build(os.environ, print), directory / "control-plane") as cluster:
            cluster.kubectl("create", "namespace", NAMESPACE)
            # The double lets go of them when it ends.
            objects = await ClusterObjects.connect(cluster.kubeconfig, NAMESPACE) if options.workflows else None
            settings = {
                "PERSEID_WORKFLOWS": "off" if objects is None else "on",
                "PERSEID_WORKFLOWS_NAMESPACE": NAMESPACE,
                "PERSEID_LOG_LEVEL": "WARNING",
            }
            async with operator_world(cluster, NAMESPACE, directory / "world", objects=objects, **settings) as world:
                return await _crash(world, options.kills, moments)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workflows", action="store_true", help="Workflows in the cluster, which the operator sees")
    return parser.parse_args()


async def _crash(world: OperatorWorld, kills: int, moments: random.Random) -> int:
    began, created, done = time.monotonic(), 0, 0
    expected: dict[str, int] = {}
    phases: Counter[str] = Counter()
    lost = 0
    for number in range(1, kills + 1):
        objects = await world.objects()
        for name, item in objects.items():
            if is_over(item) and not _is_deleted(item):
                lost += _account(item, expected, phases)
                done += 1
                await world.delete(name)
        for _ in range(ACTIVE - sum(not is_over(item) for item in objects.values())):
            await world.create(f"run-{created}", {"generations": {"max": GENERATIONS, "patience": GENERATIONS}})
            created += 1
        pid = await world.fork_operator()
        # Mostly short lives, which die in the middle of something; some that get over the grace time.
        await asyncio.sleep(moments.uniform(2.0, 5.0) if moments.random() < 0.3 else moments.uniform(0.05, 1.5))
        try:
            kill(pid)
        except ProcessLookupError:
            sys.exit(f"an operator ended by itself; the end of its log:\n{world.log.read_text()[-3000:]}")
        if number % 50 == 0:
            print(f"{number} kills, {done} EvolutionRuns over, {time.monotonic() - began:.0f} s", flush=True)
    await world.fork_operator()
    await world.until(lambda objects: all(map(is_over, objects.values())), seconds=300)
    for item in (await world.objects()).values():
        if _is_deleted(item):
            continue
        lost += _account(item, expected, phases)
        done += 1
    strays = await _workflows_alive(world)
    return _report(world, kills, created, done, expected, phases, lost, strays)


async def _workflows_alive(world: OperatorWorld) -> int:
    """Workflows in the cluster that have not ended, whatever the double thinks of them; 0 where there are none."""
    if world.settings["PERSEID_WORKFLOWS"] == "off":
        return 0
    listed = json.loads(
        await asyncio.to_thread(
            world.cluster.kubectl, "get", "workflows.argoproj.io", "--all-namespaces", "--output=json"
        )
    )
    return sum(item["status"]["phase"] not in ("Succeeded", "Failed") for item in listed["items"])


def _is_deleted(item: dict[str, Any]) -> bool:
    """Whether it was counted and goes as soon as an operator has looked at it."""
    return "deletionTimestamp" in item["metadata"]


def _account(item: dict[str, object], expected: dict[str, int], phases: Counter[str]) -> int:
    """Note what the finished run should have executed; the number of its generations that are missing."""
    expected |= expected_runs(item)
    phases[phase(item)] += 1
    status = item["status"]
    assert isinstance(status, dict)
    indices = [generation["index"] for generation in status["generations"]]
    return len(set(range(GENERATIONS)) - set(indices))


def _report(
    world: OperatorWorld,
    kills: int,
    created: int,
    done: int,
    expected: dict[str, int],
    phases: Counter[str],
    lost: int,
    strays: int,
) -> int:
    counters = world.double.counters()
    alive = sum(world.double.alive(run_id) for run_id in counters.executions)
    doubled = {run_id: count for run_id, count in counters.executions.items() if count > 1}
    unexpected = set(counters.executions) - set(expected)
    missing = set(expected) - set(counters.executions)
    report = {
        "kills": kills,
        "workflows": world.settings["PERSEID_WORKFLOWS"],
        "evolution_runs": created,
        "over": done,
        "phases": dict(phases),
        "runs_expected": len(expected),
        "runs_executed": sum(counters.executions.values()),
        "executed_twice": len(doubled),
        "never_executed": len(missing),
        "beyond_the_first_attempt": len(unexpected),
        "most_alive_of_one_id": max(counters.most_alive.values(), default=0),
        "orphans_alive": alive,
        "workflow_objects_alive": strays,
        "generations_lost": lost,
        "creations_posted": sum(counters.asked.values()),
    }
    print(json.dumps(report, indent=2))
    broken = (
        doubled or missing or unexpected or alive or strays or lost or created != done or set(phases) != {"Completed"}
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
