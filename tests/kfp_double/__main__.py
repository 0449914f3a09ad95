"""The double as a process: python tests/kfp_double --port 0 --state DIR.

Prints one line of JSON when it listens: {"port": ..., "control_port": ..., "pid": ...}. State survives its SIGKILL; a
new process over the same directory goes on. Faults are ordered by POST to /double/METHOD, with the arguments as JSON,
on either port (`kfp_double.control.METHODS`, documented at `kfp_double.double.KfpDouble`); GET /double/state tells what
has happened.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

# Started by its path, Python looks for modules inside the package.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from kfp_double.clock import RealClock  # noqa: E402
from kfp_double.double import KfpDouble  # noqa: E402
from kfp_double.parts import Executor, NoObjects, Script, Timing, WorkflowObjects  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kfp_double", description=__doc__, formatter_class=_Raw)
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--state", type=Path, help="directory of what survives; in memory without it")
    parser.add_argument("--mode", choices=("scripted", "execute", "pods"), default="scripted")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all times; 0.01 is a hundred times faster")
    parser.add_argument("--pending", type=float, default=1.0, help="scripted: seconds before the scale")
    parser.add_argument("--running", type=float, default=20.0, help="scripted: seconds before the scale")
    parser.add_argument("--die-with", type=int, help="execute: process that no run outlives; default: the parent")
    parser.add_argument("--kubeconfig", type=Path, help="make Workflow objects in this cluster")
    parser.add_argument("--in-cluster", action="store_true", help="make them in the cluster that this is a pod of")
    parser.add_argument("--namespace", default="kubeflow", help="of the Workflow objects, and of pods")
    return parser.parse_args()


class _Raw(argparse.RawDescriptionHelpFormatter): ...


async def serve(chosen: argparse.Namespace) -> None:
    executor: Executor | None = None
    objects: WorkflowObjects = NoObjects()
    if chosen.kubeconfig is not None or chosen.in_cluster:
        from kfp_double.cluster_objects import ClusterObjects

        objects = await ClusterObjects.connect(None if chosen.in_cluster else chosen.kubeconfig, chosen.namespace)
    if chosen.mode != "scripted" and chosen.state is None:
        raise SystemExit(f"--mode {chosen.mode} needs --state: the runs' files lie there")
    if chosen.mode == "execute":
        from kfp_double.executing import ProcessExecutor

        executor = ProcessExecutor(chosen.state / "workflows", die_with=chosen.die_with)
    elif chosen.mode == "pods":
        if isinstance(objects, NoObjects):
            raise SystemExit("--mode pods needs --in-cluster or --kubeconfig: the pods are made there")
        from kfp_double.pods import PodExecutor

        executor = PodExecutor(objects.api, chosen.namespace, chosen.state / "pods")
    double = KfpDouble(
        clock=RealClock(),
        state=chosen.state,
        timing=Timing().scaled(chosen.scale),
        executor=executor,
        objects=objects,
    )
    double.script(Script(pending=chosen.pending * chosen.scale, running=chosen.running * chosen.scale))
    ended = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, ended.set)
    await double.start(chosen.port, chosen.host)
    print(json.dumps({"port": double.port, "control_port": double.control_port, "pid": os.getpid()}), flush=True)
    await ended.wait()
    await double.stop()


if __name__ == "__main__":
    asyncio.run(serve(arguments()))
