"""What KFP's UI shows of a stage, beside its scalars: yields as a table, scores to compare, a page, and models.

Weights are never part of it: KFP copies artifacts whole into every step. A model's artifact holds its manifest, and
says where the weights lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from perseid.api.attempt import Attempt
from perseid.api.files import DROPPED, YIELD
from perseid.api.layout import Layout
from perseid.api.result import GenerationResult, Score, StageResult, YieldCounts, parse_result
from perseid.api.stages import SHARDED_STAGE, StageName
from perseid.data.jsonl import read_jsonl
from perseid.data.records import Dropped
from perseid.report.page import generation_page
from perseid.stages.yields import count_yield
from perseid.storage.stage import StageStorage
from perseid.training.manifest import MANIFEST_NAME, ModelManifest

if TYPE_CHECKING:
    from kfp import dsl

MODEL_MANIFEST = f"model/{MANIFEST_NAME}"


class StageArtifacts:
    """Writes the artifacts of a stage that is done."""

    def __init__(self, attempt: Attempt, stage: StageName, result: StageResult) -> None:
        self._attempt = attempt
        self._stage = stage
        self._result = result
        self._layout = Layout.of(attempt)
        self._storage = None if self._layout.uri is None else StageStorage(self._layout, stage)

    def model(self, artifact: dsl.Model) -> None:
        """The model that the stage has made: its manifest, where it lies, and what it was made of."""
        manifest = self._output(MODEL_MANIFEST)
        if not manifest.exists():
            Path(artifact.path).write_text("{}\n")
            artifact.metadata["skipped"] = "too few training records, or no gain"
            return
        self._describe(artifact, manifest.read_bytes(), self._layout.location(manifest.parent))

    def yields(self, artifact: dsl.Markdown) -> None:
        """What became of what could have been training data."""
        counts = self._yield_counts()
        text = "No training data.\n" if counts is None else yield_table(counts)
        Path(artifact.path).write_text(text)

    def generation(self, scores: dsl.Metrics, page: dsl.HTML, candidate: dsl.Model) -> None:
        """What the generation was worth: scores by set, a page, and its model where it has one."""
        if self._storage is not None:
            self._storage.fetch_attempt_result()
        result = parse_result(self._layout.result.read_bytes())
        for name, value in set_scores(result):
            scores.log_metric(name, value)
        Path(page.path).write_text(generation_page(self._attempt.run.metadata.name, result), encoding="utf-8")
        self._candidate(candidate, result)

    def _candidate(self, artifact: dsl.Model, result: GenerationResult) -> None:
        made = [stage for stage in self._attempt.run.spec.stages if self._output(MODEL_MANIFEST, stage).exists()]
        if result.candidate is None or not made:
            Path(artifact.path).write_text("{}\n")
            artifact.metadata["skipped"] = result.reason or "the generation made no model"
            return
        self._describe(artifact, self._output(MODEL_MANIFEST, made[-1]).read_bytes(), result.candidate.uri)
        artifact.metadata["start_model"] = self._attempt.start_model
        artifact.metadata["start_model_id"] = result.parent_model_id or ""
        if result.dev is not None and result.dev.candidate is not None and result.dev.gain is not None:
            artifact.metadata["pass_at_1"] = result.dev.candidate.pass_at_1
            artifact.metadata["gain"] = result.dev.gain.value

    def _describe(self, artifact: dsl.Model, manifest: bytes, uri: str) -> None:
        Path(artifact.path).write_bytes(manifest)
        known = ModelManifest.model_validate_json(manifest)
        artifact.metadata.update(
            uri=uri,
            model_id=known.model_id,
            generation=self._attempt.generation,
            base=known.base_ref,
            base_model_id=known.base_model_id,
            data_digest=known.data_digest,
        )

    def _yield_counts(self) -> YieldCounts | None:
        if self._stage == SHARDED_STAGE:  # what it makes are plans
            dropped = read_jsonl(self._output(DROPPED), Dropped, may_be_empty=True)
            return count_yield(self._result.counts["plans"], dropped)
        path = self._output(YIELD)
        return YieldCounts.model_validate_json(path.read_bytes()) if path.exists() else None

    def _output(self, name: str, stage: StageName | None = None) -> Path:
        """A file that a stage has written; it is there if the stage has written it."""
        stage = stage or self._stage
        if self._storage is not None:
            self._storage.fetch_output(stage, name)
        return self._layout.stage(stage) / name


def yield_table(counts: YieldCounts) -> str:
    """Markdown: kept, dropped by reason the most frequent first, and the total."""
    by_count = sorted(counts.dropped.items(), key=lambda one: (-one[1], one[0]))
    rows = [("kept", counts.kept), *((f"dropped: {reason}", count) for reason, count in by_count)]
    lines = ["| what became of it | count | share |", "|---|---:|---:|"]
    for name, count in [*rows, ("total", counts.total)]:
        cell = name.replace("|", "\\|").replace("\n", " ")
        share = f"{count / counts.total:.1%}" if counts.total else ""
        lines.append(f"| {cell} | {count} | {share} |")
    return "\n".join(lines) + "\n"


def set_scores(result: GenerationResult) -> Iterator[tuple[str, float]]:
    """Scalars by set, called the same in every generation, so that runs can be compared."""
    for one in [*([] if result.dev is None else [result.dev]), *result.test]:
        yield from _of_model(f"{one.name}_start", one.parent)
        if one.candidate is not None and one.gain is not None:
            yield from _of_model(one.name, one.candidate)
            yield f"{one.name}_gain", one.gain.value
            yield f"{one.name}_gain_low", one.gain.low
            yield f"{one.name}_gain_high", one.gain.high


def _of_model(prefix: str, score: Score) -> Iterator[tuple[str, float]]:
    for k, value in sorted((score.pass_at or {"1": score.pass_at_1}).items(), key=lambda one: int(one[0])):
        yield f"{prefix}_pass_at_{k}", value
    yield f"{prefix}_low", score.low
    yield f"{prefix}_high", score.high
