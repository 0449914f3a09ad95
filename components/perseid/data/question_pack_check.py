"""Checks of the question pack: every answer computed anew from the question's own words, and no leak between splits.

The sizes of units come from their definitions (a foot is 0.3048 m), not from the program that wrote the pack, so that
the two can disagree. `check_question_pack` returns violations as sentences; an empty list is a pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from perseid.data.jsonl import read_json_lines, read_jsonl
from perseid.data.question_splits import SPLITS
from perseid.data.question_text import normalised
from perseid.data.records import ChoiceCheck, NumberCheck, PatternCheck, Question

MINIMUM_TOTAL = 180
SHARES: Mapping[str, tuple[float, float]] = {"train": (0.5, 0.7), "dev": (0.15, 0.25), "test": (0.15, 0.25)}
"""Smallest and largest share of all questions."""
LONGEST_ANSWER = 3
"""Sentences before the line with the answer."""

PREFIXES: Mapping[str, tuple[str, int]] = {
    "mega": ("M", 6), "kilo": ("k", 3), "hecto": ("h", 2), "deci": ("d", -1), "centi": ("c", -2), "milli": ("m", -3),
}  # fmt: skip
"""Symbol and power of ten (SI brochure, 9th edition, table 7)."""
_YEAR = Fraction("365.2425") * 86400
UNITS: Mapping[str, tuple[str, str, Fraction]] = {
    "metre": ("length", "m", Fraction(1)),
    "gram": ("mass", "g", Fraction(1, 1000)),
    "litre": ("volume", "l", Fraction(1, 1000)),
    "second": ("time", "s", Fraction(1)),
    "watt": ("power", "W", Fraction(1)),
    "volt": ("voltage", "V", Fraction(1)),
    "hertz": ("frequency", "Hz", Fraction(1)),
    "pascal": ("pressure", "Pa", Fraction(1)),
    "newton": ("force", "N", Fraction(1)),
    "joule": ("energy", "J", Fraction(1)),
    "ampere": ("electric current", "A", Fraction(1)),
    "tonne": ("mass", "t", Fraction(1000)),
    "pound": ("mass", "lb", Fraction("0.45359237")),
    "ounce": ("mass", "oz", Fraction("0.028349523125")),
    "inch": ("length", "in", Fraction("0.0254")),
    "foot": ("length", "ft", Fraction("0.3048")),
    "yard": ("length", "yd", Fraction("0.9144")),
    "minute": ("time", "min", Fraction(60)),
    "hour": ("time", "h", Fraction(3600)),
    "day": ("time", "d", Fraction(86400)),
    "week": ("time", "", Fraction(604800)),
    "month": ("time", "", _YEAR / 12),
    "year": ("time", "a", _YEAR),
    "decade": ("time", "", 10 * _YEAR),
    "century": ("time", "", 100 * _YEAR),
    "millennium": ("time", "", 1000 * _YEAR),
}
"""Quantity, symbol and size in SI base units, by the singular."""
_PLURALS = {"feet": "foot", "inches": "inch", "centuries": "century", "millennia": "millennium"}

_HOW_MANY = re.compile(r"How many (?P<to>\w+) are (?P<count>\d+) (?P<unit>\w+)\?")
_CONVERT = re.compile(r"Convert (?P<count>\d+) (?P<unit>\w+) to (?P<to>\w+)\.")
_SYMBOL = re.compile(r"What is the symbol of the unit (?P<unit>\w+)\?")
_SIZE = re.compile(r"Is an? (?P<unit>\w+) larger or smaller than an? (?P<other>\w+)\?")
_QUANTITY = re.compile(r"What do we measure in (?P<unit>\w+): (?P<a>[\w ]+), (?P<b>[\w ]+) or (?P<c>[\w ]+)\?")
_RULE = re.compile(r"\b1 (?P<unit>\w+) is (?P<factor>\d+) (?P<to>\w+)")
_PRODUCT = re.compile(r"(?P<left>\d+) (?P<unit>\w+) are (?P<a>\d+) \* (?P<b>\d+) = (?P<product>\d+) (?P<to>\w+)")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit by its definition."""

    quantity: str
    symbol: str
    size: Fraction
    """In SI base units."""


@dataclass(frozen=True, slots=True)
class QuestionPack:
    """The files of the pack."""

    splits: Mapping[str, Sequence[Question]]
    answers: Sequence[tuple[str, str]]
    """Of the mentor: (question id, answer), in the file's order."""


def read_question_pack(directory: Path) -> QuestionPack:
    """Read the four files. Raises DataError."""
    answers = []
    for _, line in read_json_lines(directory / "mentor.jsonl"):
        answers.append((str(line.get("subject", "")), str(line.get("answer", ""))))
    return QuestionPack({split: read_jsonl(directory / f"{split}.jsonl", Question) for split in SPLITS}, answers)


def check_question_pack(pack: QuestionPack) -> list[str]:
    """All violations."""
    return [
        *_check_sizes(pack),
        *_check_leaks(pack),
        *(each for split in pack.splits.values() for question in split for each in check_question(question)),
        *_check_mentor(pack),
    ]


def unit_named(name: str) -> Unit:
    """The unit of a singular or plural name, with or without a prefix. Raises KeyError."""
    singular = _PLURALS.get(name) or name.removesuffix("s")
    if singular in UNITS:
        return Unit(*UNITS[singular])
    for prefix, (symbol, power) in PREFIXES.items():
        base = UNITS.get(singular.removeprefix(prefix))
        if singular.startswith(prefix) and base is not None:
            return Unit(base[0], symbol + base[1], Fraction(10) ** power * base[2])
    raise KeyError(name)


def expected_answer(title: str) -> str:
    """What the question's own words give. Raises ValueError where they have none of the pack's forms."""
    try:
        if match := _HOW_MANY.fullmatch(title) or _CONVERT.fullmatch(title):
            value = int(match["count"]) * _ratio(match["unit"], match["to"])
            if value.denominator != 1:
                raise ValueError(f"{title!r}: the answer {value} is no whole number")
            return str(value)
        if match := _SYMBOL.fullmatch(title):
            return unit_named(match["unit"]).symbol
        if match := _SIZE.fullmatch(title):
            ratio = _ratio(match["unit"], match["other"])
            if ratio == 1:
                raise ValueError(f"{title!r}: the units are of one size")
            return "larger" if ratio > 1 else "smaller"
        if match := _QUANTITY.fullmatch(title):
            quantity = unit_named(match["unit"]).quantity
            options = [match["a"], match["b"], match["c"]]
            if options.count(quantity) != 1:
                raise ValueError(f"{title!r}: {quantity} must be one of the options, once")
            if quantity in {"force", "mass"} <= set(options):  # everyday speech takes one for the other
                raise ValueError(f"{title!r}: force and mass must not be options beside each other")
            return quantity
    except KeyError as error:
        raise ValueError(f"{title!r}: the unit {error} is not known") from error
    raise ValueError(f"{title!r}: none of the pack's forms")


def check_question(question: Question) -> Iterator[str]:
    """Violations of one question: its answer and its check against its own words."""
    try:
        expected = expected_answer(question.title)
    except ValueError as error:
        yield f"{question.id}: {error}"
        return
    if question.answer != expected:
        yield f"{question.id}: the answer is {question.answer!r}, computed {expected!r}"
    if not question.family:
        yield f"{question.id}: it has no family"
    check = question.check
    if isinstance(check, NumberCheck):
        right = expected.isdecimal() and check.value == int(expected) and check.tolerance == 0
    elif isinstance(check, ChoiceCheck):
        match = _QUANTITY.fullmatch(question.title)
        options = {match["a"], match["b"], match["c"]} if match else {"larger", "smaller"}
        right = check.answer == expected and set(check.options) == options and len(check.options) == len(options)
    elif isinstance(check, PatternCheck):
        # Case matters in symbols: MV is not mV. Only the litre has two, l and L.
        accepted = {expected, expected.removesuffix("l") + "L" if expected.endswith("l") else expected}
        refused = {expected.swapcase(), f"{expected}x", f"x{expected}", expected[1:]}
        right = all(re.fullmatch(check.pattern, each, re.IGNORECASE) for each in accepted) and not any(
            re.search(check.pattern, each, re.IGNORECASE) for each in refused
        )
    else:
        right = False
    if not right:
        yield f"{question.id}: its check does not fit the computed answer {expected!r}: {check!r}"


def check_answer(question: Question, answer: str) -> Iterator[str]:
    """Violations of one recorded answer: its last line, its length, and every number in its reasoning."""
    reasoning, _, last = answer.rpartition("\n")
    if last != f"Answer: {question.answer}":
        yield f"{question.id}: the mentor's last line is {last!r}, not 'Answer: {question.answer}'"
    sentences = [each for each in re.split(r"(?<=[.!?])\s+", reasoning.strip()) if each]
    if not 1 <= len(sentences) <= LONGEST_ANSWER or not reasoning.endswith("."):
        yield f"{question.id}: the mentor's reasoning must be 1 to {LONGEST_ANSWER} sentences: {reasoning!r}"
    for match in _RULE.finditer(reasoning):
        if _ratio(match["unit"], match["to"]) != int(match["factor"]):
            yield f"{question.id}: the mentor is wrong: {match[0]!r}"
    products = list(_PRODUCT.finditer(reasoning))
    for match in products:
        value = int(match["left"]) * _ratio(match["unit"], match["to"])
        if not int(match["a"]) * int(match["b"]) == int(match["product"]) == value or match["a"] != match["left"]:
            yield f"{question.id}: the mentor is wrong: {match[0]!r}"
    if isinstance(question.check, NumberCheck) and [match["product"] for match in products] != [question.answer]:
        yield f"{question.id}: the mentor does not compute {question.answer}: {reasoning!r}"


def _ratio(one: str, other: str) -> Fraction:
    left, right = unit_named(one), unit_named(other)
    if left.quantity != right.quantity:
        raise ValueError(f"{one} and {other} measure different quantities")
    return left.size / right.size


def _check_sizes(pack: QuestionPack) -> Iterator[str]:
    total = sum(len(questions) for questions in pack.splits.values())
    if total < MINIMUM_TOTAL:
        yield f"the pack has {total} questions, fewer than {MINIMUM_TOTAL}"
    for split, (low, high) in SHARES.items():
        share = len(pack.splits[split]) / max(1, total)
        if not low <= share <= high:
            yield f"{split} has {share:.0%} of the questions; it should have {low:.0%} to {high:.0%}"


def _check_leaks(pack: QuestionPack) -> Iterator[str]:
    homes: dict[tuple[str, str], str] = {}
    ids: set[str] = set()
    for split, questions in pack.splits.items():
        for question in questions:
            if question.id in ids:
                yield f"{question.id}: the id occurs twice"
            ids.add(question.id)
            # Here, unlike in files of others, two questions that differ in their numbers alone are near-duplicates.
            masked = re.sub(r"\d+", "0", normalised(question.text))
            for kind, key in (("family", question.family), ("text", masked)):
                home = homes.setdefault((kind, key), split)
                if home != split:
                    yield f"{question.id}: its {kind} {key!r} is in {home} and in {split}"


def _check_mentor(pack: QuestionPack) -> Iterator[str]:
    train = {question.id: question for question in pack.splits["train"]}
    answered = [subject for subject, _ in pack.answers]
    for missing in train.keys() - set(answered):
        yield f"{missing}: the mentor has no answer to it"
    for subject, answer in pack.answers:
        if answered.count(subject) > 1:
            yield f"{subject}: the mentor answers it twice"
        if subject not in train:
            yield f"{subject}: the mentor answers it, but it is no question of train"
        else:
            yield from check_answer(train[subject], answer)
