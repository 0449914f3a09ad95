"""Objects as a cluster would hold them: their status is written by `decide` itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from perseid.api.base import API_VERSION, KIND
from perseid.api.layout import attempt_key
from perseid.api.reasons import StageState
from perseid.api.result import Gain, GenerationResult, ModelRef, Score, SetResult, YieldCounts
from perseid.api.spec import EvolutionRunSpec
from perseid.api.status import EvolutionRunStatus, GenerationStatus
from perseid.decide import Observed, ObservedRun, RunState, Submit, decide

UID = "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11"
START = datetime(2026, 1, 1, tzinfo=UTC)
URL = "https://kubeflow.example.com/pipeline/#/runs/details/"


class ClusterRun:
    """One EvolutionRun, driven as an operator drives it."""

    def __init__(self, name: str = "small", namespace: str = "lab", uid: str = UID, **spec: Any) -> None:
        self.name, self.namespace, self.uid = name, namespace, uid
        self.data = spec
        self.annotations: dict[str, str] = {}
        self.status: EvolutionRunStatus | None = None
        self.storage = str(spec.get("storage", {}).get("uri", "/runs"))
        self.evicted: list[GenerationStatus] = []
        """Generations that the status has no more room for."""
        self._moment = START

    @property
    def spec(self) -> EvolutionRunSpec:
        return EvolutionRunSpec.model_validate(self.data)

    def observe(self, **observed: Any) -> ClusterRun:
        """Decide once on what is seen, and carry submissions no further than the status."""
        self._moment += timedelta(minutes=1)
        status = self.status or EvolutionRunStatus(uid=self.uid)
        plan = decide(self.spec, status, Observed(**observed), self._moment)
        self.status = plan.status
        self.evicted += plan.evicted
        self.submitted = isinstance(plan.action, Submit)
        return self

    def running(self, **stages: StageState) -> ClusterRun:
        """The newest attempt runs, with its stages in these states."""
        if self.status is None or self.status.current is None:
            self.observe()
        run_id = self.run_id
        return self.observe(runs={run_id: ObservedRun(RunState.RUNNING, stages=stages, url=URL + run_id)})

    def failed(self, error: str) -> ClusterRun:
        """The attempt under way fails."""
        return self.observe(runs={self.run_id: ObservedRun(RunState.FAILED, error=error)})

    def generation(self, candidate: float, parent: float) -> ClusterRun:
        """One generation is carried through; its model scores so."""
        if self.status is None or self.status.current is None:
            self.observe()
        assert self.status is not None
        current = self.status.current
        assert current is not None
        return self.observe(
            runs={current.run_id: ObservedRun(RunState.SUCCEEDED, result=self.result(candidate, parent))}
        )

    def result(self, candidate: float, parent: float) -> GenerationResult:
        """The result of the attempt under way."""
        assert self.status is not None
        current = self.status.current
        assert current is not None
        place = f"{self.storage}/{attempt_key(current.generation, current.attempt)}/finetune/model"
        gain = candidate - parent
        return GenerationResult(
            generation=current.generation,
            attempt=current.attempt,
            run_id=current.run_id,
            candidate=ModelRef(uri=place, model_id=f"model-{current.generation}", generation=current.generation),
            parent_model_id="base" if current.generation == 0 else f"model-{current.generation - 1}",
            dev=SetResult(
                name="dev",
                parent=_score(parent),
                candidate=_score(candidate),
                gain=Gain(value=gain, low=gain - 0.01, high=gain + 0.01),
            ),
            yields=YieldCounts(total=10, kept=9, dropped={"tests failed": 1}),
        )

    @property
    def run_id(self) -> str:
        assert self.status is not None
        assert self.status.current is not None
        return self.status.current.run_id

    def object(self) -> dict[str, Any]:
        """As the API server gives it."""
        raw: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "uid": self.uid,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "generation": 1,
                "managedFields": [{"manager": "kubectl"}],
                "annotations": dict(self.annotations),
            },
            "spec": self.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        if self.status is not None:
            raw["status"] = self.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        return raw


def waiting(**spec: Any) -> ClusterRun:
    """Generation 0 has ended; generation 1 waits for approval."""
    generations = {"max": 4, "approval": "manual"}
    return ClusterRun(generations=generations, **spec).generation(candidate=0.5, parent=0.4)


CHANGES = ("suspend", "resume", "approve")
"""The commands that change a run."""


def changeable_by(command: str, **spec: Any) -> ClusterRun:
    """A run which that one of `CHANGES` has something to do with."""
    match command:
        case "suspend":
            return ClusterRun(**spec).running()
        case "resume":
            return ClusterRun(suspend=True, **spec).observe()
        case "approve":
            return waiting(**spec)
    raise ValueError(f"{command} changes nothing")


def _score(value: float) -> Score:
    return Score(pass_at_1=value, low=max(0.0, value - 0.1), high=min(1.0, value + 0.1), problems=50, samples=4)
