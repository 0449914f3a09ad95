"""The model that a stage works with, which trainings replace where they do no harm.

A trial is a training, a score on dev, and a decision: the new model stays, or the one before goes on (methods ME6,
ME10). Each is written down in the stage's `rounds/NNN/trial.json`, so that a stage which was killed makes none twice;
of models that are not needed any more only that file is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from perseid.api.files import ROUNDS, TRIAL
from perseid.data.jsonl import write_json
from perseid.engines.journal import Journal
from perseid.engines.models import ResolvedModel, resolve_model
from perseid.evaluation.scores import EvaluationResult, compare
from perseid.meteor.records import Learned, Trial
from perseid.stages.context import StageContext
from perseid.stages.lineage import MODEL, WORK, BaseModel, commit_model
from perseid.stages.models import StageModel, open_model
from perseid.stages.scoring import ScoredSet, Verify, fetch_scores, score_engine
from perseid.training.job import TrainingResult

Train = Callable[[BaseModel, Path, Path], Awaitable[TrainingResult]]
"""From a base to a model: base, output directory, work directory. Made again after a kill, it goes on."""


@dataclass(slots=True)
class Learner:
    """The newest model that stayed, opened, and its score on dev."""

    context: StageContext
    journal: Journal
    dev: ScoredSet
    verify: Verify
    model: BaseModel
    engine: StageModel
    score: EvaluationResult
    trials: list[Trial] = field(default_factory=list)
    _opened: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @staticmethod
    @contextlib.asynccontextmanager
    async def opened(
        context: StageContext, base: BaseModel, journal: Journal, dev: ScoredSet, verify: Verify
    ) -> AsyncIterator[Learner]:
        """Open and score the stage's base; closes whichever model is open in the end."""
        await fetch_scores(context)
        async with contextlib.AsyncExitStack() as stack:
            engine = await stack.enter_async_context(open_model(context, base.resolved, journal))
            score = (await score_engine(context, engine, [dev], "the learner", verify))[dev.title]
            learner = Learner(context, journal, dev, verify, base, engine, score, [], stack.pop_all())
            try:
                yield learner
            finally:
                await learner._opened.aclose()

    async def attempt(self, train: Train, learned: Learned, may_stay: Callable[[float], bool]) -> Trial:
        """Train the model and keep what came of it where `may_stay` says so of its gain on dev (-1 to 1)."""
        number = len(self.trials) + 1
        place = self.context.directory / ROUNDS / f"{number:03d}"
        trial = _read(place / TRIAL)
        if trial is None:
            trial = await self._attempted(number, place, train, learned, may_stay)
        elif trial.stayed:
            # The model may be gone, where a later one has stayed: every call that it answered is in the journal.
            path = place / MODEL
            await self._go_on_with(BaseModel(str(path), ResolvedModel(path, trial.model_id)))
            self.score = await self._scored()
        self.trials.append(trial)
        return trial

    async def _attempted(
        self, number: int, place: Path, train: Train, learned: Learned, may_stay: Callable[[float], bool]
    ) -> Trial:
        before, score = self.model, self.score
        await self._opened.aclose()  # a training needs the memory
        result = await train(before, place / MODEL, place / WORK)
        path = place / MODEL
        candidate = BaseModel(str(path), await asyncio.to_thread(resolve_model, str(path)))
        await self._go_on_with(candidate)
        self.score = await self._scored()
        spec = self.context.spec.evaluation
        paired = compare(
            score, self.score, resamples=spec.bootstrap, confidence=spec.confidence, seed=self.context.spec.seed
        )
        trial = Trial(
            round=number,
            learned=learned,
            model_id=candidate.resolved.model_id,
            steps=result.manifest.metrics.steps,
            dev_before=paired.baseline,
            dev_after=paired.candidate,
            gain=paired.difference,
            low=paired.low,
            high=paired.high,
            stayed=may_stay(paired.difference),
        )
        if not trial.stayed:
            await self._go_on_with(before)
            self.score = score
        write_json(place / TRIAL, trial)
        shutil.rmtree(place / WORK, ignore_errors=True)
        unneeded = before.resolved.path if trial.stayed else path
        if unneeded.is_relative_to(self.context.directory):
            shutil.rmtree(unneeded, ignore_errors=True)
        return trial

    async def _go_on_with(self, model: BaseModel) -> None:
        await self._opened.aclose()
        self.model = model
        opened = open_model(self.context, model.resolved, self.journal)
        self.engine = await self._opened.enter_async_context(opened)

    async def _scored(self) -> EvaluationResult:
        scores = await score_engine(self.context, self.engine, [self.dev], "the trained model", self.verify)
        return scores[self.dev.title]

    def commit(self) -> bool:
        """Make the model that stayed the stage's own; False where none did. The trials' words stay."""
        stayed = any(trial.stayed for trial in self.trials)
        directory = self.context.directory
        if stayed:
            commit_model(self.model.resolved.path, directory / MODEL)
        for path in (directory / ROUNDS).glob(f"*/{MODEL}"):
            shutil.rmtree(path, ignore_errors=True)
        return stayed


def _read(path: Path) -> Trial | None:
    try:
        return Trial.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
