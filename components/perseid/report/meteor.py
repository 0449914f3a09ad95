"""METEOR's three stages as a page shows them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from perseid.api.files import (
    AGREEMENT,
    ASSESSMENTS,
    GUIDELINES,
    PAIRS,
    ROUNDS,
    TRIAL,
    TURNS,
    VERDICTS_AFTER,
    VERDICTS_BEFORE,
)
from perseid.api.stages import METEOR_STAGES
from perseid.data.records import PreferencePair
from perseid.evaluation.calibration import Observation
from perseid.meteor.agreement import AgreementChange
from perseid.meteor.records import Assessment, GuidelineRecord, SelfVerdictRecord, Trial
from perseid.report.files import read_document, read_records, spread

VERDICTS = {"before": VERDICTS_BEFORE, "after": VERDICTS_AFTER}
METEOR_FILES = (GUIDELINES, ASSESSMENTS, AGREEMENT, *VERDICTS.values(), PAIRS, TRIAL)


@dataclass(frozen=True, slots=True)
class AssessedView:
    """The second stage's questions."""

    total: int
    accepted: int
    """Right at once."""
    revised: int
    """Right after advice."""
    quarantine: dict[str, int]
    """By reason."""
    shown: list[Assessment]


@dataclass(slots=True)
class MeteorView:
    """A generation's METEOR."""

    guidelines: int = 0
    taught: int = 0
    """Guidelines whose answer became a sample."""
    untaught: Counter[str] = field(default_factory=Counter)
    """The others, by reason."""
    shown_guidelines: list[GuidelineRecord] = field(default_factory=list)
    assessed: AssessedView | None = None
    agreement: AgreementChange | None = None
    pairs: int = 0
    shown_pairs: list[PreferencePair] = field(default_factory=list)
    trials: dict[str, list[Trial]] = field(default_factory=dict)
    """Trainings by stage."""
    observations: dict[str, list[Observation]] = field(default_factory=dict)
    """The learner's verdicts on its answers against the judge's, before and after."""


def read_meteor(attempt: Path, most: int) -> MeteorView | None:
    """What METEOR's stages have written below an attempt's directory; None before the first of them has ended.

    Raises DataError.
    """
    if not any((attempt / stage).exists() for stage in METEOR_STAGES):
        return None
    view = MeteorView()
    taught = list(read_records(attempt / "mentor-supervised" / GUIDELINES, GuidelineRecord))
    view.guidelines = len(taught)
    view.taught = sum(1 for one in taught if not one.reason)
    view.untaught = Counter(one.reason for one in taught if one.reason)
    view.shown_guidelines = spread(taught, most)
    assessing = attempt / "self-assessment"
    if (assessing / ASSESSMENTS).exists():
        view.assessed = _assessed(assessing / ASSESSMENTS, most)
    view.agreement = read_document(assessing / AGREEMENT, AgreementChange)
    for moment, name in VERDICTS.items():
        verdicts = read_records(assessing / name, SelfVerdictRecord)
        view.observations[f"self-verdict-{moment}"] = [
            Observation(one.question_id, one.probability, one.judged_right) for one in verdicts
        ]
    pairs = [
        pair
        for path in sorted((attempt / "self-evolution").glob(f"{TURNS}/*/{PAIRS}"))
        for pair in read_records(path, PreferencePair)
    ]
    view.pairs = len(pairs)
    view.shown_pairs = spread(pairs, most)
    for stage in METEOR_STAGES:
        trials = (read_document(path, Trial) for path in sorted((attempt / stage).glob(f"{ROUNDS}/*/{TRIAL}")))
        view.trials[stage] = [trial for trial in trials if trial is not None]
    return view


def _assessed(path: Path, most: int) -> AssessedView:
    groups: dict[str, list[Assessment]] = {"revised": [], "accepted": [], "quarantined": []}
    for one in read_records(path, Assessment):
        kind = "quarantined" if one.right is None else "revised" if len(one.attempts) > 1 else "accepted"
        groups[kind].append(one)
    shown: list[Assessment] = []
    for left, group in zip((3, 2, 1), groups.values(), strict=True):
        shown += spread(group, (most - len(shown)) // left)
    return AssessedView(
        total=sum(map(len, groups.values())),
        accepted=len(groups["accepted"]),
        revised=len(groups["revised"]),
        quarantine=dict(Counter(one.reason for one in groups["quarantined"])),
        shown=shown,
    )
