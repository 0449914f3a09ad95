"""What the models' answers mean. Strict where a wrong reading would change the search, lenient about decoration."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Rejection(StrEnum):
    """Why a proposal is not used."""

    EMPTY = "empty"
    """Nothing is left without code and labels."""
    REPEATED = "repeated"
    """The step stands in the plan already."""
    DUPLICATE = "duplicate"
    """A sibling says the same."""
    TRUNCATED = "truncated"
    """Cut off before its first sentence ended."""


_CLOSED_FENCE = re.compile(r"```.*?```", re.DOTALL)
_OPEN_FENCE = re.compile(r"```.*", re.DOTALL)
# A number is a list marker only when a blank follows its dot: "1. Add" is one, "0.5 of it" is not.
_LABEL = re.compile(
    r"""\s*(?:[-*•]\s+|\d{1,2}[.)]\s+)?          # list marker
        [*_\#\s]*                                # emphasis or heading
        (?:next\s+step|step\s*\d+)\s*[*_]*       # the label itself
        \s*(?:[:.)\]-]|\u2013|\u2014)\s*[*_]*\s* # its punctuation""",
    re.IGNORECASE | re.VERBOSE,
)
_BULLET = re.compile(r"\s*(?:[-*•]\s+|\d{1,2}[.)]\s+|\#+\s+)")
_NEXT_LABEL = re.compile(r"^[^\w\n]*next\s+step[*_]*\s*:", re.IGNORECASE | re.MULTILINE)
_BOLD = re.compile(r"(?<![\w)\]*])\*\*(?=\S)(.+?)(?<=\S)\*\*(?!\w)")
_CODE_LINE = re.compile(r"\s*(?:(?:async\s+)?def\s+\w+\s*\(|class\s+\w+.*:\s*$|import\s+\w+\s*$|from\s+\S+\s+import\s)")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


def normal_form(step: str) -> str:
    """Two steps with the same normal form say the same: case, punctuation at the ends and blanks do not count."""
    return " ".join(step.casefold().split()).strip(" .!:;,")


def parse_step(text: str, steps: Sequence[str] = (), *, truncated: bool = False) -> str | Rejection:
    """The one step that a proposal says: its first paragraph without label, list marker, bold and code.

    With `truncated` the last line is unfinished: only what comes before it, or its whole sentences, are used.
    """
    text = _OPEN_FENCE.sub("", _CLOSED_FENCE.sub("", text))
    labelled = _NEXT_LABEL.search(text)
    text = text[labelled.start() :] if labelled else text
    paragraph, finished = _first_paragraph(text)
    if truncated and not finished:
        ends = [match.end() for match in _SENTENCE_END.finditer(paragraph)]
        if not ends:
            return Rejection.TRUNCATED
        paragraph = paragraph[: ends[-1]]
    step = " ".join(_BOLD.sub(r"\1", paragraph).split())
    if not any(character.isalnum() for character in step):
        return Rejection.EMPTY
    return Rejection.REPEATED if normal_form(step) in {normal_form(known) for known in steps} else step


def _first_paragraph(text: str) -> tuple[str, bool]:
    """The first lines with words, joined, and whether something came after them."""
    lines: list[str] = []
    for line in text.splitlines():
        labelled = _LABEL.match(line) is not None
        content = _undecorated(line)
        if _CODE_LINE.match(content) or (lines and (labelled or not content)):
            return " ".join(lines), True
        if any(character.isalnum() for character in content):
            lines.append(content)
    return " ".join(lines), False


def _undecorated(line: str) -> str:
    """A line without the labels and the list marker that it begins with."""
    while label := _LABEL.match(line):
        line = line[label.end() :]
    bullet = _BULLET.match(line)
    return (line[bullet.end() :] if bullet else line).strip()


@dataclass(frozen=True, slots=True)
class Reflection:
    """An analysis of the steps so far."""

    text: str
    """Advice for the next step; may be empty."""
    ends: bool
    """The model calls the steps complete."""


_END_TAG = re.compile(r"<\s*end\s*>", re.IGNORECASE)
_ANALYSIS = re.compile(r"\s*[*_]*analysis[*_]*\s*:[*_]*\s*", re.IGNORECASE)


def parse_reflection(text: str, *, may_end: bool) -> Reflection:
    """Only the tag `<end>` ends a branch: "not yet solved" does not. With `may_end=False` nothing does (the root)."""
    ends = may_end and _END_TAG.search(text) is not None
    return Reflection(" ".join(_ANALYSIS.sub("", _END_TAG.sub("", text), count=1).split()), ends)


SCORES = tuple(str(number) for number in range(11))
"""What a scorer may answer."""


def parse_score(text: str) -> float | None:
    """A whole number from 0 to 10 and nothing else; None otherwise, never a default."""
    text = text.strip()
    return float(text) if text in SCORES else None


def expected_score(logprobs: Mapping[str, float]) -> float | None:
    """The mean of the scores under their probabilities; None where they are not those of the eleven scores."""
    if set(logprobs) != set(SCORES):
        return None
    weights = {choice: math.exp(logprob) for choice, logprob in logprobs.items()}
    total = sum(weights.values())
    if not math.isfinite(total) or total <= 0:
        return None
    return sum(float(choice) * weight for choice, weight in weights.items()) / total


def ladder_band(score: float) -> str:
    """The rung of the paper's ladder: the fault that a score from 0 to 10 stands for (methods A.3)."""
    rungs = ((3, "erroneous"), (5, "incoherent"), (7, "incomplete"), (9, "defective"))
    return next((name for top, name in rungs if score <= top), "none")


VERDICTS = ("solved", "unsolved")
"""What a completeness check may answer."""


def parse_verdict(text: str) -> bool | None:
    """Whether a plan is called solved; None for anything but one of the two words, bare or as a tag."""
    word = text.strip().casefold().removeprefix("<").removesuffix(">")
    return word == "solved" if word in VERDICTS else None


def split_chain(text: str, *, truncated: bool = False) -> tuple[str, ...]:
    """The steps of a whole plan: one a labelled or listed line, other lines belong to the step before them.

    A plan without labels and lists has one step a line. With `truncated` the last step is unfinished and left out.
    """
    text = _OPEN_FENCE.sub("", _CLOSED_FENCE.sub("", text))
    lines = [line for line in text.splitlines() if any(character.isalnum() for character in line)]
    marked = [bool(_LABEL.match(line) or _BULLET.match(line)) for line in lines]
    groups: list[list[str]] = []
    for line, mark in zip(lines, marked, strict=True):
        if any(marked) and not mark and not groups:
            continue  # An introduction before the list.
        if not groups or mark or not any(marked):
            groups.append([])
        groups[-1].append(line)
    steps: list[str] = []
    for group in groups[:-1] if truncated else groups:
        step = parse_step("\n".join(group), steps)
        if not isinstance(step, Rejection):
            steps.append(step)
    return tuple(steps)
