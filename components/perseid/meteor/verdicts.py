"""Learning to judge: verdicts of the second stage as training data (methods ME4, ME13).

A sample asks the learner whether an answer is right, in the words in which it is asked for its own verdict, and what
is learned is the judge's. Right and wrong are balanced, because a learner that always says wrong has learned nothing.
Answers are learned beside them once more: trained on verdicts alone, a small model forgets how to answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from perseid.data.records import Question, TrainingSample
from perseid.meteor.calls import derive_seed
from perseid.meteor.parsing import normal_form
from perseid.meteor.prompts import RIGHT, WRONG, self_verdict_prompt
from perseid.meteor.records import Assessment, AttemptRecord

VERDICT_WEIGHT = 8.0
"""A verdict is one word and its end, beside answers of some fifty tokens: unweighted, the answers alone are learned."""


@dataclass(frozen=True, slots=True)
class VerdictSamples:
    """Verdicts to be learned."""

    samples: tuple[TrainingSample, ...]
    """As many right as wrong; none where there are not both."""
    right: int
    """Different judged answers that are right."""
    wrong: int

    @property
    def left_out(self) -> int:
        """Judged answers that balance left out."""
        return self.right + self.wrong - len(self.samples)


def verdict_samples(
    assessments: Iterable[Assessment], questions: Mapping[str, Question], *, seed: int
) -> VerdictSamples:
    """Verdicts on all attempts, quarantined questions included, as the learner would have to say them.

    `questions` by id. Left out: what no judge judged, and answers that say the same to the same question. Of the more
    frequent verdict, questions take turns, so that none fills the set. The same arguments give the same samples,
    whatever the order of the assessments.
    """
    judged: dict[tuple[str, str], AttemptRecord] = {}
    for attempt in sorted((one for done in assessments for one in done.attempts), key=lambda one: one.id):
        if attempt.right is not None and attempt.source != "form":
            judged.setdefault((attempt.question_id, normal_form(attempt.answer)), attempt)
    right = _taking_turns([one for one in judged.values() if one.right], seed)
    wrong = _taking_turns([one for one in judged.values() if not one.right], seed)
    each = min(len(right), len(wrong))
    chosen = [attempt for pair in zip(right[:each], wrong[:each], strict=True) for attempt in pair]
    samples = tuple(_sample(attempt, questions[attempt.question_id]) for attempt in chosen)
    return VerdictSamples(samples, len(right), len(wrong))


def judging_samples(verdicts: VerdictSamples, answers: Iterable[TrainingSample]) -> list[TrainingSample]:
    """What the learner is trained on to judge: the verdicts, and one answer for each question, the last one given.

    Nothing without verdicts.
    """
    rehearsal = {one.problem_id: one for one in answers}
    return [*verdicts.samples, *rehearsal.values()] if verdicts.samples else []


def _taking_turns(attempts: list[AttemptRecord], seed: int) -> list[AttemptRecord]:
    """Shuffled by seed; the first of every question, then the second of every question, and so on."""
    shuffled = sorted(attempts, key=lambda one: (derive_seed(seed, "verdict", one.id), one.id))
    turns: dict[str, int] = {}
    ranked: list[tuple[int, AttemptRecord]] = []
    for attempt in shuffled:
        turn = turns[attempt.question_id] = turns.get(attempt.question_id, 0) + 1
        ranked.append((turn, attempt))
    return [attempt for _, attempt in sorted(ranked, key=lambda one: one[0])]


def _sample(attempt: AttemptRecord, question: Question) -> TrainingSample:
    return TrainingSample(
        id=f"{attempt.id}/verdict",
        problem_id=question.id,
        prompt=self_verdict_prompt(question, attempt.answer),
        answer=RIGHT if attempt.right else WRONG,
        weight=VERDICT_WEIGHT,
    )
