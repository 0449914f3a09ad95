"""An EvolutionRun as the API server gives it. One that cannot be read must not hide the others."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from perseid.api.base import API_VERSION, KIND, Timestamp
from perseid.api.lifecycle import LifecycleSpec
from perseid.api.reasons import GenerationPhase, Phase, StageState
from perseid.api.spec import EvolutionRun
from perseid.api.stages import STAGES, StageName
from perseid.api.status import EvolutionRunStatus
from perseid_operator.cli.errors import ClusterError

_TIMESTAMP: TypeAdapter[datetime] = TypeAdapter(Timestamp)
_READ_METADATA = ("name", "namespace", "labels", "annotations")


@dataclass(frozen=True, slots=True)
class SeenRun:
    """One object at one moment."""

    namespace: str
    name: str
    uid: str
    created: datetime | None
    raw: dict[str, Any]
    status: EvolutionRunStatus | None
    """None where there is none yet, or it cannot be read."""
    problem: str = ""
    """Why the status cannot be read."""

    @property
    def phase(self) -> str:
        """Where the run is, in one word; as it stands where the status cannot be read."""
        if self.status is not None:
            return self.status.phase.value
        said = _mapping(self.raw.get("status")).get("phase")
        return said if isinstance(said, str) else Phase.PENDING.value

    @property
    def reason(self) -> str:
        """Why it is there."""
        if self.status is not None:
            return self.status.columns.reason
        return "Unreadable" if self.problem else ""

    @property
    def url(self) -> str | None:
        """The page of the newest attempt's pipeline run, in the Kubeflow UI."""
        return None if self.status is None else self.status.url

    @property
    def managed_by(self) -> str | None:
        """`spec.managedBy`."""
        said = _mapping(self.raw.get("spec")).get("managedBy")
        return said if isinstance(said, str) else None

    @property
    def is_over(self) -> bool:
        """Whether nothing will follow."""
        return self.phase in (Phase.COMPLETED.value, Phase.FAILED.value)

    @property
    def suspend(self) -> bool:
        """`spec.suspend`."""
        return _mapping(self.raw.get("spec")).get("suspend") is True

    @property
    def suspend_policy(self) -> str:
        """`spec.suspendPolicy`."""
        return str(_mapping(self.raw.get("spec")).get("suspendPolicy", LifecycleSpec().suspend_policy))

    @property
    def generations_max(self) -> int:
        """`spec.generations.max`."""
        said = _mapping(_mapping(self.raw.get("spec")).get("generations")).get("max")
        return said if isinstance(said, int) and said > 0 else 1

    @property
    def stages(self) -> tuple[StageName, ...]:
        """The stages that a generation goes through; all there are where this version cannot read the spec."""
        try:
            return self.run().spec.stages
        except ClusterError:
            return STAGES

    @property
    def stage(self) -> str:
        """The stage that runs now; empty between stages."""
        current = self.status.current if self.status is not None else None
        if current is None:
            return ""
        running = [stage for stage, state in current.stages.items() if state is StageState.RUNNING]
        return running[-1] if running else ""

    @property
    def done(self) -> float:
        """Share of the run that is done, from 0 to 1, by generations and their stages; 1 for a completed one."""
        if self.status is None:
            return 0.0
        if self.status.phase is Phase.COMPLETED:
            return 1.0
        ended = [one.index + 1 for one in self.status.generations if one.phase is not GenerationPhase.RUNNING]
        current = self.status.current
        stages = [] if current is None else [one for one in current.stages.values() if one is StageState.SUCCEEDED]
        return min(1.0, (max(ended, default=0) + len(stages) / len(self.stages)) / self.generations_max)

    def run(self) -> EvolutionRun:
        """The whole of it. Raises ClusterError where this version of Perseid cannot read its spec."""
        metadata = {key: value for key, value in _mapping(self.raw.get("metadata")).items() if key in _READ_METADATA}
        data = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": self.raw.get("spec") or {}}
        try:
            return EvolutionRun.model_validate(data)
        except ValidationError as error:
            raise ClusterError(
                f"the spec of {KIND} {self.name} cannot be read by this version of Perseid: {_first(error)}. Was it"
                " applied with a newer version? Update this one"
            ) from error

    def known_status(self) -> EvolutionRunStatus:
        """The status. Raises ClusterError where there is none, or it cannot be read."""
        if self.problem:
            raise ClusterError(
                f"the status of {KIND} {self.name} cannot be read by this version of Perseid: {self.problem}. Does a"
                " newer operator write it? Update this one"
            )
        if self.status is None:
            who = self.managed_by or "Perseid's operator"
            raise ClusterError(
                f"{KIND} {self.name} in namespace {self.namespace} has no status yet: {who} has not taken it up. Does"
                " it run, and does it watch this namespace?"
            )
        return self.status

    def row(self) -> dict[str, Any]:
        """What `perseid get -o json` says of it."""
        columns = None if self.status is None else self.status.columns
        return {
            "namespace": self.namespace,
            "name": self.name,
            "phase": self.phase,
            "reason": self.reason,
            "generations": "" if columns is None else columns.generation,
            "done": round(self.done, 4),
            "stage": self.stage,
            "score": "" if columns is None else columns.score,
            "best": "" if columns is None else columns.best,
            "gpu_hours": "" if columns is None else columns.gpu_hours,
            "created": None if self.created is None else self.created.isoformat(),
            "url": self.url,
        }


def seen_run(raw: dict[str, Any]) -> SeenRun:
    """Read an object."""
    metadata = _mapping(raw.get("metadata"))
    status, problem = None, ""
    if raw.get("status"):
        try:
            status = EvolutionRunStatus.model_validate(raw["status"])
        except ValidationError as error:
            problem = _first(error)
    try:
        created = _TIMESTAMP.validate_python(metadata.get("creationTimestamp"))
    except ValidationError:
        created = None
    return SeenRun(
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata.get("name", "")),
        uid=str(metadata.get("uid", "")),
        created=created,
        raw=raw,
        status=status,
        problem=problem,
    )


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(error: ValidationError) -> str:
    details = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, details['loc']))}: {details['msg']}"
