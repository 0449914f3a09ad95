"""How far the learner's verdict on its answers agrees with the judge's, before and after training (methods ME13).

Pure functions. Intervals are percentile bootstraps over questions, because answers to one question are not
independent of each other. A figure that a draw does not have (no right answer in it, say) is left out of its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perseid.data.estimates import Estimate, Floats, draws, percentile_estimate
from perseid.data.records import Record
from perseid.meteor.records import Count, SelfVerdictRecord


class Agreement(Record):
    """Of the learner's verdicts with the judge's."""

    answers: Count
    """With both verdicts."""
    unsaid: Count
    """Answers of which the learner's verdict could not be had; they are in no figure."""
    right: Count
    """Answers that the judge calls right."""
    called_right: Count
    """Answers that the learner calls right: with a probability above 0.5."""
    confidence: float
    auc: Estimate | None
    """Chance that a right answer has a higher probability than a wrong one, ties as halves. None without both."""
    accuracy: Estimate | None
    """Share of the answers with the same verdict. None without answers."""
    kappa: Estimate | None
    """Cohen's: agreement above chance, at most 1. None where chance alone agrees always."""


class AgreementChange(Record):
    """What training changed, on the same answers."""

    before: Agreement
    after: Agreement
    answers: Count
    """With verdicts before and after: those that the differences are of."""
    auc: Estimate | None
    """after - before, as the others."""
    accuracy: Estimate | None
    kappa: Estimate | None


def agreement(records: Sequence[SelfVerdictRecord], *, resamples: int, confidence: float, seed: int) -> Agreement:
    """Every figure, with intervals. Raises ValueError where two records have one id."""
    _require_distinct(records)
    said = [one for one in sorted(records, key=lambda one: one.id) if one.probability is not None]
    table = _Table.of(said)
    drawn = _draws(table, [table], resamples, seed) if said else None
    estimates = [
        percentile_estimate(table.figures(np.ones((1, table.questions)))[name][0], drawn[0][name], confidence)
        if drawn
        else None
        for name in _FIGURES
    ]
    return Agreement(
        answers=len(said),
        unsaid=len(records) - len(said),
        right=int(table.right.sum()),
        called_right=int(table.called.sum()),
        confidence=confidence,
        **dict(zip(_FIGURES, estimates, strict=True)),
    )


def agreement_change(
    before: Sequence[SelfVerdictRecord],
    after: Sequence[SelfVerdictRecord],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> AgreementChange:
    """The differences on answers that both have verdicts on, paired: both sides of a draw are of the same answers.

    Raises ValueError unless both are verdicts on the same answers and the judge said the same of them.
    """
    first, second = ({one.id: one for one in side} for side in (before, after))
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise ValueError(f"before and after need the same answers; {len(odd)} are in one only, such as {odd[:3]}")
    for name, one in first.items():
        if (one.answer, one.judged_right) != (second[name].answer, second[name].judged_right):
            raise ValueError(f"before and after differ in answer {name} or in its judge's verdict: judge it once")
    whole = {"resamples": resamples, "confidence": confidence, "seed": seed}
    both = [name for name in sorted(first) if None not in (first[name].probability, second[name].probability)]
    tables = [_Table.of([side[name] for name in both]) for side in (first, second)]
    changes: dict[str, Estimate | None] = dict.fromkeys(_FIGURES)
    if both:
        once = np.ones((1, tables[0].questions))
        old, new = (table.figures(once) for table in tables)
        drawn_old, drawn_new = _draws(tables[0], tables, resamples, seed)
        for name in _FIGURES:
            changes[name] = percentile_estimate(
                new[name][0] - old[name][0], drawn_new[name] - drawn_old[name], confidence
            )
    return AgreementChange(
        before=agreement(before, **whole),  # type: ignore[arg-type]
        after=agreement(after, **whole),  # type: ignore[arg-type]
        answers=len(both),
        **changes,
    )


_FIGURES = ("auc", "accuracy", "kappa")


@dataclass(frozen=True, slots=True)
class _Table:
    """Verdicts as arrays, so that a bootstrap is a few products."""

    question: npt.NDArray[np.int64]
    """Number of each answer's question, shape (answers,)."""
    questions: int
    right: npt.NDArray[np.bool_]
    """The judge's verdicts, shape (answers,)."""
    called: npt.NDArray[np.bool_]
    """The learner's, shape (answers,)."""
    ordered: Floats
    """1 where a right answer has the higher probability than a wrong one, 0.5 where equal; (right, wrong)."""

    @classmethod
    def of(cls, records: Sequence[SelfVerdictRecord]) -> _Table:
        numbers = {name: number for number, name in enumerate(sorted({one.question_id for one in records}))}
        probability = np.array([one.probability for one in records], dtype=np.float64)
        right = np.array([one.judged_right for one in records], dtype=np.bool_)
        above, below = probability[right][:, None], probability[~right][None, :]
        return cls(
            question=np.array([numbers[one.question_id] for one in records], dtype=np.int64),
            questions=len(numbers),
            right=right,
            called=probability > 0.5,
            ordered=(above > below) + 0.5 * (above == below),
        )

    def figures(self, weights: Floats) -> dict[str, Floats]:
        """Each figure under weights of questions, shape (draws, questions) to (draws,); NaN where there is none."""
        of_answers = weights[:, self.question]
        total = of_answers.sum(axis=1)
        rights, wrongs = of_answers[:, self.right], of_answers[:, ~self.right]
        same = of_answers[:, self.right == self.called].sum(axis=1) / total
        right_share = rights.sum(axis=1) / total
        called_share = of_answers[:, self.called].sum(axis=1) / total
        chance = right_share * called_share + (1 - right_share) * (1 - called_share)
        with np.errstate(divide="ignore", invalid="ignore"):
            auc = ((rights @ self.ordered) * wrongs).sum(axis=1) / (rights.sum(axis=1) * wrongs.sum(axis=1))
            kappa = np.where(1 - chance > 1e-12, (same - chance) / (1 - chance), np.nan)
        return {"auc": auc, "accuracy": same, "kappa": kappa}


def _draws(shape: _Table, tables: Sequence[_Table], resamples: int, seed: int) -> list[dict[str, Floats]]:
    """Figures of each table under the same draws of questions; each array has the shape (resamples,)."""
    parts: list[list[dict[str, Floats]]] = [[] for _ in tables]
    for weights in draws(shape.questions, shape.question.size, resamples, seed):
        for part, table in zip(parts, tables, strict=True):
            part.append(table.figures(weights))
    return [{name: np.concatenate([one[name] for one in part]) for name in _FIGURES} for part in parts]


def _require_distinct(records: Sequence[SelfVerdictRecord]) -> None:
    if len({one.id for one in records}) < len(records):
        raise ValueError("two verdicts have one id: give every answer its own, such as question/number")
