"""A generation's stages, as far as they have come."""

from __future__ import annotations

from dataclasses import dataclass

from perseid.api.files import YIELD
from perseid.api.layout import RESULT, Layout
from perseid.api.result import StageResult, YieldCounts
from perseid.api.status import EvolutionRunStatus, GenerationStatus
from perseid.report.files import read_document
from perseid.training.manifest import MANIFEST_NAME, ModelManifest


@dataclass(frozen=True, slots=True)
class StageView:
    """A stage of the attempt that is shown."""

    name: str
    state: str
    """`done`, `failed`, `begun`, `to come`, or `not run` where its generation is over without it."""
    result: StageResult | None
    yields: YieldCounts | None
    """What became of what could have been training data; None for a stage that makes none."""
    manifest: ModelManifest | None
    """Of the model that it made."""


def shown_attempt(status: EvolutionRunStatus, known: GenerationStatus) -> int:
    """The attempt that gave the result, the one under way, or the newest."""
    if known.result is not None:
        return next(one.number for one in known.attempts if one.run_id == known.result.run_id)
    if status.current is not None and status.current.generation == known.index:
        return status.current.attempt
    return known.attempts[-1].number if known.attempts else 0


def read_stage(layout: Layout, name: str, *, over: bool) -> StageView:
    """What a stage has written; `over` where its generation has ended. Raises DataError."""
    directory = layout.stage(name)
    result = read_document(directory / RESULT, StageResult)
    absent = "not run" if over else "begun" if directory.exists() else "to come"
    return StageView(
        name=name,
        state=absent if result is None else result.state,
        result=result,
        yields=read_document(directory / YIELD, YieldCounts),
        manifest=read_document(directory / "model" / MANIFEST_NAME, ModelManifest),
    )
