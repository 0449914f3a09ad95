"""What is asked, and what the answers mean (ME1, ME2, ME5, ME6)."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meteor_scripted import completion, question

from perseid.data.prompts import plain_question
from perseid.meteor import prompts
from perseid.meteor.parsing import (
    JudgedAs,
    is_echo,
    is_refusal,
    normal_form,
    parse_comparison,
    parse_score,
    parse_verdict,
    right_probability,
    whole_sentences,
)
from perseid.meteor.records import CRITERIA

QUESTION = question(answer="SECRET 1000 m")


def text_of(messages):
    return "\n".join(message.content for message in messages)


def test_a_guideline_prompt_has_field_question_and_the_rule_not_to_answer():
    text = text_of(prompts.guideline_prompt(QUESTION))
    assert "units of measurement" in text
    assert QUESTION.title in text
    assert "Do not answer" in text
    assert "stronger" in text


def test_a_mentor_reads_the_guideline_and_without_one_the_plain_question_alone():
    with_guideline = prompts.mentor_prompt(QUESTION, "Think of kilo.")
    assert "Think of kilo." in with_guideline
    assert plain_question(QUESTION) in with_guideline
    assert prompts.mentor_prompt(QUESTION, None) == plain_question(QUESTION)


def test_a_revision_has_the_question_the_previous_answer_and_the_advice():
    text = text_of(prompts.revision_prompt("How many?", "Answer: 10", "Too small."))
    assert "How many?" in text
    assert "Answer: 10" in text
    assert "Too small." in text


def test_a_revision_of_an_empty_answer_has_no_empty_turn():
    assert all(message.content.strip() for message in prompts.revision_prompt("How many?", " ", ""))


def test_an_answer_by_steps_is_asked_for_by_the_plain_question_with_the_steps_behind_it():
    asked = prompts.by_steps_prompt(QUESTION, "Step 1: Count.")
    assert asked.startswith(plain_question(QUESTION))
    assert asked.endswith("Step 1: Count.")


def test_judges_see_the_reference_and_learners_never_do():
    for messages in (
        prompts.judge_prompt(QUESTION, "x"),
        prompts.comparison_prompt(QUESTION, "x", "y"),
        prompts.score_prompt(QUESTION, "x"),
    ):
        assert "SECRET" in text_of(messages)
    learner = [
        text_of(prompts.guideline_prompt(QUESTION)),
        plain_question(QUESTION),
        prompts.chain_of_thought_prompt(QUESTION),
        prompts.mentor_prompt(QUESTION, "g"),
        prompts.self_verdict_prompt(QUESTION, "x"),
        prompts.by_steps_prompt(QUESTION, "Step 1: x"),
    ]
    assert not any("SECRET" in text for text in learner)


@pytest.mark.parametrize(
    ("text", "right", "advice"),
    [
        ('{"verdict": "right", "advice": ""}', True, ""),
        ('{"verdict": "wrong", "advice": "Count  again."}', False, "Count again."),
        ('{"verdict": "Not Correct", "advice": null}', False, ""),
        ('```json\n{"verdict": "correct"}\n```', True, ""),
        ('Here it is: {"verdict": "incorrect", "advice": "No."} I hope it helps.', False, "No."),
        ("Verdict: right", True, ""),
        ("**Verdict:** wrong.\n**Advice:** Multiply instead.", False, "Multiply instead."),
        ('{"verdict": "right", "advice": "nothing to add"}', True, ""),
    ],
)
def test_a_verdict_in_its_form_is_read(text, right, advice):
    assert parse_verdict(text) == JudgedAs(right, advice)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Not Correct",
        "The answer is correct.",
        "Correctness: high",
        "Verdict: mostly right",
        "Verdict: right or wrong",
        "Verdict: right\nVerdict: wrong",
        '{"verdict": true}',
        '{"verdict": "right"} or {"verdict": "wrong"}',
        '{"verdict": "right", "verdict": "wrong"}',
        '{"verdict": "wrong", "advice": ["x"]}',
        '{"verdict": "wrong", "advice": "cut of',
        "[" * 5000,
    ],
)
def test_a_verdict_without_its_form_is_none_and_never_a_guess(text):
    assert parse_verdict(text) is None


def test_of_a_verdict_that_was_cut_off_only_whole_lines_count():
    assert parse_verdict("Verdict: right", truncated=True) is None
    assert parse_verdict("Verdict: wrong\nAdvice: Mult", truncated=True) == JudgedAs(False, "")


@given(st.text(max_size=80))
def test_no_text_breaks_a_parser(text):
    for parse in (parse_verdict, parse_comparison, parse_score):
        parse(text)
        parse('{"verdict": ' + text)
    assert isinstance(is_refusal(text), bool)
    assert normal_form(normal_form(text)) == normal_form(text)


def test_a_comparison_needs_all_criteria():
    whole = dict.fromkeys(CRITERIA, "A") | {"coherence": "tie", "overall": "Answer B"}
    read = parse_comparison(json.dumps(whole))
    assert read == dict.fromkeys(CRITERIA, "first") | {"coherence": "tie", "overall": "second"}
    for missing in CRITERIA:
        assert parse_comparison(json.dumps({name: value for name, value in whole.items() if name != missing})) is None
    assert parse_comparison(json.dumps(whole | {"accuracy": "both"})) is None
    assert parse_comparison("A is better") is None


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 7}', 7.0),
        ('{"score": 7.5}', 7.5),
        ('{"score": "8/10"}', 8.0),
        ("Score: 9", 9.0),
        ("Score: 0/10", 0.0),
        ("7", None),
        ("Score: 11", None),
        ("Score: 7\nScore: 8", None),
        ('{"score": -1}', None),
        ('{"score": true}', None),
        ('{"score": NaN}', None),
        ('{"score": "good"}', None),
    ],
)
def test_a_score_is_read_in_its_form_or_is_none(text, score):
    assert parse_score(text) == score


def test_a_probability_is_that_of_right_against_wrong():
    both = {"right": math.log(0.2), "wrong": math.log(0.6)}
    assert right_probability(completion("wrong", choices=both)) == pytest.approx(0.25)
    assert right_probability(completion("wrong", choices={"right": -math.inf, "wrong": 0.0})) == 0.0
    assert right_probability(completion("wrong")) is None
    assert right_probability(completion("wrong", choices={"right": 0.0})) is None
    assert right_probability(completion("wrong", choices={"right": math.nan, "wrong": 0.0})) is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, I cannot answer this question.",
        "Sorry, I am not able to do that.",
        "I cannot assist with this request.",
        "As an AI language model, I don't have opinions.",
    ],
)
def test_a_refusal_is_known(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text", ["A kilometre is 1000 m.", "One cannot divide by zero.", "Sorry state: 5 m. Answer: 5", "I can help: 5."]
)
def test_an_answer_is_no_refusal(text):
    assert not is_refusal(text)


def test_an_echo_is_known_and_a_short_answer_from_the_question_is_none():
    asked = "Is 5 m or 6 m longer? Think step by step, then say so."
    assert is_echo(asked + " Yes.", asked)
    assert is_echo("think step by step, then say so", asked)
    assert is_echo(QUESTION.title, "another prompt", QUESTION)
    assert not is_echo("6 m", asked)
    assert not is_echo("6 m is longer than 5 m. Answer: 6 m", asked)


def test_a_text_that_was_cut_off_keeps_its_whole_sentences():
    assert whole_sentences("Use 1.5 as a factor. Then mult") == "Use 1.5 as a factor."
    assert whole_sentences("no end") == ""
