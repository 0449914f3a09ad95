"""A world for the operator's shell: Kubernetes in memory, KFP's double on virtual time, and a crash at any await."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kfp_double import KfpDouble, VirtualClock
from kfp_double.simulation import Script
from perseid.api.layout import attempt_key
from perseid.api.pipeline import StageDefaults
from perseid.api.reasons import ConditionStatus, ConditionType, Reason
from perseid.api.result import Gain, GenerationResult, ModelRef, Score, SetResult, YieldCounts
from perseid.api.status import EvolutionRunStatus
from perseid.decide import run_id_of
from perseid_operator.actions import Actions, PostponedError
from perseid_operator.compiler import CompiledPipeline
from perseid_operator.kfp import KfpClient, KfpError, KfpSettings
from perseid_operator.kube.protocol import ConflictError, ForbiddenError, KubeError, NotFoundError, Object
from perseid_operator.objects import needs_work, read_status
from perseid_operator.observer import Observer
from perseid_operator.reconciler import Reconciler
from perseid_operator.results import ResultReader
from perseid_operator.snapshots import Snapshots
from perseid_operator.submission import Doubts, Grace, Workflows
from perseid_operator.watch import RunWatch

UID = "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11"
FIRST = run_id_of(UID, 0, 0)
"""The id of the first generation's first attempt."""
NAMESPACE, NAME = "team", "evolve"
POLL_SECONDS = 15.0


class Crash(BaseException):
    """The process is gone. Nothing that catches Exception may see it."""


class FakeKube:
    """One EvolutionRun, ConfigMaps and the double's Workflows, with versions and conflicts as the API server has."""

    def __init__(self, double: KfpDouble, *, sees_workflows: bool) -> None:
        self._double = double
        self._sees_workflows = sees_workflows
        self._versions = itertools.count(1)
        self.run: dict[str, Any] | None = None
        self.config_maps: dict[str, dict[str, Any]] = {}
        self.status_writes = 0
        self.calls: Counter[str] = Counter()

    def create(self, spec: Mapping[str, Any]) -> None:
        metadata = {"name": NAME, "namespace": NAMESPACE, "uid": UID, "generation": 1}
        self.run = {"metadata": metadata, "spec": dict(spec)}
        self._touch()

    def edit(self, **spec: Any) -> None:
        """Somebody changes the spec."""
        assert self.run is not None
        self.run["spec"] |= spec
        self.run["metadata"]["generation"] += 1
        self._touch()

    def annotate(self, **annotations: str) -> None:
        assert self.run is not None
        self.run["metadata"].setdefault("annotations", {}).update(annotations)
        self._touch()

    def _touch(self) -> None:
        assert self.run is not None
        self.run["metadata"]["resourceVersion"] = str(next(self._versions))

    @property
    def status(self) -> EvolutionRunStatus:
        assert self.run is not None
        return read_status(self.run)

    async def get_run(self, namespace: str, name: str) -> Object:
        self.calls["get_run"] += 1
        if self.run is None or (namespace, name) != (NAMESPACE, NAME):
            raise NotFoundError(f"no EvolutionRun {namespace}/{name}")
        return copy.deepcopy(self.run)

    async def write_status(self, run: Object, status: Mapping[str, Any]) -> Object:
        self.calls["write_status"] += 1
        if self.run is None:
            raise NotFoundError("gone")
        if run["metadata"]["resourceVersion"] != self.run["metadata"]["resourceVersion"]:
            raise ConflictError("changed")
        self.run["status"] = copy.deepcopy(dict(status))
        self.status_writes += 1
        self._touch()
        return copy.deepcopy(self.run)

    async def delete_run(self, run: Object) -> None:
        self.calls["delete_run"] += 1
        self.run = None

    async def get_config_map(self, namespace: str, name: str) -> Object:
        if name not in self.config_maps:
            raise NotFoundError(f"no ConfigMap {name}")
        return copy.deepcopy(self.config_maps[name])

    async def create_config_map(self, owner: Object, name: str, data: Mapping[str, str], *, immutable: bool) -> Object:
        if name in self.config_maps:
            raise ConflictError(f"ConfigMap {name} exists")
        self.config_maps[name] = {"metadata": {"name": name}, "data": dict(data), "immutable": immutable}
        return self.config_maps[name]

    async def add_to_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        if name not in self.config_maps:
            raise NotFoundError(f"no ConfigMap {name}")
        self.config_maps[name]["data"] |= data

    async def workflows(self, run_id: str) -> list[Object]:
        if not self._sees_workflows:
            raise ForbiddenError("workflows are forbidden")
        return [
            {
                "metadata": {"name": one["name"], "namespace": "kubeflow"},
                "status": {"phase": one["phase"], "message": one["message"]},
            }
            for one in self._double.workflows(run_id)
        ]

    async def train_jobs(self, run_id: str) -> list[Object]:
        raise NotFoundError("the server could not find the requested resource")

    async def delete_workflow(self, workflow: Object) -> None:
        await self._double._simulation.remove_workflow(workflow["metadata"]["name"])


class Crashing:
    """Something whose every call may be the last of the process: before it is sent, or after it was carried out."""

    def __init__(self, inner: Any, world: World) -> None:
        self._inner = inner
        self._world = world

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if not callable(attribute) or name == "settings":
            return attribute

        async def call(*arguments: Any, **named: Any) -> Any:
            self._world.reached(f"before {name}")
            result = await attribute(*arguments, **named)
            self._world.reached(f"after {name}")
            return result

        return call


class StandInCompiler:
    """Compiles nothing: the shell does not look into a pipeline. What the double takes for one is enough."""

    def __init__(self, text: str) -> None:
        self._compiled = CompiledPipeline(text)

    async def compile(self, spec: object) -> CompiledPipeline:
        return self._compiled


@dataclass
class World:
    """Everything that outlives the operator's process, and the process."""

    double: KfpDouble
    kube: FakeKube
    storage: Path
    pipeline: str
    grace: Grace
    crash_at: int | None = None
    """The how-manieth await is the last of the process."""
    awaits: int = 0
    crashes: list[str] = field(default_factory=list)
    defaults: StageDefaults = field(default_factory=StageDefaults)
    """Of stages: what the next process is told."""
    gain: Callable[[int], float] = lambda generation: 0.05
    _clients: list[KfpClient] = field(default_factory=list)
    reconciler: Reconciler | None = None
    watch: RunWatch | None = None
    submissions: Counter[str] = field(default_factory=Counter)
    announced: list[tuple[str, str]] = field(default_factory=list)

    def reached(self, point: str) -> None:
        self.awaits += 1
        if self.crash_at is not None and self.awaits == self.crash_at:
            self.crashes.append(point)
            raise Crash(point)

    def start(self) -> None:
        """A new process: nothing of the old one's memory is left."""
        client = KfpClient(KfpSettings(self.double.url))
        self._clients.append(client)
        kfp: Any = Crashing(client, self)
        kube: Any = Crashing(self.kube, self)
        clock = self.double.clock.now
        workflows = Workflows(kube, allowed=None)
        doubts = Doubts(self.grace, workflows, self.now)
        compiler: Any = StandInCompiler(self.pipeline)
        snapshots = Snapshots(kube, compiler, self.defaults)
        self.watch = RunWatch(kfp, lambda uid: None, clock=clock, gather_seconds=0)
        observer = Observer(
            kube,
            self.watch,
            ResultReader(),
            workflows,
            doubts,
            storage=str(self.storage),
            link=lambda run_id: f"https://kubeflow.example/#/runs/details/{run_id}",
            lost_seconds=300,
            now=self.now,
            clock=clock,
        )
        actions = Actions(
            kfp,
            self.watch,
            doubts,
            snapshots,
            storage=str(self.storage),
            cancel_seconds=300,
            now=self.now,
            on_submission=lambda result: self.submissions.update([result]),
        )
        self.reconciler = Reconciler(
            kube,
            observer,
            actions,
            snapshots,
            doubts,
            progress_seconds=30,
            now=self.now,
            clock=clock,
            announce=lambda obj, condition: self.announced.append((condition.type.value, condition.reason.value)),
        )

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.double.clock.now(), UTC)

    async def step(self) -> float | None:
        """One pass of a live process; a crash is followed by a restart. The seconds to wait."""
        assert self.kube.run is not None
        if self.reconciler is None:
            self.start()
        assert self.reconciler is not None
        try:
            _, wait = await self.reconciler.reconcile(copy.deepcopy(self.kube.run))
        except Crash:
            await self.double.idle()  # what was sent is served, although nobody waits for it
            self.reconciler = None
            return 1.0
        except (KubeError, KfpError, PostponedError):
            return 5.0
        return wait

    async def until(self, done: Callable[[], bool], *, within: float = 20_000, poll: float = POLL_SECONDS) -> None:
        """Pass after pass, time going by in between, until something is the case."""
        end = self.double.clock.now() + within
        while not done():
            if self.double.clock.now() > end:
                raise AssertionError(f"not within {within} s; the status is {self.kube.status!r}")
            wait = await self.step()
            if done():
                return
            await self.double.advance(poll if wait is None else max(1.0, min(wait, poll)))
            await self._round()

    async def _round(self) -> None:
        """The watch's round on KFP's runs, which may be the last thing that the process does."""
        if self.watch is None or self.reconciler is None:
            return
        try:
            await self.watch.round()
        except Crash:
            await self.double.idle()
            self.reconciler = None

    async def to_the_end(self) -> EvolutionRunStatus:
        """Until nothing is left to do."""
        await self.until(lambda: self.kube.run is None or not needs_work(self.kube.run))
        return self.kube.status

    @property
    def executions(self) -> dict[str, int]:
        return self.double.counters().executions

    def alive(self) -> int:
        return sum(self.double.alive(run_id) for run_id in self.double.counters().executions)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


def reason(world: World, type_: ConditionType) -> tuple[ConditionStatus, Reason]:
    """Status and reason of a condition that the object has."""
    condition = world.kube.status.condition(type_)
    assert condition is not None
    return condition.status, condition.reason


def expected(generations: int, attempts: int = 1) -> dict[str, int]:
    """Each of these attempts, executed once."""
    return {run_id_of(UID, index, number): 1 for index in range(generations) for number in range(attempts)}


def result_of(parameters: Mapping[str, Any], gain: float) -> GenerationResult:
    generation, attempt = int(parameters["generation"]), int(parameters["attempt"])
    root = parameters["storage"]

    def score(value: float) -> Score:
        return Score(pass_at_1=value, low=value, high=value, problems=10, samples=4)

    return GenerationResult(
        generation=generation,
        attempt=attempt,
        run_id=parameters["run_id"],
        candidate=ModelRef(uri=f"{root}/model-{generation}", model_id=f"m{generation}", generation=generation),
        dev=SetResult(
            name="dev",
            parent=score(0.4),
            candidate=score(0.4 + gain),
            gain=Gain(value=gain, low=gain - 0.01, high=gain + 0.01),
        ),
        yields=YieldCounts(total=10, kept=9, dropped={"tests-failed": 1}),
    )


@contextlib.asynccontextmanager
async def open_world(
    storage: Path, pipeline: str, /, *, sees_workflows: bool = True, script: Script | None = None, **spec: Any
) -> AsyncIterator[World]:
    """A world with one EvolutionRun, before any operator has started. Runs succeed and leave a result."""
    async with KfpDouble(clock=VirtualClock()) as double:
        kube = FakeKube(double, sees_workflows=sees_workflows)
        world = World(double, kube, storage, pipeline, Grace(without_workflows=600, with_workflows=60))
        kube.create({"generations": {"max": 2, "patience": 5}, **spec})
        double.script(script or Script(pending=2, running=30))

        async def write_result(workflow: dict[str, Any], outcome: str) -> None:
            parameters = workflow["parameters"]
            key = attempt_key(int(parameters["generation"]), int(parameters["attempt"]))
            directory = Path(parameters["storage"]) / key
            directory.mkdir(parents=True, exist_ok=True)
            if outcome == "SUCCEEDED":
                result = result_of(parameters, world.gain(int(parameters["generation"])))
                (directory / "result.json").write_text(result.model_dump_json(by_alias=True))

        double.on_end(write_result)
        try:
            yield world
        finally:
            await world.close()
