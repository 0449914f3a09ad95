"""METEOR's third stage: the learner learns from what it finds by expensive decoding. No mentor is asked.

Turn by turn: every train question is decoded cheaply and expensively, pairs are made of the answers, and the model is
trained to prefer the expensive ones. A turn without a gain on dev is rolled back and ends the stage.

Writes `turns/NNN/pairs.jsonl` and `answers.jsonl` of each turn, `dropped.jsonl`, `yield.json`, `rounds/` (a trial each)
and `model/`, or no model where no turn stayed. Source: METEOR (arXiv 2411.11933), stage 3; methods ME8 to ME10.
"""

from __future__ import annotations

from pathlib import Path

from perseid.api.files import ANSWERS, DROPPED, PAIRS, TURNS, YIELD
from perseid.api.layout import JOURNAL
from perseid.api.result import StageResult
from perseid.data.jsonl import write_json, write_jsonl
from perseid.data.records import Dropped, PreferencePair
from perseid.engines.journal import Journal
from perseid.meteor.calls import derive_seed
from perseid.meteor.decoding import DecodingSettings
from perseid.meteor.pairs import Paired, make_pairs
from perseid.stages.context import StageContext
from perseid.stages.errors import StageError
from perseid.stages.learner import Learner, Train
from perseid.stages.lineage import BaseModel, resolve_base_model
from perseid.stages.question_search import question_search
from perseid.stages.questions import TrainQuestions, train_questions
from perseid.stages.roles import open_judges
from perseid.stages.scoring import question_sets, verifier
from perseid.stages.spending import open_budget, recorded_usage
from perseid.stages.training import train_on_pairs
from perseid.stages.yields import count_yield, dropped_metrics
from perseid.training.job import TrainingResult


async def run(context: StageContext) -> StageResult:
    """Take turns until one brings no gain."""
    spec = context.spec.meteor.self_evolution
    questions = train_questions(context)
    base = await resolve_base_model(context)
    dev = next(one for one in question_sets(context) if one.decides)
    dropped: list[Dropped] = list(questions.dropped)
    pairs = 0
    with Journal(context.directory / JOURNAL) as journal:
        async with (
            open_judges(context, open_budget(context)) as judges,
            Learner.opened(context, base, journal, dev, verifier(None, judges)) as learner,
        ):
            first = learner.score.at(1).value
            for turn in range(1, spec.max_turns + 1):
                paired = await _paired(context, learner, questions, turn)
                dropped += paired.dropped
                pairs += len(paired.pairs)
                if len(paired.pairs) < context.spec.finetune.min_samples:
                    break
                trial = await learner.attempt(_training(context, paired.pairs, turn), "pairs", lambda gain: gain > 0.0)
                if not trial.stayed:
                    break
            judges.raise_if_dead()
            learner.commit()
    yields = count_yield(pairs, dropped)
    write_jsonl(context.directory / DROPPED, dropped)
    write_json(context.directory / YIELD, yields)
    rolled_back = sum(1 for trial in learner.trials if not trial.stayed)
    counts = {"pairs": pairs, "turns": len(learner.trials), "rolled back": rolled_back}
    return StageResult(
        stage=context.stage,
        state="done",
        counts=counts,
        metrics={
            "pairs": pairs,
            "turns": len(learner.trials),
            "rolled_back": rolled_back,
            **dropped_metrics(yields),
            "dev_before": first,
            "dev_after": learner.score.at(1).value,
        },
        usage=recorded_usage(context),
    )


async def _paired(context: StageContext, learner: Learner, questions: TrainQuestions, turn: int) -> Paired:
    spec = context.spec.meteor.self_evolution
    seed = derive_seed(context.seed, "turn", turn)
    settings = DecodingSettings(
        seed,
        spec.sampling,
        n=spec.samples,
        critique=spec.critique,
        decoders={"search": question_search(learner.engine, spec.search, spec.sampling, seed)},
    )
    context.progress.begin(f"decoding, turn {turn}", unit="questions")
    learner.engine.on_call = lambda calls: context.progress.say(f"{calls} model calls")
    paired = await make_pairs(
        questions.kept, learner.engine, spec.cheap, spec.expensive, settings, margin=spec.critique_margin
    )
    learner.engine.raise_if_dead()
    failed = [one for one in paired.dropped if one.reason == "learner-failed"]
    if len(failed) == len(questions.kept) * len(spec.expensive):
        first = failed[0]
        raise StageError(f"the learner could answer no question; the first, {first.problem_id}, with: {first.detail}")
    place = context.directory / TURNS / f"{turn:03d}"
    write_jsonl(place / PAIRS, paired.pairs)
    write_jsonl(place / ANSWERS, paired.answers)
    return paired


def _training(context: StageContext, pairs: tuple[PreferencePair, ...], turn: int) -> Train:
    spec = context.spec.meteor.self_evolution

    async def train(base: BaseModel, output: Path, work: Path) -> TrainingResult:
        return await train_on_pairs(context, pairs, base, output, work, spec, f"training on pairs, turn {turn}")

    return train
