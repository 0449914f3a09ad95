"""Comparing answers: which of two is better, in both orders, and how good one is on a scale (methods ME11).

A judge that goes by the position names different winners in the two orders; that is a tie, and is counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from perseid.data.records import Question, Record
from perseid.engines.protocol import Completion, Engine
from perseid.engines.together import together
from perseid.evaluation.passk import bootstrap_interval
from perseid.meteor.calls import Structured, ask_structured
from perseid.meteor.judges import MAX_TRIES
from perseid.meteor.parsing import normal_form, parse_comparison, parse_score
from perseid.meteor.prompts import COMPARISON_REMINDER, SCORE_REMINDER, comparison_prompt, score_prompt
from perseid.meteor.records import CRITERIA, ComparisonRecord, Count, Criterion, Preference, Probability, ScoreRecord

Verdicts = dict[Criterion, Preference]
_MIRROR: Mapping[Preference, Preference] = {"first": "second", "second": "first", "tie": "tie"}


def mirrored(verdicts: Mapping[Criterion, Preference]) -> Verdicts:
    """The same verdicts with the answers' names exchanged."""
    return {criterion: _MIRROR[preference] for criterion, preference in verdicts.items()}


def agreed(verdicts: Mapping[Criterion, Preference], swapped: Mapping[Criterion, Preference]) -> Verdicts:
    """What both orders say of the first answer against the second; where they differ, a tie.

    `swapped` was said with the second answer in front, and names it `first`.
    """
    back = mirrored(swapped)
    return {name: verdicts[name] if verdicts[name] == back[name] else "tie" for name in verdicts}


async def compare_answers(
    question: Question, first: str, second: str, engine: Engine, *, max_tokens: int = 512, max_tries: int = MAX_TRIES
) -> ComparisonRecord:
    """Judge two answers in both orders. Exchanging the answers mirrors the verdict, whatever the judge says.

    Answers that say the same are a tie without a call. Without a verdict in either order there is none, with a reason.
    """
    if normal_form(first) == normal_form(second):
        return ComparisonRecord(id=question.id, verdicts=dict.fromkeys(CRITERIA, "tie"), source="identical")

    async def ask(answer_a: str, answer_b: str) -> Structured[Verdicts]:
        return await ask_structured(
            engine,
            comparison_prompt(question, answer_a, answer_b),
            _read_comparison,
            reminder=COMPARISON_REMINDER,
            max_tokens=max_tokens,
            max_tries=max_tries,
            kind="compare",
            subject=question.id,
        )

    straight, swapped = await together([ask(first, second), ask(second, first)])
    verdicts: Verdicts | None = None
    split: tuple[Criterion, ...] = ()
    reason = detail = ""
    if straight.value is not None and swapped.value is not None:
        verdicts = agreed(straight.value, swapped.value)
        opposed = mirrored(swapped.value)
        split = tuple(name for name in CRITERIA if {straight.value[name], opposed[name]} == {"first", "second"})
    else:
        failed = straight if straight.value is None else swapped
        reason, detail = failed.reason, failed.detail
    return ComparisonRecord(
        id=question.id,
        verdicts=verdicts,
        split=split,
        source=f"model:{engine.model_id}",
        texts=straight.texts,
        swapped_texts=swapped.texts,
        reason=reason,
        detail=detail,
    )


def _read_comparison(completion: Completion) -> Verdicts | None:
    return None if completion.finish_reason == "length" else parse_comparison(completion.text)


class WinShare(Record):
    """How the first answers did against the second by one criterion. The three shares add up to 1."""

    criterion: Criterion
    won: Probability
    tied: Probability
    lost: Probability
    win_share: Probability
    """Won, and half of what was tied: 0.5 is a draw."""
    low: Probability
    high: Probability
    split: Probability
    """Share of the questions in which the two orders named different winners; they are among the tied."""


class WinReport(Record):
    """A comparison over a set of questions."""

    questions: Count
    """With a verdict."""
    unjudged: Count
    """Comparisons without one; they are in no share."""
    confidence: float
    shares: tuple[WinShare, ...]
    """By criterion; none where nothing was judged."""


def win_report(records: Sequence[ComparisonRecord], *, resamples: int, confidence: float, seed: int) -> WinReport:
    """Win shares with ties as halves, and bootstrap intervals over the questions."""
    judged: dict[str, list[ComparisonRecord]] = defaultdict(list)
    for record in records:
        if record.verdicts is not None:
            judged[record.id].append(record)
    groups = [judged[name] for name in sorted(judged)]
    shares: list[WinShare] = []
    for criterion in CRITERIA if groups else ():
        won = _share([_rate(group, criterion, "first") for group in groups])
        lost = _share([_rate(group, criterion, "second") for group in groups])
        values = [_rate(group, criterion, "first") + _rate(group, criterion, "tie") / 2 for group in groups]
        interval = bootstrap_interval(values, resamples=resamples, confidence=confidence, seed=seed)
        shares.append(
            WinShare(
                criterion=criterion,
                won=won,
                tied=_clipped(1 - won - lost),
                lost=lost,
                win_share=_share(values),
                low=_clipped(interval.low),
                high=_clipped(interval.high),
                split=_share([sum(criterion in one.split for one in group) / len(group) for group in groups]),
            )
        )
    unjudged = sum(record.verdicts is None for record in records)
    return WinReport(questions=len(groups), unjudged=unjudged, confidence=confidence, shares=tuple(shares))


def _rate(group: Sequence[ComparisonRecord], criterion: Criterion, preference: Preference) -> float:
    """Share of a question's comparisons with this outcome."""
    return sum((one.verdicts or {}).get(criterion) == preference for one in group) / len(group)


def _share(values: Sequence[float]) -> float:
    return _clipped(sum(values) / len(values))


def _clipped(value: float) -> float:
    return min(1.0, max(0.0, value))  # sums of floats can end a hair outside


async def score_answer(
    question: Question, answer: str, engine: Engine, *, max_tokens: int = 64, max_tries: int = MAX_TRIES
) -> ScoreRecord:
    """An absolute score from 0 to 10; None with a reason where the judge gave none."""
    got = await ask_structured(
        engine,
        score_prompt(question, answer),
        lambda completion: parse_score(completion.text, truncated=completion.finish_reason == "length"),
        reminder=SCORE_REMINDER,
        max_tokens=max_tokens,
        max_tries=max_tries,
        kind="score",
        subject=question.id,
    )
    return ScoreRecord(
        id=question.id,
        score=got.value,
        source=f"model:{engine.model_id}",
        texts=got.texts,
        reason=got.reason,
        detail=got.detail,
    )


class MeanScore(Record):
    """An absolute score over a set of questions."""

    scored: Count
    """Questions with a score."""
    unscored: Count
    """Answers without one; they are not in the mean."""
    mean: float | None
    """0 to 10; None where nothing was scored."""
    low: float | None
    high: float | None
    confidence: float


def mean_score(records: Sequence[ScoreRecord], *, resamples: int, confidence: float, seed: int) -> MeanScore:
    """The mean over questions, of each question's mean, with its bootstrap interval."""
    by_question: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.score is not None:
            by_question[record.id].append(record.score)
    values = [sum(by_question[name]) / len(by_question[name]) for name in sorted(by_question)]
    unscored = sum(record.score is None for record in records)
    if not values:
        return MeanScore(scored=0, unscored=unscored, mean=None, low=None, high=None, confidence=confidence)
    interval = bootstrap_interval(values, resamples=resamples, confidence=confidence, seed=seed)
    return MeanScore(
        scored=len(values),
        unscored=unscored,
        mean=sum(values) / len(values),
        low=interval.low,
        high=interval.high,
        confidence=confidence,
    )
