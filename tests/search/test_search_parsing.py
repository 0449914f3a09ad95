"""What answers mean."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.search.parsing import (
    SCORES,
    Reflection,
    Rejection,
    expected_score,
    ladder_band,
    normal_form,
    parse_reflection,
    parse_score,
    parse_step,
    parse_verdict,
    split_chain,
)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("Return x + 3.", "Return x + 3."),
        ("Next step: Return x + 3.", "Return x + 3."),
        ("**Next step:** Return x + 3.", "Return x + 3."),
        ("**Next step**: Return x + 3.", "Return x + 3."),
        ("### Next step: Return x + 3.", "Return x + 3."),
        ("Next step:\n\nReturn x + 3.", "Return x + 3."),
        ("Step 2: Return x + 3.", "Return x + 3."),
        ("Next step: Step 2: Return x.", "Return x."),
        ("- Return x + 3.", "Return x + 3."),
        ("1. Return x + 3.", "Return x + 3."),
        ("2) Return x + 3.", "Return x + 3."),
        ("Scale by 0.5 then round.", "Scale by 0.5 then round."),
        ("Next step: 0.5 of x is the mean.", "0.5 of x is the mean."),
        ("Multiply by 2.5\nand round.", "Multiply by 2.5 and round."),
        ("Return x ** 2 + y ** 2.", "Return x ** 2 + y ** 2."),
        ("Return x**2 + y**2.", "Return x**2 + y**2."),
        ("Next step: Return (4 + 3) = 7.", "Return (4 + 3) = 7."),
        ("Take x - y - 1. Then stop.", "Take x - y - 1. Then stop."),
        ("Use a **set** of words.", "Use a set of words."),
        ("Sort it.\n\nThis works because of order.", "Sort it."),
        ("Sort it.\nStep 3: Return it.", "Sort it."),
        ("Sort it.\n```python\nsorted(x)\n```\n", "Sort it."),
        ("Sort it.\n```python\nsorted(x", "Sort it."),
        ("Sort it.\ndef f(x):\n    return sorted(x)", "Sort it."),
        ("Import math and use its root.", "Import math and use its root."),
        ("Sure, here it is.\n\nNext step: Sort it.", "Sort it."),
    ],
)
def test_a_step_is_read_without_its_decoration(text, step):
    assert parse_step(text) == step


@pytest.mark.parametrize(
    "text", ["", "  \n", "Next step:", "```python\nreturn 1\n```", "**", "...", "def f(x):\n    return x"]
)
def test_an_answer_without_words_is_empty(text):
    assert parse_step(text) is Rejection.EMPTY


def test_a_step_that_is_in_the_plan_already_is_repeated():
    assert parse_step("Next step: return  the SUM", ["Return the sum."]) is Rejection.REPEATED
    assert parse_step("Return the sum of both.", ["Return the sum."]) == "Return the sum of both."


def test_a_truncated_step_keeps_whole_sentences_only():
    assert parse_step("Sort the list. Then take the", truncated=True) == "Sort the list."
    assert parse_step("Sort the list and then take 0.5 of", truncated=True) is Rejection.TRUNCATED
    assert parse_step("Sort the list\n\nThis is", truncated=True) == "Sort the list"


@given(st.text(max_size=80), st.booleans())
def test_any_text_is_one_clean_line_or_a_rejection(text, truncated):
    step = parse_step(text, truncated=truncated)
    assert isinstance(step, Rejection) or (step == " ".join(step.split()) and any(map(str.isalnum, step)))


@given(st.floats(0.001, 999).map(lambda number: f"{number:.3f}"))
def test_decimals_are_never_chopped(number):
    assert parse_step(f"Next step: Multiply x by {number} and round.") == f"Multiply x by {number} and round."


def test_s06_only_the_end_tag_ends_a_branch():
    assert parse_reflection("<end>", may_end=True) == Reflection("", ends=True)
    assert not parse_reflection("Analysis: not solved yet, almost at the end", may_end=True).ends
    assert not parse_reflection("This is solved.", may_end=True).ends
    assert parse_reflection("**Analysis:** Sort first.", may_end=True) == Reflection("Sort first.", ends=False)


def test_s06_the_root_cannot_end():
    assert parse_reflection("<end>", may_end=False) == Reflection("", ends=False)


@pytest.mark.parametrize(
    ("score", "band"),
    [
        *[(0, "erroneous"), (3, "erroneous"), (3.5, "incoherent"), (5, "incoherent"), (5.01, "incomplete")],
        *[(7, "incomplete"), (8, "defective"), (9, "defective"), (10, "none")],
    ],
)
def test_s07_scores_map_to_the_rungs_of_the_ladder(score, band):
    assert ladder_band(score) == band


@pytest.mark.parametrize("text", ["", "Score: 8", "7.5", "11", "-1", "eight", "8 9"])
def test_s07_what_is_no_score_is_none(text):
    assert parse_score(text) is None


def test_s07_the_expectation_is_the_mean_under_the_probabilities():
    logprobs = dict.fromkeys(SCORES, -math.inf) | {"8": math.log(0.25), "10": math.log(0.75)}
    assert expected_score(logprobs) == pytest.approx(9.5, abs=1e-9)
    assert expected_score({"8": 0.0}) is None
    assert expected_score(dict.fromkeys(SCORES, -math.inf)) is None


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("solved", True), ("<unsolved>", False), (" Solved ", True), ("not solved", None), ("", None)],
)
def test_s13_a_verdict_is_one_of_two_words(text, verdict):
    assert parse_verdict(text) is verdict


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Step 1: Sort it.\nStep 2: Return it.", ("Sort it.", "Return it.")),
        ("Here is the plan:\n1. Sort it\n   by length.\n2. Return it.", ("Sort it by length.", "Return it.")),
        ("Sort it.\nReturn it.", ("Sort it.", "Return it.")),
        ("- Sort it.\n- Sort it.\n- Return 0.5 of it.", ("Sort it.", "Return 0.5 of it.")),
        ("```python\nx\n```", ()),
    ],
)
def test_s22_a_chain_is_split_into_its_steps(text, steps):
    assert split_chain(text) == steps


def test_s22_a_truncated_chain_leaves_its_last_step_out():
    assert split_chain("Step 1: Sort it.\nStep 2: Return the fir", truncated=True) == ("Sort it.",)


@given(st.text(max_size=60))
def test_normal_form_is_idempotent(text):
    assert normal_form(normal_form(text)) == normal_form(text)
