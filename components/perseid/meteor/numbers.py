"""Numbers in a model's answer, as values.

Read are: signs, thousands separators (comma, blank, thin blank), decimals with a point, scientific notation (1e3,
1.5 x 10^3, 10³), fractions (3/4, 1 1/2, ½, LaTeX's \\frac) and numbers with a unit attached (5kg). Not read are digits
inside a word (H2O, q17) and exponents of units (m^2). A decimal comma ("3,5") is ambiguous and is reported as such.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

_BLANK = "[ \u00a0\u2009\u202f]"
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_MANTISSA = (
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])(?:\.[0-9]+)?"
    rf"|[0-9]{{1,3}}(?:{_BLANK}[0-9]{{3}})+(?![0-9])(?:\.[0-9]+)?"
    r"|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
)
_NUMBER = re.compile(
    rf"""(?<![\w^./])(?P<sign>(?<![\w)\]])[-+\u2212\u2013])?[$£€¥]?(?:
        \\[dt]?frac\{{(?P<above>[0-9]+)\}}\{{(?P<below>[0-9]+)\}}
      | (?P<whole>[0-9]+)?[ ]?(?P<vulgar>[\u00bc-\u00be\u2150-\u215e])
      | (?:(?P<units>[0-9]+)[ ])?(?P<numerator>[0-9]+)[ ]?[/\u2044][ ]?(?P<denominator>[0-9]+)(?![0-9]|[ ]?/)
      | (?P<odd>[0-9]+(?:,[0-9]+)+(?:\.[0-9]+)?)
      | 10(?:\^|\*\*)\{{?\(?(?P<power>[-+\u2212]?[0-9]{{1,4}})[)}}]{{0,2}}
      | 10(?P<raised>[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{{1,4}})
      | (?P<mantissa>{_MANTISSA})(?:
            [eE](?P<exponent>[-+]?[0-9]{{1,4}})(?!\w)
          | \s?(?:[x\u00d7*\u00b7]|\\times)\s?10(?:\^|\*\*)\{{?\(?(?P<times>[-+\u2212]?[0-9]{{1,4}})[)}}]{{0,2}}
          | \s?(?:[x\u00d7*\u00b7]|\\times)\s?10(?P<high>[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{{1,4}})
        )?
    )""",
    re.VERBOSE,
)
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class FoundNumber:
    """A number and where it stands."""

    value: float | None
    """None: it may be read in several ways (a decimal comma), or it is not finite."""
    start: int
    end: int


def find_numbers(text: str) -> tuple[FoundNumber, ...]:
    """All numbers of a text, in their order."""
    return tuple(FoundNumber(_value(match), match.start(), match.end()) for match in _NUMBER.finditer(text))


def _value(match: re.Match[str]) -> float | None:
    sign = -1.0 if match["sign"] in {"-", "\u2212", "\u2013"} else 1.0
    try:
        value = sign * _size(match)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None


def _size(match: re.Match[str]) -> float:
    if match["above"] is not None:
        return int(match["above"]) / int(match["below"])
    if match["vulgar"] is not None:
        return int(match["whole"] or 0) + unicodedata.numeric(match["vulgar"])
    if match["numerator"] is not None:
        return int(match["units"] or 0) + int(match["numerator"]) / int(match["denominator"])
    if match["odd"] is not None and not _THOUSANDS.fullmatch(match["odd"]):
        raise ValueError("a comma that separates no thousands")
    mantissa = match["odd"] or match["mantissa"] or "1"
    exponent = next((match[name] for name in ("exponent", "times", "high", "power", "raised") if match[name]), "0")
    exponent = exponent.translate(_SUPERSCRIPTS).replace("\u2212", "-")
    # As one decimal, so that 1.1 x 10^3 is the nearest float to 1100 and not a product that is a hair beside it.
    return float(f"{re.sub('[^0-9.]', '', mantissa)}e{exponent}")


_MARK = re.compile(r"(?<!\w)answer(?!\w)[*_\s]*(?:(?:is\b|=|:)[*_\s]*)+", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")


def marked_parts(text: str) -> tuple[str, ...]:
    """What an answer marks as its result, the last mark first: `Answer: ...`, `the answer is ...`, LaTeX's boxed.

    A part goes to the end of its line; a mark at a line's end marks the next line that is not empty.
    """
    marks: list[tuple[int, str]] = [(match.start(), match[1]) for match in _BOXED.finditer(text)]
    for match in _MARK.finditer(text):
        rest = text[match.end() :].lstrip()
        marks.append((match.start(), rest.split("\n", 1)[0]))
    return tuple(part for _, part in sorted(marks, reverse=True) if part.strip())
