"""An EvolutionRun as Kubernetes shows it, read into the contract's models."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from perseid.api.base import API_VERSION
from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus
from perseid_operator.kube.protocol import Object

FINALIZER = f"{API_VERSION.split('/')[0]}/cleanup"
"""Keeps a deleted object until its pipeline runs have ended."""
MAX_SHARED = 64
"""Longest text that is looked for among others: longer ones are never the same."""
MANAGER = "perseid.dev/operator"
"""The value of `spec.managedBy` that means this operator, as none does."""


class BadObjectError(Exception):
    """The API server took an object that the contract does not take: the CRD is older or newer than the operator."""


@dataclass(frozen=True, slots=True)
class RunObject:
    """One version of one object."""

    raw: Object
    run: EvolutionRun
    namespace: str
    name: str
    uid: str
    generation: int

    @property
    def deleting(self) -> bool:
        """Whether somebody has asked to delete it."""
        return self.raw["metadata"].get("deletionTimestamp") is not None


def read_object(raw: Object) -> RunObject:
    """Read one. Raises BadObjectError, which says which field."""
    metadata = raw["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "labels", "annotations") if key in metadata}
    try:
        run = EvolutionRun.model_validate({"metadata": kept, "spec": raw.get("spec") or {}})
    except ValidationError as error:
        raise BadObjectError(
            f"this version of the operator cannot read the spec: {_first(error)}; do the CRD and the operator belong to"
            " the same release?"
        ) from error
    return RunObject(
        raw, run, metadata["namespace"], metadata["name"], metadata["uid"], int(metadata.get("generation", 0))
    )


def read_status(raw: Object) -> EvolutionRunStatus:
    """The status that is written, or a fresh one. Raises BadObjectError."""
    uid = raw["metadata"]["uid"]
    written: Mapping[str, Any] = raw.get("status") or {}
    if not written:
        return EvolutionRunStatus(uid=uid)
    try:
        return EvolutionRunStatus.model_validate({"uid": uid, **written})
    except ValidationError as error:
        raise BadObjectError(f"this version of the operator cannot read the status: {_first(error)}") from error


def status_to_json(status: EvolutionRunStatus) -> dict[str, Any]:
    """The status as Kubernetes keeps it: what is absent is left out."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def is_ours(raw: Object) -> bool:
    """Whether this operator is to carry the run through."""
    return (raw.get("spec") or {}).get("managedBy") in (None, MANAGER)


def needs_work(raw: Object) -> bool:
    """Whether there is anything left to do, apart from deleting it in time: it has not ended, a run of it has not, or
    its spec was changed since anybody looked."""
    status: Mapping[str, Any] = raw.get("status") or {}
    ended = status.get("phase") in ("Completed", "Failed") and not status.get("stopping")
    stale = status.get("observedGeneration") != raw["metadata"].get("generation", 0)
    return is_ours(raw) and (not ended or stale)


def leaves_files(raw: Object) -> bool:
    """Whether the run has files that are to be deleted before the object goes."""
    status: Mapping[str, Any] = raw.get("status") or {}
    wanted = (raw.get("spec") or {}).get("reclaimPolicy") == "delete"
    return wanted and is_ours(raw) and bool(status.get("generations"))


def compact(raw: Object) -> Object:
    """The object without what nobody here reads, and with each text that many have kept once: a thousand objects stay
    in memory, and weigh a quarter then."""
    metadata = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    found: Object = _compact({**raw, "metadata": metadata})
    return found


def _compact(value: Any) -> Any:
    match value:
        case dict():
            return {sys.intern(key): _compact(inner) for key, inner in value.items()}
        case list():
            return [_compact(inner) for inner in value]
        case str() if len(value) <= MAX_SHARED:
            return sys.intern(value)
    return value


def is_held(raw: Object) -> bool:
    """Whether the object stays until somebody has cleaned up after it. Nothing may be started for one that may go at
    any moment."""
    return FINALIZER in raw["metadata"].get("finalizers", ())


def _first(error: ValidationError) -> str:
    details = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, details['loc']))}: {details['msg']}"
