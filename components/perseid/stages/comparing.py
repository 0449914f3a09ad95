"""Answers of two models to the same questions, compared by the judge where it is a model (methods ME11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perseid.api.result import MeanScore, WinRate
from perseid.data.jsonl import write_jsonl
from perseid.data.records import Question
from perseid.engines.together import together
from perseid.evaluation.scores import AnswerRecord
from perseid.meteor.comparing import compare_answers, mean_score, score_answer, win_report
from perseid.stages.context import StageContext
from perseid.stages.models import StageModel
from perseid.stages.roles import open_judges
from perseid.stages.scoring import ScoredSet, answers_of
from perseid.stages.spending import open_budget

COMPARISONS, JUDGED = "comparisons", "judged"


@dataclass(frozen=True, slots=True)
class Compared:
    """What a judge says of two models."""

    wins: list[WinRate]
    """Of the candidate, by set and criterion."""
    judged: list[MeanScore]
    """Of both, by set."""


async def compare_models(
    context: StageContext, parent_id: str, candidate_id: str, sets: Sequence[ScoredSet]
) -> Compared:
    """The candidate's first answers against the parent's, on every set of questions: in both orders, and by themselves.

    Nothing where no model judges. Writes `comparisons/SET.jsonl` and `judged/SET.jsonl`, with every answer of the
    judge. What it cannot judge, or the budget does not allow, is counted, with its reason there.
    """
    compared = Compared([], [])
    if "meteor" not in context.spec.methods or context.spec.meteor.judge.type == "verifier":
        return compared
    async with open_judges(context, open_budget(context)) as judges:
        assert judges.model is not None  # whoever is no verifier has one
        for one in sets:
            questions = [item for item in one.items if isinstance(item, Question)]
            if not questions:
                continue
            answers = {
                "candidate": _first(answers_of(context, candidate_id, one)),
                "parent": _first(answers_of(context, parent_id, one)),
            }
            context.progress.begin(f"comparing answers to {one.title}")
            compared.wins.extend(await _compare(context, judges.model, one.title, questions, answers))
            compared.judged.extend(await _score(context, judges.model, one.title, questions, answers))
            judges.raise_if_dead()
    return compared


def _first(answers: Sequence[AnswerRecord]) -> dict[str, str]:
    """The first answer to each question, by id."""
    return {answer.problem_id: answer.text for answer in answers if answer.sample_index == 0}


async def _compare(
    context: StageContext,
    judge: StageModel,
    title: str,
    questions: Sequence[Question],
    answers: Mapping[str, Mapping[str, str]],
) -> list[WinRate]:
    longest = context.spec.meteor.judge.max_tokens
    candidate, parent = answers["candidate"], answers["parent"]
    records = await together(
        compare_answers(one, candidate[one.id], parent[one.id], judge, max_tokens=longest) for one in questions
    )
    write_jsonl(context.directory / COMPARISONS / f"{title}.jsonl", records)
    report = win_report(records, **_intervals(context))
    return [
        WinRate(
            set=title,
            criterion=share.criterion,
            questions=report.questions,
            unjudged=report.unjudged,
            won=share.won,
            tied=share.tied,
            lost=share.lost,
            win_rate=share.win_share,
            low=share.low,
            high=share.high,
        )
        for share in report.shares
    ]


async def _score(
    context: StageContext,
    judge: StageModel,
    title: str,
    questions: Sequence[Question],
    answers: Mapping[str, Mapping[str, str]],
) -> list[MeanScore]:
    means = []
    for model, of in answers.items():
        records = await together(score_answer(one, of[one.id], judge) for one in questions)
        write_jsonl(context.directory / JUDGED / f"{title}-{model}.jsonl", records)
        mean = mean_score(records, **_intervals(context))
        if mean.mean is not None:
            means.append(
                MeanScore(
                    set=title,
                    model=model,
                    mean=mean.mean,
                    low=mean.low,
                    high=mean.high,
                    scored=mean.scored,
                    unscored=mean.unscored,
                )
            )
    return means


def _intervals(context: StageContext) -> dict[str, Any]:
    spec = context.spec.evaluation
    return {"resamples": spec.bootstrap, "confidence": spec.confidence, "seed": context.spec.seed}
