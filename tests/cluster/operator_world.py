"""The operator as processes, on a real API server, with KFP's double: for tests, the crash test and the benchmark."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster_access import Cluster
from crd_objects import install_crd, wait_until_served

from kfp_double import KfpDouble
from kfp_double.clock import RealClock
from kfp_double.simulation import Script, Timing, WorkflowObjects
from perseid.api.layout import attempt_key
from perseid.api.result import Gain, GenerationResult, ModelRef, Score, SetResult, YieldCounts
from perseid.decide import run_id_of

ZYGOTE = Path(__file__).with_name("operator_zygote.py")
GROUP, VERSION, PLURAL = "perseid.dev", "v1alpha1", "evolutionruns"


@dataclass
class OperatorWorld:
    """A namespace of a cluster, a KFP, a storage, and whichever operators are alive."""

    cluster: Cluster
    namespace: str
    double: KfpDouble
    directory: Path
    settings: dict[str, str] = field(default_factory=dict)
    kubeconfig: Path | None = None
    """Of the operator's account; the administrator's where None."""
    _zygote: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> Path:
        """What all operators have said."""
        return self.directory / "operator.log"

    def environment(self, **changes: str) -> dict[str, str]:
        return {
            "KUBECONFIG": str(self.kubeconfig or self.cluster.kubeconfig),
            "PERSEID_KFP_ENDPOINT": self.double.url,
            "PERSEID_STORAGE": str(self.directory / "storage"),
            "PERSEID_WATCH_NAMESPACE": self.namespace,
            "PERSEID_LOG_FORMAT": "text",
            "PERSEID_HTTP_PORT": "0",
            "PERSEID_POLL_SECONDS": "0.5",
            "PERSEID_KFP_TIMEOUT_SECONDS": "1.5",
            "PERSEID_SUBMIT_GRACE_SECONDS": "2",
            **self.settings,
            **changes,
        }

    async def fork_operator(self, **changes: str) -> int:
        """Start an operator; its process's id. It is ready to work some tenths of a second later."""
        if self._zygote is None:
            paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
            self._zygote = await asyncio.create_subprocess_exec(
                sys.executable,
                str(ZYGOTE),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": paths},
            )
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        order = {"environment": self.environment(**changes), "log": str(self.log)}
        self._zygote.stdin.write(json.dumps(order).encode() + b"\n")
        await self._zygote.stdin.drain()
        return int(await self._zygote.stdout.readline())

    async def close(self) -> None:
        if self._zygote is not None:
            self._zygote.kill()  # whatever it has forked dies with it
            await self._zygote.wait()

    async def create(self, name: str, spec: Mapping[str, Any]) -> None:
        async with self._runs() as api:
            body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "EvolutionRun", "metadata": {"name": name}}
            await api.create_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, {**body, "spec": dict(spec)}
            )

    async def patch(self, name: str, **spec: Any) -> None:
        async with self._runs() as api:
            await api.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                self.namespace,
                PLURAL,
                name,
                {"spec": spec},
                _content_type="application/merge-patch+json",
            )

    async def objects(self) -> dict[str, dict[str, Any]]:
        """All EvolutionRuns of the namespace by name."""
        async with self._runs() as api:
            listed = await api.list_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL)
        return {item["metadata"]["name"]: item for item in listed["items"]}

    async def delete(self, name: str) -> None:
        async with self._runs() as api:
            await api.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name)

    @contextlib.asynccontextmanager
    async def _runs(self) -> AsyncIterator[Any]:
        from kubernetes_asyncio.client import CustomObjectsApi

        async with self.cluster.client() as client:
            yield CustomObjectsApi(client)

    async def until(self, done: Callable[[dict[str, dict[str, Any]]], bool], seconds: float = 60.0) -> None:
        """Wait until the objects of the namespace are as wanted."""
        deadline = time.monotonic() + seconds
        while not done(objects := await self.objects()):
            if time.monotonic() > deadline:
                phases = {name: one.get("status", {}).get("columns") for name, one in objects.items()}
                raise AssertionError(
                    f"not within {seconds} s: {phases}; the operator's last words:\n{self.log.read_text()[-3000:]}"
                )
            await asyncio.sleep(0.1)  # there is nothing to wait on but the objects

    async def is_under_way(self, name: str = "evolve", runs: int = 1) -> str:
        """Wait until an object has had that many runs, and its status knows that the last one runs; its id."""

        def running(objects: dict[str, dict[str, Any]]) -> bool:
            status = objects[name].get("status", {})
            reasons = {condition["type"]: condition["reason"] for condition in status.get("conditions", [])}
            return (
                reasons.get("Progressing") == "GenerationInProgress"
                and status.get("current", {}).get("generation") == runs - 1
            )

        await self.until(running)
        run_id: str = (await self.objects())[name]["status"]["current"]["runId"]
        return run_id


def phase(item: Mapping[str, Any]) -> str:
    return str(item.get("status", {}).get("phase", ""))


def is_over(item: Mapping[str, Any]) -> bool:
    return phase(item) in ("Completed", "Failed")


def expected_runs(item: Mapping[str, Any]) -> dict[str, int]:
    """One execution of the first attempt of each generation."""
    generations = int(item["spec"]["generations"]["max"])
    return {run_id_of(item["metadata"]["uid"], index, 0): 1 for index in range(generations)}


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def write_result(workflow: dict[str, Any], outcome: str) -> None:
    """What a run's last stage would have written: a small gain."""
    parameters = workflow["parameters"]
    generation, attempt = int(parameters["generation"]), int(parameters["attempt"])
    directory = Path(parameters["storage"]) / attempt_key(generation, attempt)
    directory.mkdir(parents=True, exist_ok=True)
    if outcome != "SUCCEEDED":
        return
    before, after = (Score(pass_at_1=at, low=at, high=at, problems=10, samples=4) for at in (0.4, 0.45))
    result = GenerationResult(
        generation=generation,
        attempt=attempt,
        run_id=parameters["run_id"],
        candidate=ModelRef(
            uri=f"{parameters['storage']}/model-{generation}", model_id=f"m{generation}", generation=generation
        ),
        dev=SetResult(name="dev", parent=before, candidate=after, gain=Gain(value=0.05, low=0.04, high=0.06)),
        yields=YieldCounts(total=10, kept=9, dropped={"tests-failed": 1}),
    )
    (directory / "result.json").write_text(result.model_dump_json(by_alias=True))


async def prepare(cluster: Cluster) -> None:
    """Have the cluster know EvolutionRuns, and collect what they own."""
    await asyncio.to_thread(install_crd, cluster)
    await asyncio.to_thread(wait_until_served, cluster)


@contextlib.asynccontextmanager
async def operator_world(
    cluster: Cluster,
    namespace: str,
    directory: Path,
    *,
    timing: Timing | None = None,
    script: Script | None = None,
    objects: WorkflowObjects | None = None,
    **settings: str,
) -> AsyncIterator[OperatorWorld]:
    """The CRD is installed, the namespace is there; the double is fifty times as fast as the real one by default."""
    await prepare(cluster)
    (directory / "storage").mkdir(parents=True)
    timing = timing or Timing().scaled(0.02)
    async with KfpDouble(clock=RealClock(), timing=timing, objects=objects) as double:
        double.script(script or Script(pending=0.05, running=0.3))
        double.on_end(write_result)
        world = OperatorWorld(cluster, namespace, double, directory, dict(settings))
        world.log.touch()
        try:
            yield world
        finally:
            await world.close()
