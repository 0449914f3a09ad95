"""Verdicts by rule: whether an answer is right by its question's check, and why not.

The reason is advice for the learner and never names the right result. An answer that may be read in several ways is
wrong, because it is: whoever asked could not act on it.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import regex  # type: ignore[import-untyped]

from perseid.data.code import defined_names, extract_code
from perseid.data.records import Check, ChoiceCheck, CodeCheck, NumberCheck, PatternCheck
from perseid.meteor.numbers import find_numbers, marked_parts

PATTERN_SECONDS = 2.0
"""Processor time of this process after which a pattern's search is given up: thousands of times what a search takes
that does not run wild."""
_END = 'End with one line that begins with "Answer:".'


class CheckError(ValueError):
    """A check that cannot be carried out. The message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """A verdict and its reason."""

    right: bool
    advice: str
    """What a learner can use, without the right result. Empty where the answer is right."""


_RIGHT = CheckVerdict(True, "")


def _wrong(advice: str) -> CheckVerdict:
    return CheckVerdict(False, advice)


@dataclass(frozen=True, slots=True)
class CodeResult:
    """What running an answer's code against a check's tests gave."""

    passed: bool
    reason: str
    """Why it did not pass, in words that may be shown to the learner. Empty where it passed."""


class CodeRunner(Protocol):
    """Runs untrusted code: the way to the sandbox, which this room does not know."""

    async def __call__(self, check: CodeCheck, code: str) -> CodeResult:
        """Run `check.setup`, the code and `check.tests`. What it raises stops the run."""
        ...


async def check_answer(check: Check, answer: str, run_code: CodeRunner | None = None) -> CheckVerdict:
    """The verdict on an answer. Raises CheckError for a check that is broken, or needs a runner where there is none."""
    match check:
        case NumberCheck():
            return check_number(check, answer)
        case ChoiceCheck():
            return check_choice(check, answer)
        case PatternCheck():
            # In a thread: a search that runs wild must not hold up every other answer.
            return await asyncio.to_thread(check_pattern, check, answer)
        case CodeCheck():
            return await _check_code(check, answer, run_code)


def require_sound(check: Check) -> None:
    """Raise CheckError for a check by which no answer can be judged; what of it shows without an answer."""
    match check:
        case NumberCheck():
            _require_finite(check)
        case ChoiceCheck():
            _canonical_options(check)
        case PatternCheck():
            _compiled(check.pattern)
            _compiled(check.forbidden)
        case CodeCheck():
            for place, code in (("setup", check.setup), *((f"tests.{i}", test) for i, test in enumerate(check.tests))):
                if defined_names(code) is None:
                    raise CheckError(f"{place} of the check is not valid Python: {code[:80]!r}; correct it")


def check_number(check: NumberCheck, answer: str) -> CheckVerdict:
    """The number that the answer marks as its result, or else its last one, must be the check's.

    Marked are `Answer: ...` and the like, the last mark with a number in it. Behind a mark the number after the last
    equals sign counts, what stands in brackets does not where there is a number outside them, and several different
    numbers are ambiguous. Equal within `tolerance`, and within the rounding of floats.
    """
    _require_finite(check)
    values = _result_values(answer)
    if not values:
        return _wrong(f"The answer gives no number. Work it out. {_END}")
    if None in values:
        return _wrong("A number is written in a form that may be read in two ways. Write decimals with a point.")
    numbers = [value for value in values if value is not None]
    if any(not _same(number, numbers[0], 0.0) for number in numbers):
        return _wrong(f"The result names several different numbers. Decide on one. {_END}")
    return _RIGHT if _same(numbers[0], check.value, check.tolerance) else _wrong(_how_wrong(numbers[0], check))


def _require_finite(check: NumberCheck) -> None:
    if not math.isfinite(check.value):
        raise CheckError(f"the check's value is {check.value}, and no answer can be that: give a finite number")
    if not math.isfinite(check.tolerance):
        raise CheckError(f"the check's tolerance is {check.tolerance}, and everything is within it: give a number")


def _result_values(answer: str) -> list[float | None]:
    for part in marked_parts(answer):
        bare = re.sub(r"\([^()]*\)", " ", part)
        part = bare if find_numbers(bare) else part
        after = part.rsplit("=", 1)[-1]
        numbers = find_numbers(after) or find_numbers(part)
        if numbers:
            return [number.value for number in numbers]
    return [number.value for number in find_numbers(answer)[-1:]]


def _same(number: float, wanted: float, tolerance: float) -> bool:
    # A hair more than the tolerance: 3.13 and 3.14 differ by more than 0.01 as floats.
    return abs(number - wanted) <= tolerance + 1e-9 * max(abs(number), abs(wanted))


def _how_wrong(number: float, check: NumberCheck) -> str:
    if number != 0 and _same(number, -check.value, check.tolerance):
        return "The size of the result is right, but its sign is not."
    if number != 0 and check.value != 0 and number * check.value > 0:
        exponent = math.log10(abs(number)) - math.log10(abs(check.value))
        if round(exponent) != 0 and abs(exponent - round(exponent)) < 1e-9:
            size = "large" if exponent > 0 else "small"
            return f"The digits are right, but the result is too {size}: the decimal point is in the wrong place."
    size = "large" if number > check.value else "small"
    return f"The result is too {size}. Check which rule applies and calculate again, step by step."


_NEGATED_BEFORE = re.compile(
    r"(?:\b(?:not|never|no|neither|nor|without|except|unlike|than|cannot|excluding|instead\s+of|rather\s+than)"
    r"|n['\u2019]t)\b[^.;:!?\n]*$",
    re.IGNORECASE,
)
_NEGATED_AFTER = re.compile(
    r"^[*_\"'`)]*\s+(?:(?:is|are|was|were|would|will|can|could|does|do|did|has|have)\s+(?:be\s+)?"
    r"(?:not|never|wrong|incorrect|false|ruled\s+out)\b"
    r"|(?:is|are|was|were|would|wo|ca|could|does|do|did|has|have)n['\u2019]t\b|cannot\b|can['\u2019]t\b)",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[.;:!?\n,]|\b(?:but|because|since|so)\b", re.IGNORECASE)


def check_choice(check: ChoiceCheck, answer: str) -> CheckVerdict:
    """The answer must name the right option and no other; where it marks its result, the marked part must.

    Options are whole words, a plural with s included; the longest one counts where one is part of another, so that
    `kilogram` does not name `gram`. An option in a negation ("not the gram but ...") is not named. A single letter
    counts as a capital only, so that the article is no option.
    """
    canonical = _canonical_options(check)
    right = _spelling(check.answer)
    parts = marked_parts(answer)
    named, negated = set[str](), set[str]()
    for part in (*parts, answer) if parts else (answer,):
        named, negated = _named(part, list(canonical))
        if named or negated:
            break
    if len(named) > 1 or named & negated:
        return _wrong(f"The answer speaks for several of the options or contradicts itself. Decide on one. {_END}")
    if not named:
        what = "only says which option it is not" if negated else "names none of the options"
        return _wrong(f"The answer {what}. Name the one that is right. {_END}")
    (only,) = named
    return _RIGHT if only == right else _wrong(f"It is not {canonical[only]}. Consider the other options.")


def _canonical_options(check: ChoiceCheck) -> dict[str, str]:
    """Options by their spelling."""
    canonical = {_spelling(option): option for option in check.options}
    if len(canonical) < len(check.options) or not all(canonical):
        raise CheckError(f"the options {list(check.options)} hold one twice or an empty one: give each its own name")
    if _spelling(check.answer) not in canonical:
        raise CheckError(f"the answer {check.answer!r} is none of the options {list(check.options)}: correct either")
    return canonical


def _spelling(option: str) -> str:
    """An option as it is compared: a single letter as a capital, anything else without case."""
    plain = " ".join(option.split())
    return plain.upper() if _is_letter(plain) else plain.casefold()


def _is_letter(option: str) -> bool:
    return len(option) == 1 and option.isalpha()


def _named(text: str, options: Sequence[str]) -> tuple[set[str], set[str]]:
    """The options that a text names, and those that it only denies."""
    named, negated = set[str](), set[str]()
    for match in _option_pattern(options).finditer(text):
        option = _option_of(match, options)
        clause_start = max((end.end() for end in _CLAUSE.finditer(text, 0, match.start())), default=0)
        denied = _NEGATED_BEFORE.search(text[clause_start : match.start()]) or _NEGATED_AFTER.match(text[match.end() :])
        (negated if denied else named).add(option)
    return named, negated


def _option_pattern(options: Sequence[str]) -> re.Pattern[str]:
    words: list[str] = []
    for option in sorted(options, key=len, reverse=True):
        escaped = r"\s+".join(re.escape(word) for word in option.split(" "))
        if _is_letter(option):
            # "A gram" is an article and a noun; "A is right" and "A." name the option.
            words.append(rf"{escaped}(?!['\u2019]|\s+(?!is\b|because\b|since\b|and\b|or\b|but\b)[a-z])")
        else:
            plural = "(?:s|es)?" if option[-1].isalpha() and len(option) > 2 else ""
            words.append(f"(?i:{escaped}{plural})")
    return re.compile(rf"(?<![\w-])(?:{'|'.join(words)})(?![\w+#]|-\w)")


def _option_of(match: re.Match[str], options: Sequence[str]) -> str:
    found = _spelling(match[0])
    if found in options:
        return found
    return next(found[: -len(end)] for end in ("s", "es") if found.endswith(end) and found[: -len(end)] in options)


def check_pattern(check: PatternCheck, answer: str) -> CheckVerdict:
    """The pattern must match somewhere and the forbidden one nowhere. Case does not count.

    Patterns are Python's. One that has not come to an end after `PATTERN_SECONDS` is broken.
    """
    if not _found(check.pattern, answer):
        return _wrong("Something that a right answer says is missing or wrong. Check the rule and each step again.")
    if check.forbidden and _found(check.forbidden, answer):
        return _wrong("The answer also says something that is not true. Leave out what you are not sure of.")
    return _RIGHT


def _found(pattern: str, answer: str) -> bool:
    try:
        return _compiled(pattern).search(answer, timeout=PATTERN_SECONDS, concurrent=True) is not None
    except TimeoutError:
        raise CheckError(
            f"the regular expression {pattern!r} had no result on an answer of {len(answer)} characters after"
            f" {PATTERN_SECONDS:g} s: repetitions within repetitions, or several that can match the same text, take"
            " forever; write it without them"
        ) from None


_BRACE = re.compile(r"(?P<kept>\\N\{[^}]*\}|\\.|\{(?:\d+(?:,\d*)?|,\d*)\})|\{", re.DOTALL)
"""A brace that only Python's own syntax takes for itself, or what must be left alone on the way to it."""


def _compiled(pattern: str) -> regex.Pattern[str]:
    """The pattern for the package regex, whose searches can be given up, as Python's own re means it."""
    try:
        re.compile(pattern, re.IGNORECASE)
        # For regex, {e} behind something means that it may match with errors.
        plain = _BRACE.sub(lambda found: found["kept"] or r"\{", pattern)
        return regex.compile(plain, regex.IGNORECASE | regex.VERSION0)
    except (re.error, regex.error, OverflowError, RecursionError, ValueError) as error:
        raise CheckError(f"{pattern!r} is no regular expression: {error}; correct the check") from error


_NO_CODE = {
    "no-code-block": "The answer has no code. Put the whole program into one fenced code block.",
    "unclosed-code-block": "The code block is not closed. Write shorter code and close the block.",
    "does-not-parse": "The code is not valid Python. Check brackets, colons and indentation.",
}


async def _check_code(check: CodeCheck, answer: str, run_code: CodeRunner | None) -> CheckVerdict:
    if run_code is None:
        raise CheckError("the check runs code, but no sandbox was given: pass a code runner to the judge")
    extraction = extract_code(answer)
    if extraction.code is None:
        return _wrong(_NO_CODE.get(extraction.reason, "The code defines nothing. Define what the question asks for."))
    result = await run_code(check, extraction.code)
    return _RIGHT if result.passed else _wrong(f"The code does not pass its tests. {result.reason}".strip())
