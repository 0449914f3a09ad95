"""What learner, mentor and judge are asked, in our own words. The constant part of a prompt comes first.

What the learner is trained on (plain questions and verdicts) is a single user's turn without a system's turn, so that
it is asked in the form in which it learned. A reference answer stands in a judge's prompt and in no other.
"""

from __future__ import annotations

from perseid.data.prompts import plain_question
from perseid.data.records import Question
from perseid.engines.protocol import Message
from perseid.meteor.records import CRITERIA


def _expert(question: Question) -> str:
    return f"an expert in {question.field}" if question.field else "an expert in the field of the question"


THINK_FIRST = (
    "Think step by step in one to three short sentences. Then end with a line that begins with `Answer:` and gives the"
    " result alone."
)


def chain_of_thought_prompt(question: Question) -> str:
    """The user's turn that asks for the reasoning and then the result (methods ME4)."""
    return plain_question(question, THINK_FIRST)


def by_steps_prompt(question: Question, steps: str) -> str:
    """The user's turn that asks for the answer by steps that a search has found, one a line (methods ME8).

    The plain question comes first, to the byte: in that form the learner has learned to answer.
    """
    return f"{plain_question(question)}\n\nUse these steps:\n{steps}"


def guideline_prompt(question: Question) -> tuple[Message, ...]:
    """Ask the learner for a guideline, and not for the answer (METEOR, arXiv 2411.11933, stage 1; methods ME1)."""
    return (
        Message(
            "system",
            f"You are {_expert(question)}. Somebody stronger than you will answer a question of your field. Do not"
            " answer it yourself. Write a guideline for a good answer: what it must cover, which facts and rules"
            " matter, how to proceed, and which mistakes are common. Write a few short sentences.",
        ),
        Message("user", f"Question: {question.text}\n\nWrite the guideline. Do not answer the question."),
    )


def mentor_prompt(question: Question, guideline: str | None) -> str:
    """The mentor's turn: the plain question, with the expert's guideline in front where there is one (methods ME2)."""
    if guideline is None:
        return plain_question(question)
    return (
        f"This guideline was written by {_expert(question)}. Follow it where it is right, and answer correctly where"
        f" it is not. Do not mention it.\n\nGuideline:\n{guideline}\n\nQuestion:\n{plain_question(question)}"
    )


def revision_prompt(prompt: str, previous: str, advice: str) -> tuple[Message, ...]:
    """Ask the learner to answer again: question, its own previous answer and the advice (methods ME6)."""
    said = f" Advice: {advice}" if advice else ""
    return (
        Message("user", prompt),
        Message("assistant", previous if previous.strip() else "(no answer)"),
        Message(
            "user",
            f"This answer is not right.{said}\n\nWrite the whole answer again, corrected and in the same form. Do not"
            " mention the first answer or the advice.",
        ),
    )


JUDGE_REMINDER = (
    'That was not in the form asked for. Answer with one JSON object and nothing else: {"verdict": "right" or "wrong",'
    ' "advice": "..."}'
)
"""Follows a verdict that could not be read."""


def judge_prompt(question: Question, answer: str) -> tuple[Message, ...]:
    """Ask for a verdict and advice (methods ME4, ME5). The reference answer is shown where there is one."""
    reference = f"\n\nReference answer, for you alone:\n{question.answer}" if question.answer else ""
    return (
        Message(
            "system",
            "You judge whether an answer to a question is right. It is wrong when its result is wrong, when a step of"
            " its reasoning is wrong, or when it does not answer the question. Answer with one JSON object and nothing"
            ' else: {"verdict": "right" or "wrong", "advice": "..."}. In the advice to a wrong answer, say in one or'
            " two sentences what is wrong and how to proceed, but do not give the result away. Leave the advice to a"
            " right answer empty.",
        ),
        Message("user", f"Question:\n{question.text}{reference}\n\nAnswer to be judged:\n{answer}"),
    )


RIGHT, WRONG = "right", "wrong"
"""What the learner may say of an answer."""


def self_verdict_prompt(question: Question, answer: str) -> str:
    """The user's turn that asks the learner for its verdict: in training, in measuring and in choosing."""
    return (
        f"Is this answer to the question right or wrong?\n\nQuestion:\n{question.text}\n\nAnswer to be judged:\n"
        f"{answer}\n\nSay {RIGHT} or {WRONG}."
    )


_CHOICES = '"A", "B" or "tie"'
_FORM = "{" + ", ".join(f'"{criterion}": {_CHOICES}' for criterion in CRITERIA) + "}"

COMPARISON_REMINDER = f"That was not in the form asked for. Answer with one JSON object and nothing else: {_FORM}"
"""Follows a comparison that could not be read."""


def comparison_prompt(question: Question, answer_a: str, answer_b: str) -> tuple[Message, ...]:
    """Ask which of two answers is better by METEOR's five criteria and altogether (methods ME11)."""
    reference = f"\n\nReference answer, for you alone:\n{question.answer}" if question.answer else ""
    return (
        Message(
            "system",
            "You compare two answers to a question by these criteria. accuracy: what it says is true. completeness:"
            " nothing that was asked for is missing. relevance: it keeps to the question. coherence: its parts follow"
            " from each other. reliability: one may act on it without checking. overall: which one you would rather"
            " get. Length and order do not count. Say tie where neither is better. Answer with one JSON object and"
            f" nothing else: {_FORM}",
        ),
        Message("user", f"Question:\n{question.text}{reference}\n\nAnswer A:\n{answer_a}\n\nAnswer B:\n{answer_b}"),
    )


SCORE_REMINDER = (
    'That was not in the form asked for. Answer with one JSON object and nothing else: {"score": a number from 0 to 10}'
)
"""Follows a score that could not be read."""


def score_prompt(question: Question, answer: str) -> tuple[Message, ...]:
    """Ask for an absolute score from 0 to 10 (methods ME11)."""
    reference = f"\n\nReference answer, for you alone:\n{question.answer}" if question.answer else ""
    return (
        Message(
            "system",
            "You rate an answer to a question. 0: wrong or useless. 5: half right. 10: right, complete, clear and"
            ' nothing beside the point. Answer with one JSON object and nothing else: {"score": a number from 0 to'
            " 10}.",
        ),
        Message("user", f"Question:\n{question.text}{reference}\n\nAnswer to be rated:\n{answer}"),
    )
