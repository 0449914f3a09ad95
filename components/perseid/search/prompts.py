"""What the models are asked, in our own words and short enough for a small model.

Every prompt keeps its constant part first, then the question, then the steps, so that an engine with a prefix cache
computes the shared part once (methods D.3). Only a problem's statement is ever shown: no tests and no reference.
The words differ by what is planned: a program here, the answer to a question in `question_words`.
Worked examples are turns of the chat, because a small model follows their form and ignores a rule that describes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perseid.data.records import Problem
from perseid.engines.protocol import Message
from perseid.search.calls import Prompt


@dataclass(frozen=True, slots=True)
class Instruction:
    """The constant part of a prompt."""

    system: str
    examples: tuple[Message, ...]
    """Worked examples, as turns of the chat."""


@dataclass(frozen=True, slots=True)
class Words:
    """How a search speaks of what is planned."""

    propose: Instruction
    reflect: Instruction
    score: Instruction
    check: Instruction
    chain: Instruction


PROPOSE_REQUEST = "Say the next step."
REFLECT_REQUEST = "Do these steps solve the whole problem?"
SCORE_REQUEST = "Score from 0 to 10:"
CHECK_REQUEST = "Is the plan both correct and complete? Answer solved or unsolved."

# Worked examples. None of them may be a problem that anything is evaluated on.
_NINE = "Write a function times_nine(x) that returns x times 9. For example, times_nine(2) returns 18."
_LONG = "Write a function first_long(words) that returns the first word with more than 6 letters, or '' without one."
_LONELY = (
    "Write a function is_lonely(items) that tells whether a list has exactly one item. For example, is_lonely([7])."
)
_HALF = "Write a function second_half(text) that returns the second half of text. For example, second_half('abcd')."
_LOOK = "Go through the words and return the first one that has more than 6 letters."
_NONE = "Return '' after all words."


def render_steps(steps: Sequence[str]) -> str:
    """The steps as every prompt shows them: one a line, numbered from 1."""
    return "\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, start=1))


def state(statement: str, steps: Sequence[str]) -> str:
    """The problem and its steps, as every question about them begins."""
    shown = f"\n{render_steps(steps)}" if steps else " none"
    return f"Problem: {statement}\nSteps so far:{shown}"


def turns(*pairs: tuple[str, str]) -> tuple[Message, ...]:
    """What was asked and answered, as turns of a chat."""
    return tuple(
        message for asked, answer in pairs for message in (Message("user", asked), Message("assistant", answer))
    )


_PROPOSE_SYSTEM = (
    "You plan how to solve a programming problem. Say the next step of the plan in one short sentence, in plain words."
    " Do not write code. Do not repeat a step."
)
_PROPOSE_EXAMPLES = turns(
    (f"{state(_NINE, ())}\n{PROPOSE_REQUEST}", "Next step: Return x * 9."),
    (f"{state(_LONG, ())}\n{PROPOSE_REQUEST}", f"Next step: {_LOOK}"),
    (f"{state(_LONG, (_LOOK,))}\n{PROPOSE_REQUEST}", f"Next step: {_NONE}"),
    (f"{state(_LONELY, ())}\n{PROPOSE_REQUEST}", "Next step: Return len(items) == 1."),
    (f"{state(_HALF, ())}\n{PROPOSE_REQUEST}", "Next step: Return the text from its middle on."),
)


_REFLECT_SYSTEM = (
    "You check a plan for a programming problem. If its steps solve the whole problem, answer <end>. If not, answer"
    " 'Analysis:' and one or two short sentences: what is wrong or missing, and what the next step should do. Do not"
    " solve the problem yourself."
)
_REFLECT_EXAMPLES = turns(
    (f"{state(_NINE, ('Return x * 9.',))}\n{REFLECT_REQUEST}", "<end>"),
    (
        f"{state(_LONG, (_LOOK,))}\n{REFLECT_REQUEST}",
        "Analysis: The first long word is found, but not every list has one. The next step should say what then.",
    ),
)


_SCORE_SYSTEM = (
    "You rate a plan for a programming problem. Ask in this order; the first yes decides:\n"
    "1. Is the last step wrong? Then 0 to 3.\n"
    "2. Does it not follow from the steps before it? Then 4 or 5.\n"
    "3. Is the plan unfinished? Then 6 or 7.\n"
    "4. Is a case or a detail missing? Then 8 or 9.\n"
    "Otherwise 10. Answer with the number only."
)
_SCORE_EXAMPLES = turns(
    (f"{state(_NINE, ('Return x * 9.',))}\n{SCORE_REQUEST}", "10"),
    (f"{state(_NINE, ('Return x + 3.',))}\n{SCORE_REQUEST}", "1"),
    (f"{state(_LONG, (_LOOK,))}\n{SCORE_REQUEST}", "7"),
)


_CHECK_SYSTEM = (
    "You check a plan for a programming problem. Answer solved if every step is right and nothing is missing."
    " Answer unsolved otherwise."
)
_CHECK_EXAMPLES = turns(
    (f"{state(_NINE, ('Return x * 9.',))}\n{CHECK_REQUEST}", "solved"),
    (f"{state(_LONG, (_LOOK,))}\n{CHECK_REQUEST}", "unsolved"),
)


_CHAIN_SYSTEM = (
    "You plan how to solve a programming problem. Write all steps of the plan, one short sentence a line, in plain"
    " words. Do not write code."
)
_CHAIN_EXAMPLES = turns(
    (f"Problem: {_NINE}", "Step 1: Return x * 9."),
    (f"Problem: {_LONG}", render_steps((_LOOK, _NONE))),
)

PROGRAMMING = Words(
    propose=Instruction(_PROPOSE_SYSTEM, _PROPOSE_EXAMPLES),
    reflect=Instruction(_REFLECT_SYSTEM, _REFLECT_EXAMPLES),
    score=Instruction(_SCORE_SYSTEM, _SCORE_EXAMPLES),
    check=Instruction(_CHECK_SYSTEM, _CHECK_EXAMPLES),
    chain=Instruction(_CHAIN_SYSTEM, _CHAIN_EXAMPLES),
)
"""Plans of programs: SRA-MCTS."""


def propose_prompt(
    problem: Problem,
    steps: Sequence[str],
    reflection: str | None = None,
    elder_siblings: Sequence[str] = (),
    words: Words = PROGRAMMING,
) -> Prompt:
    """Ask for one next step (methods A.4, propose).

    A reflection is shown as advice. Elder siblings are shown as steps to differ from (history mode).
    """
    parts = [state(problem.statement, steps)]
    if reflection:
        parts.append(f"Advice, to follow unless it is wrong: {reflection}")
    if elder_siblings:
        parts.append("\n".join(["Already suggested, say a different one:", *(f"- {step}" for step in elder_siblings)]))
    parts.append(PROPOSE_REQUEST)
    return Prompt(words.propose.system, words.propose.examples, Message("user", "\n".join(parts)))


def reflect_prompt(problem: Problem, steps: Sequence[str], words: Words = PROGRAMMING) -> Prompt:
    """Ask whether the steps are complete, and otherwise for a direction (methods A.4, reflect)."""
    question = Message("user", f"{state(problem.statement, steps)}\n{REFLECT_REQUEST}")
    return Prompt(words.reflect.system, words.reflect.examples, question)


def score_prompt(problem: Problem, steps: Sequence[str], words: Words = PROGRAMMING) -> Prompt:
    """Ask for a score by the paper's ladder: erroneous, incoherent, incomplete, defective, else 10 (methods A.3)."""
    question = Message("user", f"{state(problem.statement, steps)}\n{SCORE_REQUEST}")
    return Prompt(words.score.system, words.score.examples, question)


def check_prompt(problem: Problem, steps: Sequence[str], words: Words = PROGRAMMING) -> Prompt:
    """Ask for the completeness check of a finished plan (methods A.4)."""
    question = Message("user", f"{state(problem.statement, steps)}\n{CHECK_REQUEST}")
    return Prompt(words.check.system, words.check.examples, question)


def chain_prompt(problem: Problem, words: Words = PROGRAMMING) -> Prompt:
    """Ask for the whole plan at once: the chain-of-thought baseline."""
    return Prompt(words.chain.system, words.chain.examples, Message("user", f"Problem: {problem.statement}"))
