"""What `helm test` runs, in a pod of the operator's own image: does the cluster take an EvolutionRun, is the operator
ready? Nothing is stored: the API server only tries."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from perseid_operator.kube.connection import Connection, path_of
from perseid_operator.kube.protocol import KubeError
from perseid_operator.login import access

READY_SECONDS = 90.0
"""An operator that was installed a moment ago may still have to be pulled and started."""
PAUSE_SECONDS = 1.0


async def try_to_create(run: dict[str, Any], namespace: str) -> None:
    """Create an EvolutionRun by a dry run, under a name that the API server finds. Raises KubeError."""
    run["metadata"] = {"generateName": f"{run['metadata']['name']}-"}  # One of its own name may be there.
    group, version = run["apiVersion"].split("/")
    path = path_of("apis", group, version, "namespaces", namespace, "evolutionruns")
    async with Connection(await access()) as connection:
        query = {"dryRun": "All", "fieldValidation": "Strict"}
        await connection.ask(f"create a sample EvolutionRun in {namespace}", "POST", path, run, query=query)


async def wait_until_ready(url: str, seconds: float) -> str:
    """What the operator says once it is ready. Raises TimeoutError with what it said last."""
    deadline = time.monotonic() + seconds
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        while True:
            try:
                async with session.get(url) as response:
                    said = f"{response.status} {(await response.text()).strip()}"
                    if response.status == 200:
                        return said
            except (aiohttp.ClientError, TimeoutError) as error:
                said = f"{type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} did not answer 200 within {seconds:g} s, but: {said}")
            await asyncio.sleep(PAUSE_SECONDS)


async def check(run: dict[str, Any], namespace: str, ready: str, seconds: float) -> None:
    """Make both checks, and say what came of each. Raises KubeError or TimeoutError."""
    await try_to_create(run, namespace)
    print(f"The API server takes EvolutionRuns in namespace {namespace}.", flush=True)
    print(f"The operator at {ready} is ready: {await wait_until_ready(ready, seconds)}", flush=True)


def main() -> None:
    """Read the arguments and check. The exit status says whether all is well."""
    parser = argparse.ArgumentParser(description="Does this installation of the Perseid operator work?")
    parser.add_argument("sample", type=Path, help="file with an EvolutionRun")
    parser.add_argument("--namespace", required=True, help="where it is tried on")
    parser.add_argument("--ready", required=True, metavar="URL", help="the operator's /readyz")
    parser.add_argument("--seconds", type=float, default=READY_SECONDS, help="how long to wait for the operator")
    options = parser.parse_args()
    run = yaml.safe_load(options.sample.read_text(encoding="utf-8"))
    try:
        asyncio.run(check(run, options.namespace, options.ready, options.seconds))
    except (KubeError, TimeoutError) as error:
        sys.exit(f"The installation does not work: {error}")


if __name__ == "__main__":
    main()
