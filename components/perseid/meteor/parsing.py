"""What models' answers mean. An answer without the form that was asked for means nothing: None, and never a guess.

"Not Correct" and "The answer is correct." carry no form, so that neither is read as the other (methods ME5).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perseid.data.code import fenced_blocks
from perseid.data.records import Question
from perseid.engines.protocol import Completion
from perseid.meteor.prompts import RIGHT, WRONG
from perseid.meteor.records import CRITERIA, Criterion, Preference

_VERDICTS: Mapping[str, bool] = {
    "right": True,
    "correct": True,
    "wrong": False,
    "incorrect": False,
    "not right": False,
    "not correct": False,
}
_TAG = re.compile(r"^[\s>*_#-]*(?P<name>verdict|advice|score)[*_\s]*[:=][*_]*(?P<value>.*)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class JudgedAs:
    """A verdict that was read."""

    right: bool
    advice: str
    """Empty for a right answer, and where the judge gave none."""


def parse_verdict(text: str, *, truncated: bool = False) -> JudgedAs | None:
    """A judge's verdict: one JSON object with `verdict` and `advice`, or lines `Verdict:` and `Advice:`.

    The verdict's value must be `right` or `wrong` (or `correct`, `incorrect`, `not correct`), whole and only once.
    None for anything else. Of a text that was cut off, only whole lines count.
    """
    found = _json_object(text)
    if found is not None:
        verdict, advice = found.get("verdict"), found.get("advice", "")
        return _judged(verdict, advice) if isinstance(verdict, str) and isinstance(advice, str | None) else None
    tags = _tags(text, truncated=truncated)
    verdicts = {_plain(value) for value in tags.get("verdict", [])}
    return _judged(verdicts.pop(), " ".join(tags.get("advice", []))) if len(verdicts) == 1 else None


def _judged(verdict: str, advice: str | None) -> JudgedAs | None:
    right = _VERDICTS.get(_plain(verdict))
    return None if right is None else JudgedAs(right, "" if right else " ".join((advice or "").split()))


def parse_comparison(text: str) -> dict[Criterion, Preference] | None:
    """A comparison: one JSON object with `A`, `B` or `tie` for each of CRITERIA. None for anything else.

    `A` is the answer that was shown first.
    """
    found = _json_object(text)
    if found is None:
        return None
    by_name = {_plain(name): value for name, value in found.items()}
    verdicts: dict[Criterion, Preference] = {}
    for criterion in CRITERIA:
        value = by_name.get(criterion)
        preference = _preference(value) if isinstance(value, str) else None
        if preference is None:
            return None
        verdicts[criterion] = preference
    return verdicts


def _preference(value: str) -> Preference | None:
    names: dict[str, Preference] = {"a": "first", "b": "second", "tie": "tie"}
    return names.get(_plain(value).removeprefix("answer "))


def parse_score(text: str, *, truncated: bool = False) -> float | None:
    """A score from 0 to 10: a JSON object with `score`, or one line `Score:`; `7/10` is 7. None for anything else."""
    found = _json_object(text)
    if found is not None:
        return _score(found.get("score"))
    scores = {_score(value) for value in _tags(text, truncated=truncated).get("score", [])}
    return scores.pop() if len(scores) == 1 else None


def _score(value: Any) -> float | None:
    if isinstance(value, str):
        number = re.fullmatch(r"([0-9]{1,2}(?:\.[0-9]{1,6})?)(?:\s*/\s*10)?", _plain(value))
        value = float(number[1]) if number else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= 10 else None


def right_probability(completion: Completion) -> float | None:
    """Probability of `right` against `wrong` of a constrained answer, 0 to 1; None where the engine told none."""
    logprobs = completion.choice_logprobs
    if logprobs is None or set(logprobs) != {RIGHT, WRONG}:
        return None
    highest = max(logprobs.values())
    if not math.isfinite(highest):
        return None
    weights = {choice: math.exp(logprob - highest) for choice, logprob in logprobs.items()}
    probability = weights[RIGHT] / sum(weights.values())
    return probability if math.isfinite(probability) else None


_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


def whole_sentences(text: str) -> str:
    """A text that was cut off, up to the end of its last whole sentence; empty where there is none."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]].strip() if ends else ""


def normal_form(text: str) -> str:
    """Two answers with the same normal form say the same: case, blanks and punctuation at the ends do not count."""
    return " ".join(text.casefold().split()).strip(" .!?:;,*_#`\"'")


_CANNOT = r"(?:can't|cannot|can\ not|won't|am\ unable|'m\ unable|am\ not\ able|'m\ not\ able|am\ not\ going|unable)"
_REFUSAL = re.compile(
    rf"""\W*(?:
        (?:i'm\ |i\ am\ )?(?:very\ |really\ )?sorry\b[^.!?]*?\b{_CANNOT}\b
      | i(?:\ )?{_CANNOT}\ (?:to\ )?(?:help|assist|answer|comply|provide|do\ that)\b
      | as\ an?\ (?:ai|artificial\ intelligence|language\ model)\b[^.!?]*?\b(?:{_CANNOT}|do\ not|don't)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def is_refusal(text: str) -> bool:
    """Whether a text begins by saying that it will not answer. What refuses later on is not found."""
    return _REFUSAL.match(text.replace("\u2019", "'")) is not None


_ECHO_WORDS = 5


def is_echo(text: str, prompt: str, question: Question | None = None) -> bool:
    """Whether a text repeats its prompt instead of answering: it begins with the whole prompt, is a piece of it of five
    words or more, or is the question over again."""
    said, asked = normal_form(text), normal_form(prompt)
    if not said or not asked:
        return False
    if question is not None and said in {normal_form(question.title), normal_form(question.text)}:
        return True
    return said.startswith(asked) or (len(said.split()) >= _ECHO_WORDS and said in asked)


def _plain(value: str) -> str:
    return " ".join(value.casefold().split()).strip(" .!,;*_`\"'")


def _json_object(text: str) -> dict[str, Any] | None:
    """The one JSON object that a text is, bare or in a closed fence, or that stands alone between words."""
    blocks, _ = fenced_blocks(text)
    for candidate in (text, *(blocks if len(blocks) == 1 else ())):
        found = _loaded(candidate.strip())
        if found is not None:
            return found
    opened, closed = text.find("{"), text.rfind("}")
    # Between words: only when all braces belong to one object, so that of two objects neither is taken.
    return _loaded(text[opened : closed + 1]) if 0 <= opened < closed else None


def _loaded(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _tags(text: str, *, truncated: bool) -> dict[str, list[str]]:
    lines = text.splitlines()
    if truncated and not text.endswith("\n"):
        lines = lines[:-1]
    tags: dict[str, list[str]] = {}
    for line in lines:
        if tag := _TAG.match(line):
            tags.setdefault(tag["name"].casefold(), []).append(tag["value"].strip())
    return tags
