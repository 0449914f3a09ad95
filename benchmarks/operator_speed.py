"""The operator against a bare client, on a real API server, with a thousand EvolutionRuns at once.

- bare: how many status writes a second a client alone gets through, 32 at a time;
- burst: a thousand EvolutionRuns are created as fast as the API server takes them; the time from each one's creation to
  its first action (the intent of its first run in its status), and the operator's passes and status writes a second;
- steady: all of them have a run that waits for pods; what the operator asks of KFP, what it weighs
  and how much of a core it takes;
- trickle: beside those, fifty more are created, five a second, with two generations of 40 s each: the same latency as
  above, and all that is written for one generation;
- recovery: the operator is killed, and the next one has had a look at all of them.

KFP is the tests' double, without its limit of five creations a second: it would be all that is measured. Other load on
the machine falsifies everything, so the load is told. `--runs N` changes the size.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "cluster")]

from cluster_access import Cluster  # noqa: E402
from cluster_binaries import find_or_build  # noqa: E402
from control_plane import ControlPlane  # noqa: E402
from kubernetes_asyncio import watch  # noqa: E402
from kubernetes_asyncio.client import CustomObjectsApi  # noqa: E402
from operator_world import GROUP, PLURAL, VERSION, OperatorWorld, is_over, kill, operator_world  # noqa: E402

from kfp_double.simulation import Script, Timing  # noqa: E402
from perseid_operator.kube.client import KubeClient  # noqa: E402
from perseid_operator.kube.connection import Connection  # noqa: E402
from perseid_operator.login import access  # noqa: E402

NAMESPACE = "bench"
AT_ONCE = 32
POLL_SECONDS = 15
STEADY_SECONDS = 3 * POLL_SECONDS
WRITES = ("POST", "PUT", "PATCH", "DELETE", "APPLY")
SPEC = {"generations": {"max": 3, "patience": 3}}


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    load = os.getloadavg()[0]
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="perseid-operator-bench-") as scratch:
        directory = Path(scratch)
        (directory / "control-plane").mkdir()
        with ControlPlane(find_or_build(os.environ, print), directory / "control-plane") as cluster:
            os.environ["KUBECONFIG"] = str(cluster.kubeconfig)
            cluster.kubectl("create", "namespace", NAMESPACE)
            cluster.kubectl("create", "namespace", "bare")
            timing = replace(Timing().scaled(0.1), rate=1e6, burst=1000, create=0.0, list_per_run=0.0)
            settings = {
                "PERSEID_POLL_SECONDS": str(POLL_SECONDS),
                "PERSEID_HTTP_PORT": str(port),
                "PERSEID_WORKFLOWS": "off",
            }
            settings |= {"PERSEID_KFP_TIMEOUT_SECONDS": "30", "PERSEID_SUBMIT_GRACE_SECONDS": "600"}
            async with operator_world(
                cluster,
                NAMESPACE,
                directory / "world",
                script=Script(pending=None, running=None),
                timing=timing,
                PERSEID_LOG_LEVEL="WARNING",
                **settings,
            ) as world:
                report = {"runs": runs, "load_before": round(load, 2), **await _measure(world, cluster, runs, port)}
    print(json.dumps(report, indent=2))


async def _measure(world: OperatorWorld, cluster: Cluster, runs: int, port: int) -> dict[str, Any]:
    bare = await _bare(cluster, 300)
    pid = await world.fork_operator()
    await _creations(world, range(10_000, 10_001), SPEC)  # it has started, and compiled what all share
    asked = _requests(cluster)
    began, created, acted = await _creations(world, range(runs), SPEC)
    busy = max(acted.values()) - began
    passes = await _metric(port, "perseid_operator_reconcile_total") - 1
    writes = await _metric(port, "perseid_operator_status_writes_total", result="written")
    burst_writes = _requests(cluster) - asked - runs
    await _settle(port)
    steady = await _steady(port, pid)
    trickle = await _trickle(world, cluster, range(runs, runs + 50))
    kill(pid)
    restarted = time.monotonic()
    await world.fork_operator()
    while await _metric(port, "perseid_operator_reconcile_total") < runs:
        await asyncio.sleep(0.2)  # the count is all that tells
    recovery = time.monotonic() - restarted
    executions = world.double.counters().executions
    return {
        "bare_status_writes_per_second": round(bare, 1),
        "burst": {
            "created_in_seconds": round(max(created.values()) - began, 1),
            "all_acted_on_in_seconds": round(busy, 1),
            **_latency(created, acted),
            "objects_per_second": round(runs / busy, 1),
            "passes_per_second": round(passes / busy, 1),
            "status_writes_per_second": round(writes / busy, 1),
            "api_writes_per_second": round(burst_writes / busy, 1),
            "api_writes_to_bare": round(burst_writes / busy / bare, 3),
            "passes_to_bare": round(passes / busy / bare, 3),
            "api_writes_for_each_object": round(burst_writes / runs, 2),
        },
        "steady": steady,
        "trickle": trickle,
        "recovery_seconds": round(recovery, 1),
        "executed_twice": sum(count > 1 for count in executions.values()),
    }


def _requests(cluster: Cluster) -> int:
    """Writes of EvolutionRuns, of what belongs to them, and Events, that the API server has taken so far."""
    found = 0.0
    for line in cluster.kubectl("get", "--raw", "/metrics").splitlines():
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line)) if line.startswith("apiserver_request_total{") else {}
        if labels.get("resource") in ("evolutionruns", "configmaps", "events") and labels["verb"] in WRITES:
            found += float(line.rsplit(" ", 1)[1])
    return round(found)


async def _bare(cluster: Cluster, count: int) -> float:
    """Status writes a second of a client that does nothing else."""
    async with Connection(await access()) as connection:
        kube = KubeClient(connection)
        objects = [await _create(connection, "bare", number, SPEC) for number in range(count)]
        turns = asyncio.Semaphore(AT_ONCE)

        async def write(item: Any) -> None:
            async with turns:
                await kube.write_status(item, {"uid": item["metadata"]["uid"], "phase": "Running"})

        began = time.monotonic()
        await asyncio.gather(*map(write, objects))
        return count / (time.monotonic() - began)


def _latency(created: dict[str, float], acted: dict[str, float]) -> dict[str, float]:
    waits = sorted(acted[name] - created[name] for name in created)
    return {
        "first_action_p50_seconds": round(statistics.median(waits), 3),
        "first_action_p99_seconds": round(waits[int(0.99 * (len(waits) - 1))], 3),
    }


async def _trickle(world: OperatorWorld, cluster: Cluster, numbers: range) -> dict[str, Any]:
    world.double.script(Script(pending=5, running=35))
    asked = _requests(cluster)
    generations = 2
    spec = {"generations": {"max": generations, "patience": generations}}
    _, created, acted = await _creations(world, numbers, spec, every=0.2)
    await world.until(lambda objects: all(is_over(objects[name]) for name in created), 300)
    written = _requests(cluster) - asked - len(numbers)
    return {
        **_latency(created, acted),
        "api_writes_for_each_generation": round(written / len(numbers) / generations, 2),
    }


async def _creations(
    world: OperatorWorld, numbers: range, spec: dict[str, Any], every: float = 0.0
) -> tuple[float, dict[str, float], dict[str, float]]:
    """Create objects; when each was created and when its first intent was seen, by name."""
    created: dict[str, float] = {}
    acted: dict[str, float] = {}
    wanted = {f"run-{number}" for number in numbers}
    async with world.cluster.client() as api, Connection(await access()) as connection:
        custom: Any = CustomObjectsApi(api)

        async def follow() -> None:
            async with watch.Watch().stream(
                custom.list_namespaced_custom_object, GROUP, VERSION, world.namespace, PLURAL
            ) as stream:
                async for event in stream:
                    name = event["object"]["metadata"]["name"]
                    if name in wanted and event["object"].get("status", {}).get("current"):
                        acted.setdefault(name, time.monotonic())
                    if len(acted) == len(wanted):
                        return

        following = asyncio.create_task(follow())
        turns = asyncio.Semaphore(AT_ONCE)

        async def create(number: int) -> None:
            await asyncio.sleep(every * (number - numbers.start))
            async with turns:
                await _create(connection, world.namespace, number, spec)
                created[f"run-{number}"] = time.monotonic()

        began = time.monotonic()
        await asyncio.gather(*map(create, numbers))
        await asyncio.wait_for(following, 600)
    return began, created, acted


async def _create(connection: Connection, namespace: str, number: int, spec: dict[str, Any]) -> Any:
    metadata = {"name": f"run-{number}", "namespace": namespace}
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "EvolutionRun", "metadata": metadata, "spec": spec}
    return await connection.ask("create", "POST", f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}", body)


async def _settle(port: int) -> None:
    """Wait until two looks, some seconds apart, find that nothing was written in between."""
    before = -1.0
    while (now := await _metric(port, "perseid_operator_status_writes_total")) != before:
        before = now
        await asyncio.sleep(20)  # a poll and a bit


async def _steady(port: int, pid: int) -> dict[str, Any]:
    calls = await _metric(port, "perseid_operator_kfp_requests_total")
    rounds = await _metric(port, "perseid_operator_kfp_requests_total", operation="check")
    cpu = _cpu_seconds(pid)
    await asyncio.sleep(STEADY_SECONDS)
    cpu = _cpu_seconds(pid) - cpu
    more = await _metric(port, "perseid_operator_kfp_requests_total") - calls
    status = Path(f"/proc/{pid}/status").read_text()
    return {
        "kfp_calls_per_poll": round(more / (STEADY_SECONDS / POLL_SECONDS), 1),
        "cpu_millicores": round(1000 * cpu / STEADY_SECONDS),
        "idle_checks": await _metric(port, "perseid_operator_kfp_requests_total", operation="check") - rounds,
        "rss_mib": round(int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024),  # type: ignore[union-attr]
    }


def _cpu_seconds(pid: int) -> float:
    """What the process has used so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _metric(port: int, name: str, **labels: str) -> float:
    """The sum of a metric's series with these labels; waits until the operator answers."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                    lines = (await answer.text()).splitlines()
                break
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
    series = [line for line in lines if re.match(rf"{name}[{{ ]", line) and all(one in line for one in wanted)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in series)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    asyncio.run(main())
