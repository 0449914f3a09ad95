"""When two specs ask for the same: the digest of a spec, and what differs between two."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from perseid.api.base import replace
from perseid.api.fields import FieldPath, spell
from perseid.api.lifecycle import LifecycleSpec
from perseid.api.spec import EvolutionRun, EvolutionRunSpec

MAY_CHANGE: frozenset[FieldPath] = frozenset(
    {
        *(("spec", field.alias or name) for name, field in LifecycleSpec.model_fields.items() if name != "managed_by"),
        ("spec", "generations", "max"),
        ("spec", "generations", "approval"),
    }
)
"""What may change while a run exists: when it pauses, how far it goes, what bounds it. Everything else makes another
run, because generations that were made under different settings cannot be compared."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs."""

    path: str
    """As in the file: `spec.finetune.lora.rank`."""
    old: object
    """None where it was absent."""
    new: object
    may_change: bool
    """Whether a run may go on with it."""

    def __str__(self) -> str:
        return f"{self.path}: {_show(self.old)} -> {_show(self.new)}"


def spec_digest(spec: EvolutionRunSpec) -> str:
    """The fingerprint of what a run must keep when it is resumed: `sha256:` and 64 hexadecimal digits.

    It covers every field of the resolved spec, defaults included, except those of MAY_CHANGE. The order of fields in
    the file and defaults written out do not matter. A version of Perseid with other fields or other defaults
    gives another digest for the same file: to decide whether a run may go on, load both specs and use `spec_changes`.
    """
    data = {"spec": _plain(spec)}
    for path in MAY_CHANGE:
        parent: Any = data
        for part in path[:-1]:
            parent = parent[part]
        del parent[path[-1]]
    canonical = json.dumps(data["spec"], sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def definition(run: EvolutionRun) -> EvolutionRun:
    """The run with every field of MAY_CHANGE at its default, and without labels and annotations: what stages and the
    compiled pipeline are made of, so that neither changes when a run is paused, prolonged, approved or labelled.
    `kubectl apply` keeps the whole file in an annotation, which would double the pipeline's parameters."""
    spec = run.spec
    plain = LifecycleSpec()
    defaults = {name: getattr(plain, name) for name in LifecycleSpec.model_fields if name != "managed_by"}
    generations = replace(spec.generations, max=1, approval="automatic")
    metadata = replace(run.metadata, labels={}, annotations={})
    return replace(run, metadata=metadata, spec=replace(spec, **defaults, generations=generations))


def spec_changes(old: EvolutionRunSpec, new: EvolutionRunSpec) -> list[Change]:
    """The fields that differ, in the order of the documentation. A run directory made with `old` may be resumed with
    `new` when every change says `may_change`."""
    found: list[tuple[FieldPath, object, object]] = []
    _compare(_plain(old), _plain(new), ("spec",), found)
    return [Change(spell(path), before, after, path in MAY_CHANGE) for path, before, after in found]


def _plain(spec: EvolutionRunSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", by_alias=True)


def _compare(old: Any, new: Any, path: FieldPath, found: list[tuple[FieldPath, object, object]]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            _compare(old.get(key), new.get(key), (*path, key), found)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            _compare(before, after, (*path, index), found)
    elif old != new or type(old) is not type(new):
        found.append((path, old, new))


def _show(value: object) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
