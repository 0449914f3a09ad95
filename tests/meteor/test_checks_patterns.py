"""Patterns of users: Python's regular expressions, and none that runs for ever. Checks that no answer could pass."""

from __future__ import annotations

import asyncio
import math
import re
import time
import warnings

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perseid.data.jsonl import read_jsonl
from perseid.data.question_splits import SPLITS
from perseid.data.questions import PACK
from perseid.data.records import ChoiceCheck, CodeCheck, NumberCheck, PatternCheck, Question
from perseid.meteor import checks
from perseid.meteor.checks import CheckError, check_answer, check_pattern, require_sound
from perseid.meteor.judges import VerifierJudge

RUNAWAY = r"(a|aa)+\1c"
"""On many letters a: every way to divide them is tried."""
ANSWER = "a" * 200

PIECES = (
    r"a b A 1 e . , ^ $ | ( (?: (?i: (?-i: (?= (?! (?> ) * + ? *? ++ { } {2} {1,} {,2} {} {e} {i<=1} \{ [{] [ab] [^a]"
    r" \b \w \d \1 (?P<n> (?P=n) \N{AMPERSAND}"
)
PATTERNS = st.lists(st.sampled_from(PIECES.split()), min_size=1, max_size=7).map("".join)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(checks, "PATTERN_SECONDS", 0.1)


def test_a_pattern_that_runs_away_is_given_up_with_what_to_do(impatient):
    before = time.process_time()
    with pytest.raises(CheckError, match="had no result on an answer of 200 characters") as caught:
        check_pattern(PatternCheck(pattern=RUNAWAY), ANSWER)
    assert "write it without" in str(caught.value)
    assert RUNAWAY in str(caught.value).replace("\\\\", "\\")
    assert time.process_time() - before < 2, "Python's own re takes longer than anybody lives"


def test_a_forbidden_pattern_that_runs_away_is_given_up_too(impatient):
    with pytest.raises(CheckError, match="had no result"):
        check_pattern(PatternCheck(pattern="a", forbidden=RUNAWAY), ANSWER)


async def test_a_judge_goes_on_while_and_after_a_pattern_runs_away(impatient):
    bad = Question(id="bad", title="?", check=PatternCheck(pattern=RUNAWAY))
    good = Question(id="good", title="?", check=PatternCheck(pattern="^a+$"))
    judge = VerifierJudge()
    searching = asyncio.ensure_future(judge.judge(bad, ANSWER))
    turns = 0
    while not searching.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10, "the loop stood still"
    verdict = await searching
    assert (verdict.right, verdict.reason) == (None, "bad-check")
    assert "question bad" in verdict.detail
    assert (await judge.judge(good, ANSWER)).right


@given(PATTERNS, st.lists(st.text("abAe1 {},", max_size=8), max_size=4))
def test_a_pattern_means_what_it_means_to_python(pattern, texts):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            python = re.compile(pattern, re.IGNORECASE)
        except re.error:
            assume(False)
        for text in texts:
            found = python.search(text) is not None
            assert check_pattern(PatternCheck(pattern=pattern), text).right == found
            assert check_pattern(PatternCheck(pattern="", forbidden=pattern), text).right == (not found)


@pytest.mark.parametrize(
    "pattern", ["(", "a**", "\\h", "(?<=a+)b", "(?P<n>a)(?P<n>b)", "a{99999999999}", "(" * 5000 + ")" * 5000, "(?V1)a"]
)
def test_what_python_does_not_take_is_no_pattern(pattern):
    with pytest.raises(CheckError, match="is no regular expression"):
        require_sound(PatternCheck(pattern=pattern))
    with pytest.raises(CheckError, match="is no regular expression"):
        require_sound(PatternCheck(pattern="a", forbidden=pattern))


def test_braces_that_are_no_repetition_are_braces():
    assert check_pattern(PatternCheck(pattern=r"x_{i}"), "so x_{i} is it").right
    assert not check_pattern(PatternCheck(pattern=r"x_{i}"), "so x_j is it").right
    assert check_pattern(PatternCheck(pattern=r"\N{DEGREE SIGN}C"), "20 \N{DEGREE SIGN}C").right


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (NumberCheck(value=math.nan), "finite"),
        (NumberCheck(value=1, tolerance=math.inf), "tolerance"),
        (ChoiceCheck(options=("gram", "Gram"), answer="gram"), "twice"),
        (ChoiceCheck(options=("gram", "ton"), answer="metre"), "none of the options"),
        (PatternCheck(pattern="["), "no regular expression"),
        (CodeCheck(tests=("assert f(1) ==",)), r"tests\.0 of the check is not valid Python"),
        (CodeCheck(tests=("assert True", "return 1")), r"tests\.1 of the check"),
        (CodeCheck(tests=("assert True",), setup="import"), "setup of the check"),
    ],
)
async def test_a_check_that_cannot_be_carried_out_is_found_without_an_answer(check, said):
    with pytest.raises(CheckError, match=said):
        require_sound(check)
    if not isinstance(check, CodeCheck):
        with pytest.raises(CheckError, match=said):
            await check_answer(check, "1 gram")


def test_every_check_of_the_pack_is_sound():
    for split in SPLITS:
        for question in read_jsonl(PACK / f"{split}.jsonl", Question):
            require_sound(question.check)
