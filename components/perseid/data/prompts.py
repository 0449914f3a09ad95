"""How a problem is put to a model. Evaluation and training use the same words, or the training would not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from perseid.data.records import Problem, Question

INSTRUCTION = "Answer with one Python code block."
"""Default instruction. Small models solve several times as many problems with it as with a prefilled signature."""


def question(problem: Problem, instruction: str = INSTRUCTION) -> str:
    """The user's turn of evaluation and of training records."""
    return f"{problem.statement}\n{instruction}"


ANSWER_INSTRUCTION = "End with a line `Answer: ...`."
"""Default instruction of a domain's questions: a rule can find the answer in that line."""


def plain_question(question: Question, instruction: str = ANSWER_INSTRUCTION) -> str:
    """The user's turn that asks a domain's question, of evaluation and of training records alike."""
    return f"{question.text}\n{instruction}"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A solved example that shows a model the form of an answer."""

    statement: str
    plan: str
    code: str


DEMONSTRATIONS: tuple[Demonstration, ...] = (
    Demonstration(
        "Write a function add_one(x) that returns x plus 1. For example, add_one(2) returns 3.",
        "Add 1 to x and return the result.",
        "def add_one(x):\n    return x + 1",
    ),
    Demonstration(
        "Write a function count_vowels(text) that returns the number of vowels in the text. "
        "For example, count_vowels('hello') returns 2.",
        "Go through the letters of the text and count those that are in 'aeiou'.",
        "def count_vowels(text):\n    return sum(1 for letter in text if letter in 'aeiou')",
    ),
    Demonstration(
        "Write a function ends_with_dot(text) that returns True if the text ends with a dot, otherwise False. "
        "For example, ends_with_dot('Hi.') returns True.",
        "Compare the last character of the text with '.' and return the result.",
        "def ends_with_dot(text):\n    return text[-1:] == '.'",
    ),
)


def fenced(code: str) -> str:
    """Code as a Markdown block."""
    return f"```python\n{code.strip()}\n```"


def plan_text(steps: Sequence[str]) -> str:
    """A plan as text: one step stands alone, several are numbered."""
    if len(steps) == 1:
        return steps[0]
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))


CODE_SYSTEM = "You write Python functions."
PLAN_SYSTEM = f"{CODE_SYSTEM} You follow the plan."


def code_messages(problem: Problem, steps: Sequence[str]) -> list[tuple[Literal["system", "user", "assistant"], str]]:
    """The chat that asks for code that follows a plan (methods A.4, S15), or for code alone, as (role, content).

    The demonstrations come first and are the same for every problem, so that a prefix cache holds them. They show what
    a weak model gets wrong most: to close the code block, and to stop after it.
    """
    chat: list[tuple[Literal["system", "user", "assistant"], str]] = [("system", PLAN_SYSTEM if steps else CODE_SYSTEM)]
    for shown in DEMONSTRATIONS:
        plan = [shown.plan] if steps else []
        chat += [("user", _code_request(shown.statement, plan)), ("assistant", fenced(shown.code))]
    return [*chat, ("user", _code_request(problem.statement, steps))]


def _code_request(statement: str, steps: Sequence[str]) -> str:
    plan = f"Plan: {plan_text(steps)}\n" if steps else ""
    return f"{statement}\n{plan}{INSTRUCTION}"
