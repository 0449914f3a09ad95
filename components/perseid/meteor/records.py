"""What METEOR's stages write down, one JSON object on each line: every answer, every verdict, every judge's words."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perseid.data.records import Record

Count = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class GuidelineRecord(Record):
    """A guideline of the learner and what the mentor answered by it."""

    id: str
    """The question's."""
    guideline: str
    """Empty where none was asked for, or none could be had."""
    guideline_cut: bool
    """It was cut off, and is used up to its last whole sentence."""
    learner_id: str
    mentor_id: str
    answer: str
    """The mentor's whole answer; empty where there is none."""
    reason: str
    """Why this gave no sample; empty where it gave one."""
    detail: str = ""


class AttemptRecord(Record):
    """An answer of the learner with its verdict."""

    id: str
    """`question_id/number`."""
    question_id: str
    number: Annotated[int, Field(ge=1)]
    """1 is the first answer, 2 its first revision."""
    answer: str
    truncated: bool
    model_id: str
    """Who answered."""
    right: bool | None
    """None where the judge could not say."""
    advice: str
    source: str
    """Who said so: `rule`, `program`, `form` (cut off or empty, nobody was asked), or `model:` and the judge's id."""
    judge_texts: tuple[str, ...] = ()
    """Every answer of the judge, as it came."""
    reason: str = ""
    """Why there is no verdict."""
    detail: str = ""


class Assessment(Record):
    """What became of a question in the second stage."""

    id: str
    """The question's."""
    prompt: str
    """The user's turn that was answered."""
    attempts: tuple[AttemptRecord, ...]
    reason: str
    """Empty: the last attempt is right and joins the pool. Otherwise why the question is in quarantine: `never-right`,
    `judge-unsure`, `judge-failed`, `no-check`, `bad-check`, `learner-failed` or `budget-exceeded`."""
    detail: str = ""

    @property
    def right(self) -> AttemptRecord | None:
        """The attempt that joins the pool; None in quarantine."""
        return None if self.reason else self.attempts[-1]


class JudgeRecord(Record):
    """A verdict on one answer, outside the second stage's loop: of held-out answers."""

    id: str
    question_id: str
    answer: str
    right: bool | None
    advice: str
    source: str
    texts: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""


class SelfVerdictRecord(Record):
    """How likely the learner calls an answer right, and what the judge said."""

    id: str
    question_id: str
    answer: str
    model_id: str
    """Who says so of itself."""
    probability: Probability | None
    """Of `right` against `wrong`; None where it could not be had."""
    judged_right: bool
    reason: str = ""


Criterion = Literal["accuracy", "completeness", "relevance", "coherence", "reliability", "overall"]
CRITERIA: tuple[Criterion, ...] = ("accuracy", "completeness", "relevance", "coherence", "reliability", "overall")
"""METEOR's five (arXiv 2411.11933), and the judge's preference altogether."""

Preference = Literal["first", "second", "tie"]


class ComparisonRecord(Record):
    """Two answers to a question, judged in both orders."""

    id: str
    """The question's."""
    verdicts: dict[Criterion, Preference] | None
    """Of the first answer against the second. Orders that disagree are a tie. None where an order has no verdict."""
    split: tuple[Criterion, ...] = ()
    """Where the orders named different winners: the judge went by the position."""
    source: str
    """`identical` where both say the same and nobody was asked, or `model:` and the judge's id."""
    texts: tuple[str, ...] = ()
    """Answers of the judge with the first answer in front, as they came."""
    swapped_texts: tuple[str, ...] = ()
    """The same in the other order."""
    reason: str = ""
    detail: str = ""


class ScoreRecord(Record):
    """An answer's score on a scale."""

    id: str
    """The question's."""
    score: Annotated[float, Field(ge=0.0, le=10.0)] | None
    """0 to 10; None where the judge gave none."""
    source: str
    texts: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""


class DecodedAnswer(Record):
    """An answer of the third stage, with the decoding that gave it."""

    id: str
    """`question_id/strategy`."""
    question_id: str
    strategy: str
    text: str
    truncated: bool
    tokens: Count
    samples: Annotated[int, Field(ge=1)]
    """Answers that were decoded for it."""
    temperature: float
    score: float | None
    """Of the learner's own critique; None where there is no critic, or it had none."""
    model_id: str


Learned = Literal["answers", "verdicts", "pairs"]


class Trial(Record):
    """What became of a training."""

    round: int
    """From 1."""
    learned: Learned
    """What it was trained on."""
    model_id: str
    """Of the model that it made."""
    steps: int
    dev_before: float
    """pass@1 on dev of the model that was trained, 0 to 1."""
    dev_after: float
    gain: float
    low: float
    """End of the paired interval of the gain."""
    high: float
    stayed: bool
    """False: rolled back."""
