"""A run at a glance, at any moment: its stages, yields and scores so far. Reads no trees and no answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perseid.api.layout import PROGRESS, RESULT, Layout, part_names
from perseid.api.progress import Progress, read_progress
from perseid.api.reasons import AttemptState
from perseid.api.result import GenerationResult, StageResult, StageUsage, YieldCounts
from perseid.api.spec import EvolutionRun
from perseid.api.stages import StageName
from perseid.api.status import EvolutionRunStatus, GenerationStatus
from perseid.report.files import read_document
from perseid.report.scores import ScoresView, score_views
from perseid.report.stages import read_stage, shown_attempt
from perseid.report.summary import status_message


@dataclass(frozen=True, slots=True)
class StageLine:
    """A stage in a line."""

    name: str
    state: str
    """`done`, `failed`, `begun`, `to come`, or `not run` where its generation is over without it."""
    counts: dict[str, int]
    usage: StageUsage | None
    """None before it has ended."""
    error: str | None
    progress: Progress | None
    """Of a stage that is under way."""
    shards: tuple[int, int] | None
    """Those that are done, and all; None where the stage has none."""


@dataclass(frozen=True, slots=True)
class GenerationLines:
    """One generation, by the attempt that gave its result or by its newest."""

    index: int
    phase: str
    message: str
    attempt: int
    failed_attempts: list[str]
    """What ended those that failed, as far as the status still has them."""
    stages: list[StageLine]
    yields: YieldCounts | None
    """What became of the answers that could have been training data; None before there are any."""
    model: str | None
    """Where the model is that it made."""


@dataclass(frozen=True, slots=True)
class Overview:
    """A run at a glance."""

    name: str
    phase: str
    message: str
    methods: list[str]
    start: str
    """The model that the run started from."""
    model: str
    """Where the best model is: a directory, a URI, or the start model's reference."""
    promoted_generation: int | None
    """None where the best model is still the one that the run started from."""
    confidence: float
    scores: list[ScoresView]
    generations: list[GenerationLines]
    missing_generations: list[int]
    """Earlier ones that nothing is known of."""
    usage: StageUsage
    """Of all stages that have ended."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        plain["usage"] = self.usage.model_dump(by_alias=False)
        for written, known in zip(plain["generations"], self.generations, strict=True):
            written["yields"] = None if known.yields is None else known.yields.model_dump(by_alias=False)
            for line, stage in zip(written["stages"], known.stages, strict=True):
                line["usage"] = None if stage.usage is None else stage.usage.model_dump(by_alias=False)
                line["progress"] = None if stage.progress is None else stage.progress.model_dump()
        return plain


def read_overview(run: EvolutionRun, status: EvolutionRunStatus, root: Path) -> Overview:
    """Everything below `root`, the run's directory, whether the run is over or not. Raises DataError."""
    layouts = {one.index: Layout(root, one.index, shown_attempt(status, one)) for one in status.generations}
    results = {index: read_document(layout.result, GenerationResult) for index, layout in layouts.items()}
    generations = [_generation(run, one, layouts[one.index], results[one.index]) for one in status.generations]
    promoted = status.promoted
    return Overview(
        name=run.metadata.name,
        phase=status.phase.value,
        message=status_message(status),
        methods=list(run.spec.methods),
        start=run.spec.model.ref,
        model=run.spec.model.ref if promoted is None else promoted.uri,
        promoted_generation=None if promoted is None or promoted.is_base else promoted.generation,
        confidence=run.spec.evaluation.confidence,
        scores=score_views((results[one.index], one.phase.value) for one in status.generations),
        generations=generations,
        missing_generations=missing_generations(status),
        usage=StageUsage.sum(stage.usage for one in generations for stage in one.stages if stage.usage is not None),
    )


def missing_generations(status: EvolutionRunStatus) -> list[int]:
    """Generations before the newest that the status does not have."""
    known = {one.index for one in status.generations}
    return [index for index in range(max(known, default=0)) if index not in known]


def missing_sentence(missing: list[int]) -> str:
    """What is to be said of generations that nothing is known of; empty without any."""
    if not missing:
        return ""
    names = ", ".join(map(str, missing))
    which, them = (f"Generation {names} is", "it") if len(missing) == 1 else (f"Generations {names} are", "them")
    return f"{which} not shown: what was decided about {them} is kept nowhere that can be read."


def _generation(
    run: EvolutionRun, known: GenerationStatus, layout: Layout, result: GenerationResult | None
) -> GenerationLines:
    over = known.finished_at is not None
    stages = [read_stage(layout, name, over=over) for name in run.spec.stages]
    counted = [stage.yields for stage in stages if stage.yields is not None]
    return GenerationLines(
        index=known.index,
        phase=known.phase.value,
        message="" if known.result is None else known.result.message,
        attempt=layout.attempt,
        failed_attempts=[f"{one.number}: {one.message}" for one in known.attempts if one.state is AttemptState.FAILED],
        stages=[
            StageLine(
                name=stage.name,
                state=stage.state,
                counts={} if stage.result is None else dict(stage.result.counts),
                usage=None if stage.result is None else stage.result.usage,
                error=None if stage.result is None else stage.result.error,
                progress=_progress(layout, name) if stage.state == "begun" else None,
                shards=_shards(layout, name, run.spec.pipeline.shards),
            )
            for name, stage in zip(run.spec.stages, stages, strict=True)
        ],
        # A generation's result has the sum of its stages' yields; before that they are summed here.
        yields=result.yields if result is not None else YieldCounts.sum(counted) if counted else None,
        model=None if known.candidate is None else known.candidate.uri,
    )


def _progress(layout: Layout, stage: StageName) -> Progress | None:
    """Of the stage itself, or of its first shard that is not done."""
    under_way = [part for part in layout.parts(stage) if read_document(part / RESULT, StageResult) is None]
    found = (read_progress(part / PROGRESS) for part in reversed(under_way))
    return next((progress for progress in found if progress is not None), None)


def _shards(layout: Layout, stage: StageName, shards: int) -> tuple[int, int] | None:
    names = part_names(stage, shards)[:-1]
    if not names:
        return None
    results = (read_document(layout.stage(name) / RESULT, StageResult) for name in names)
    return sum(1 for one in results if one is not None and one.state == "done"), len(names)
