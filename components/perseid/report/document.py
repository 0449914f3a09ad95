"""A report's content: everything that a run's directory says, bounded, as plain values. No clock and no layout here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import yaml

from perseid import __version__
from perseid.api.files import ANSWERS, CANDIDATES, DROPPED, SAMPLES, SCORES, TREES, YIELD
from perseid.api.layout import RESULT, Layout
from perseid.api.result import GenerationResult, StageUsage
from perseid.api.spec import EvolutionRun
from perseid.api.status import AttemptStatus, EvolutionRunStatus, GenerationStatus
from perseid.evaluation.calibration import Observation
from perseid.evaluation.scores import AnswerRecord
from perseid.report.calibrations import EvaluatorView, Finding, evaluators, learning_finding, search_finding
from perseid.report.files import read_document, read_records
from perseid.report.gains import GainsView, read_gains
from perseid.report.meteor import METEOR_FILES, MeteorView, read_meteor
from perseid.report.overview import missing_generations, missing_sentence
from perseid.report.samples import AnswersView, read_answers
from perseid.report.scores import ScoresView, score_views
from perseid.report.stages import StageView, read_stage, shown_attempt
from perseid.report.summary import Summary, evaluation_places, summarise
from perseid.report.trees import SearchView, read_search
from perseid.training.manifest import MANIFEST_NAME

TREES_SHOWN, SAMPLES_SHOWN, QUESTIONS_SHOWN = 40, 80, 40
"""In a whole report; every generation has its share of them, and not less than LEAST_SHOWN."""
LEAST_SHOWN = 4

FILES = frozenset({RESULT, YIELD, SCORES, ANSWERS, TREES, CANDIDATES, SAMPLES, DROPPED, MANIFEST_NAME, *METEOR_FILES})
"""Names of the files that a report reads: neither journals nor weights."""


@dataclass(frozen=True, slots=True)
class GenerationView:
    """One generation, by its newest attempt or by that which gave its result."""

    index: int
    phase: str
    message: str
    attempt: int
    attempts: list[AttemptStatus]
    stages: list[StageView]
    result: GenerationResult | None
    search: SearchView | None
    answers: AnswersView | None
    meteor: MeteorView | None
    gains: list[GainsView]
    evaluators: list[EvaluatorView]
    findings: list[Finding]

    @property
    def usage(self) -> StageUsage:
        """Of its stages that have ended."""
        return StageUsage.sum(stage.result.usage for stage in self.stages if stage.result is not None)


@dataclass(frozen=True, slots=True)
class Report:
    """What a report says."""

    name: str
    uid: str
    made_at: datetime
    version: str
    phase: str
    over: bool
    message: str
    model: str
    """The one that the run started from."""
    methods: list[str]
    summary: Summary
    seconds: float
    """Time in stages, those of a generation that is not over included."""
    tokens: int
    """Made by models in that time."""
    scores: list[ScoresView]
    generations: list[GenerationView]
    missing: str
    """What is to be said of earlier generations that nothing is known of; empty without any."""
    evaluators: list[EvaluatorView]
    """Of answers to evaluation sets."""
    findings: list[Finding]
    configuration: str
    """The accepted run, whole, as YAML."""
    digests: list[tuple[str, str]] = field(default_factory=list)
    """What it is, and the digest."""


def is_shown(key: str) -> bool:
    """Whether a report reads the file of that name below a run's root."""
    return key.rpartition("/")[2] in FILES


def read_report(run: EvolutionRun, status: EvolutionRunStatus, root: Path, now: datetime) -> Report:
    """Everything below `root`, the run's directory, whether the run is over or not. Raises DataError."""
    known = list(status.generations)
    share = max(1, len(known))
    generations = [_generation(run, status, one, root, share) for one in known]
    findings = [finding for one in generations for finding in one.findings]
    summary = summarise(run, status, root)
    begun = [stage.result for one in generations if one.result is None for stage in one.stages]
    unfinished = [one.usage for one in begun if one is not None]
    return Report(
        name=run.metadata.name,
        uid=status.uid,
        made_at=now,
        version=__version__,
        phase=status.phase.value,
        over=status.phase.is_terminal,
        message=summary.message,
        model=run.spec.model.ref,
        methods=list(run.spec.methods),
        summary=summary,
        seconds=summary.seconds + sum(one.seconds for one in unfinished),
        tokens=summary.completion_tokens + sum(one.completion_tokens for one in unfinished),
        scores=score_views((one.result, one.phase) for one in generations),
        generations=generations,
        missing=missing_sentence(missing_generations(status)),
        evaluators=_of_evaluations(run, generations, root),
        findings=findings,
        configuration=_configuration(run),
        digests=list(_digests(status, generations)),
    )


def _generation(
    run: EvolutionRun, status: EvolutionRunStatus, known: GenerationStatus, root: Path, share: int
) -> GenerationView:
    number = shown_attempt(status, known)
    layout = Layout(root, known.index, number)
    result = read_document(layout.result, GenerationResult)
    answers = read_answers(layout.stage("convert"), _part(SAMPLES_SHOWN, share))
    outcomes = {} if answers is None else answers.outcomes
    search = read_search(layout.stage("synthesize"), outcomes, _part(TREES_SHOWN, share))
    meteor = read_meteor(layout.attempt_directory, _part(QUESTIONS_SHOWN, share))
    observations: dict[str, list[Observation]] = {}
    for view in (search, answers, meteor):
        if view is not None:
            observations |= view.observations
    change = None if meteor is None or meteor.agreement is None else meteor.agreement.auc
    spec = run.spec.evaluation
    measured = evaluators(observations, resamples=spec.bootstrap, confidence=spec.confidence, seed=run.spec.seed)
    return GenerationView(
        index=known.index,
        phase=known.phase.value,
        message="" if known.result is None else known.result.message,
        attempt=number,
        attempts=known.attempts,
        stages=[read_stage(layout, stage, over=known.finished_at is not None) for stage in run.spec.stages],
        result=result,
        search=search,
        answers=answers,
        meteor=meteor,
        gains=[] if result is None else read_gains(run, result, root),
        evaluators=measured,
        findings=[
            finding
            for finding in (
                search_finding(measured, f"the search of generation {known.index}"),
                learning_finding(measured, change, f"the learner of generation {known.index}"),
            )
            if finding is not None
        ],
    )


def _part(most: int, generations: int) -> int:
    return max(LEAST_SHOWN, most // generations)


def _of_evaluations(run: EvolutionRun, generations: list[GenerationView], root: Path) -> list[EvaluatorView]:
    """Likelihood of answers to evaluation sets: of the base, and of each generation's own model."""
    names: dict[str, str] = {}
    for generation in generations:
        if generation.result is None:
            continue
        names.setdefault(generation.result.parent_model_id or "", "the base model")
        if generation.result.candidate is not None:
            names.setdefault(generation.result.candidate.model_id or "", f"generation {generation.index}'s model")
    places = evaluation_places(root)
    observations = {
        f"likelihood of answers to {title} by {names[model]}": [
            Observation(one.problem_id, one.mean_logprob, one.passed)
            for one in read_records(places[title, model] / ANSWERS, AnswerRecord)
        ]
        for title in dict.fromkeys(title for title, _ in places)
        for model in names
        if (title, model) in places
    }
    spec = run.spec.evaluation
    return evaluators(observations, resamples=spec.bootstrap, confidence=spec.confidence, seed=run.spec.seed)


def _configuration(run: EvolutionRun) -> str:
    plain = run.model_dump(mode="json", by_alias=True)
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100))


def _digests(status: EvolutionRunStatus, generations: list[GenerationView]) -> Iterable[tuple[str, str]]:
    if status.spec_digest is not None:
        yield "specification of the run", status.spec_digest
    if status.snapshot is not None:
        yield "compiled pipeline", status.snapshot.pipeline_digest
    for generation in generations:
        where = f"generation {generation.index}"
        if generation.result is not None and generation.result.parent_model_id is not None:
            yield f"{where}: weights it started from", generation.result.parent_model_id
        for stage in generation.stages:
            if stage.manifest is not None:
                yield f"{where}, {stage.name}: training data", stage.manifest.data_digest
                yield f"{where}, {stage.name}: training settings", stage.manifest.config_digest
                yield f"{where}, {stage.name}: weights it made", stage.manifest.model_id
