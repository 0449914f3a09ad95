"""Verdicts by rule."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perseid.data.records import ChoiceCheck, CodeCheck, NumberCheck, PatternCheck
from perseid.meteor.checks import CheckError, CodeResult, check_answer, check_choice, check_number, check_pattern
from perseid.meteor.numbers import find_numbers, marked_parts


def values(text):
    return [number.value for number in find_numbers(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5", [5]),
        ("5 kg and 7km.", [5, 7]),
        ("1,000 m", [1000]),
        ("1,234,567.5", [1234567.5]),
        ("12 500 litres", [12500]),
        ("1\u202f000\u202f000", [1000000]),
        ("-3.5 degrees", [-3.5]),
        ("\u22123", [-3]),
        ("it is +4", [4]),
        ("3-5", [3, 5]),
        (".5 m", [0.5]),
        ("1e3", [1000]),
        ("2.5E-3", [0.0025]),
        ("1.5 x 10^3", [1500]),
        ("1.1 \u00d7 10\u00b3", [1100]),
        ("5 * 10**-2", [0.05]),
        ("10^6", [1e6]),
        ("10\u207b\u00b3 m", [0.001]),
        ("3/4", [0.75]),
        ("1 1/2 hours", [1.5]),
        ("2\u00bd", [2.5]),
        ("\\frac{1}{4}", [0.25]),
        ("H2O and q17", []),
        ("5 m^2", [5]),
        ("$5", [5]),
        ("-\u20ac20", [-20]),
        ("**42**", [42]),
        ("3,5", [None]),
        ("1/0", [None]),
        ("1e999", [None]),
        ("1e9999", [None]),
        ("no numbers", []),
    ],
)
def test_numbers_are_found(text, found):
    assert values(text) == pytest.approx(found, rel=1e-12, abs=0) if None not in found else values(text) == found


@given(st.integers(-(10**12), 10**12))
def test_every_integer_is_read_in_every_spelling(number):
    for text in (f"{number}", f"{number:,}", f"so it is {number:,} m.", f"Answer: **{number}**", f"= {number} kg"):
        assert values(text) == [number]


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-9, max_value=1e12))
def test_every_float_is_read_as_itself(number):
    assert values(f"x = {number!r} m") == [number]
    assert values(f"x = {number:e} m") == [float(f"{number:e}")]


@given(st.text(max_size=60))
def test_no_text_breaks_the_reading_of_numbers(text):
    assert all(number.value is None or math.isfinite(number.value) for number in find_numbers(text))
    marked_parts(text)


@pytest.mark.parametrize(
    "text",
    [
        "5000",
        "5 km is 5,000 m",
        "Answer: 5000 m, because a km is more than a m",
        "Answer: 5000 m (1 km = 1000 m)",
        "The answer is 5 * 1000 = 5000.",
        "Answer:\n5000",
        "**Answer:** 5000\n\nThis took 3 steps.",
        "\\boxed{5000} in 2 steps",
        "Answer: 4\nNo, I was wrong.\nAnswer: 5 x 10^3",
        "The answer is found by multiplying.\n5000",
        "Answer: 5000 m or 5,000.0 m",
    ],
)
def test_a_right_number_is_right(text):
    assert check_number(NumberCheck(value=5000), text).right


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "no number"),
        ("I do not know", "no number"),
        ("5000, or maybe 4000", "too small"),
        ("Answer: 5000 or 4000", "several"),
        ("The answer is not 5000 but 4000", "several"),
        ("Answer: 5,00", "two ways"),
        ("-5000", "sign"),
        ("50000", "decimal point"),
        ("500", "decimal point"),
        ("5001", "too large"),
        ("Answer: 1 because it is 5000", "several"),
    ],
)
def test_a_wrong_or_ambiguous_number_is_wrong_and_says_why(text, hint):
    verdict = check_number(NumberCheck(value=5000), text)
    assert not verdict.right
    assert hint in verdict.advice


def test_the_tolerance_is_the_largest_difference():
    check = NumberCheck(value=3.14, tolerance=0.01)
    assert check_number(check, "3.15").right
    assert check_number(check, "3.13").right
    assert not check_number(check, "3.16").right
    assert check_number(NumberCheck(value=0.3), "0.1 + 0.2 = 0.30").right


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from(["{}", "Answer: {}", "It is {} m (or so)."]))
def test_advice_never_names_the_right_number(value, guess, form):
    verdict = check_number(NumberCheck(value=value), form.format(repr(guess)))
    assert verdict.right == math.isclose(value, guess, rel_tol=1e-9)
    assert bool(verdict.advice) != verdict.right
    if not verdict.right:
        assert not find_numbers(verdict.advice)


UNITS = ("gram", "kilogram", "milligram", "metric ton", "ton")


def unit(text, answer="gram"):
    return check_choice(ChoiceCheck(options=UNITS, answer=answer), text)


@pytest.mark.parametrize(
    "text",
    [
        "gram",
        "The Gram.",
        "It is measured in grams",
        "not the kilogram but the gram",
        "It is the gram, not the kilogram",
        "gram rather than kilogram",
        "Neither kilogram nor ton, but gram",
        "A kilogram is wrong. It is the gram.",
        "A kilogram has many parts. Answer: gram",
        "The kilogram isn't right; the gram is.",
        "It isn't the kilogram, it is the gram.",
    ],
)
def test_an_answer_that_names_the_right_option_alone_is_right(text):
    assert unit(text).right, unit(text).advice


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("kilogram", "not kilogram"),
        ("milligrams", "not milligram"),
        ("gram or kilogram", "several"),
        ("not gram", "only says"),
        ("gram is wrong", "only says"),
        ("It is gram. It is not gram.", "contradicts"),
        ("Neither gram nor kilogram", "only says"),
        ("gramophone", "none"),
        ("deca-gram", "none"),
        ("", "none"),
        ("gram\nAnswer: ton", "not ton"),
        ("It is never the gram", "only says"),
    ],
)
def test_an_answer_that_does_not_is_wrong_and_says_why(text, hint):
    verdict = unit(text)
    assert not verdict.right
    assert hint in verdict.advice


def test_the_longest_option_counts_where_one_is_part_of_another():
    assert unit("metric ton", "metric ton").right
    assert unit("a metric  ton", "metric ton").right
    assert not unit("metric ton", "ton").right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("B", True),
        ("(B)", True),
        ("Answer: B", True),
        ("B is right", True),
        ("Option B because a reason is a reason", True),
        ("b", False),
        ("A", False),
        ("A or B", False),
        ("A good question. B.", True),
    ],
)
def test_single_letters_count_as_capitals_only(text, right):
    assert check_choice(ChoiceCheck(options=("A", "B", "C"), answer="B"), text).right is right


WORDS = st.text("abcdefghij", min_size=4, max_size=9)


@given(st.lists(WORDS, min_size=2, max_size=5, unique=True), st.data())
def test_naming_one_option_is_right_exactly_when_it_is_the_answer(options, data):
    # A plural of another option would be two readings of one word.
    assume(not any(one + end in options for one in options for end in ("s", "es")))
    answer, named = data.draw(st.sampled_from(options)), data.draw(st.sampled_from(options))
    check = ChoiceCheck(options=tuple(options), answer=answer)
    verdict = check_choice(check, f"I think it is the {named.upper()}.")
    assert verdict.right == (answer == named)
    assert answer not in verdict.advice.split()
    other = data.draw(st.sampled_from([one for one in options if one != answer]))
    assert not check_choice(check, f"{answer} or {other}").right
    assert check_choice(check, f"not {other} but {answer}").right
    assert not check_choice(check, f"not {answer} but {other}").right


def test_a_broken_check_is_an_error_that_says_what_to_correct():
    with pytest.raises(CheckError, match="none of the options"):
        check_choice(ChoiceCheck(options=("a1", "b1"), answer="c1"), "a1")
    with pytest.raises(CheckError, match="twice"):
        check_choice(ChoiceCheck(options=("gram", "Gram"), answer="gram"), "gram")
    with pytest.raises(CheckError, match="no regular expression"):
        check_pattern(PatternCheck(pattern="("), "x")
    with pytest.raises(CheckError, match="finite"):
        check_number(NumberCheck(value=math.inf), "5")


def test_a_pattern_must_match_and_the_forbidden_one_must_not():
    check = PatternCheck(pattern=r"\b10[:.]30\b", forbidden=r"\bpm\b")
    assert check_pattern(check, "At 10:30.").right
    assert "missing" in check_pattern(check, "At 11:30.").advice
    assert "not true" in check_pattern(check, "10:30 PM").advice


async def test_code_goes_to_the_runner_and_only_complete_code_does():
    check = CodeCheck(tests=("assert f(1) == 2",))
    ran = []

    async def run(the_check, code):
        ran.append((the_check, code))
        return CodeResult("x + 1" in code, "A test failed.")

    good = "```python\ndef f(x):\n    return x + 1\n```"
    assert (await check_answer(check, good, run)).right
    assert "A test failed." in (await check_answer(check, good.replace("+", "-"), run)).advice
    assert len(ran) == 2
    assert "not closed" in (await check_answer(check, good[:-3], run)).advice
    assert "no code" in (await check_answer(check, "Use a loop.", run)).advice
    assert len(ran) == 2
    with pytest.raises(CheckError, match="no sandbox"):
        await check_answer(check, good)
