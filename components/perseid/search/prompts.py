"""What the models are asked, in our own words and short enough for a small model.

Every prompt keeps its constant part first, then the question, then the steps, so that an engine with a prefix cache
computes the shared part once (methods D.3). Only a problem's statement is ever shown: no tests and no reference.
Worked examples are turns of the chat, because a small model follows their form and ignores a rule that describes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from perseid.data.records import Problem
from perseid.engines.protocol import Message
from perseid.search.calls import Prompt

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


def _state(statement: str, steps: Sequence[str]) -> str:
    shown = f"\n{render_steps(steps)}" if steps else " none"
    return f"Problem: {statement}\nSteps so far:{shown}"


def _turns(*turns: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(
        message for asked, answer in turns for message in (Message("user", asked), Message("assistant", answer))
    )


_PROPOSE_REQUEST = "Say the next step."
_PROPOSE_SYSTEM = (
    "You plan how to solve a programming problem. Say the next step of the plan in one short sentence, in plain words."
    " Do not write code. Do not repeat a step."
)
_PROPOSE_EXAMPLES = _turns(
    (f"{_state(_NINE, ())}\n{_PROPOSE_REQUEST}", "Next step: Return x * 9."),
    (f"{_state(_LONG, ())}\n{_PROPOSE_REQUEST}", f"Next step: {_LOOK}"),
    (f"{_state(_LONG, (_LOOK,))}\n{_PROPOSE_REQUEST}", f"Next step: {_NONE}"),
    (f"{_state(_LONELY, ())}\n{_PROPOSE_REQUEST}", "Next step: Return len(items) == 1."),
    (f"{_state(_HALF, ())}\n{_PROPOSE_REQUEST}", "Next step: Return the text from its middle on."),
)


def propose_prompt(
    problem: Problem, steps: Sequence[str], reflection: str | None = None, elder_siblings: Sequence[str] = ()
) -> Prompt:
    """Ask for one next step (methods A.4, propose).

    A reflection is shown as advice. Elder siblings are shown as steps to differ from (history mode).
    """
    parts = [_state(problem.statement, steps)]
    if reflection:
        parts.append(f"Advice, to follow unless it is wrong: {reflection}")
    if elder_siblings:
        parts.append("\n".join(["Already suggested, say a different one:", *(f"- {step}" for step in elder_siblings)]))
    parts.append(_PROPOSE_REQUEST)
    return Prompt(_PROPOSE_SYSTEM, _PROPOSE_EXAMPLES, Message("user", "\n".join(parts)))


_REFLECT_REQUEST = "Do these steps solve the whole problem?"
_REFLECT_SYSTEM = (
    "You check a plan for a programming problem. If its steps solve the whole problem, answer <end>. If not, answer"
    " 'Analysis:' and one or two short sentences: what is wrong or missing, and what the next step should do. Do not"
    " solve the problem yourself."
)
_REFLECT_EXAMPLES = _turns(
    (f"{_state(_NINE, ('Return x * 9.',))}\n{_REFLECT_REQUEST}", "<end>"),
    (
        f"{_state(_LONG, (_LOOK,))}\n{_REFLECT_REQUEST}",
        "Analysis: The first long word is found, but not every list has one. The next step should say what then.",
    ),
)


def reflect_prompt(problem: Problem, steps: Sequence[str]) -> Prompt:
    """Ask whether the steps are complete, and otherwise for a direction (methods A.4, reflect)."""
    question = Message("user", f"{_state(problem.statement, steps)}\n{_REFLECT_REQUEST}")
    return Prompt(_REFLECT_SYSTEM, _REFLECT_EXAMPLES, question)


_SCORE_REQUEST = "Score from 0 to 10:"
_SCORE_SYSTEM = (
    "You rate a plan for a programming problem. Ask in this order; the first yes decides:\n"
    "1. Is the last step wrong? Then 0 to 3.\n"
    "2. Does it not follow from the steps before it? Then 4 or 5.\n"
    "3. Is the plan unfinished? Then 6 or 7.\n"
    "4. Is a case or a detail missing? Then 8 or 9.\n"
    "Otherwise 10. Answer with the number only."
)
_SCORE_EXAMPLES = _turns(
    (f"{_state(_NINE, ('Return x * 9.',))}\n{_SCORE_REQUEST}", "10"),
    (f"{_state(_NINE, ('Return x + 3.',))}\n{_SCORE_REQUEST}", "1"),
    (f"{_state(_LONG, (_LOOK,))}\n{_SCORE_REQUEST}", "7"),
)


def score_prompt(problem: Problem, steps: Sequence[str]) -> Prompt:
    """Ask for a score by the paper's ladder: erroneous, incoherent, incomplete, defective, else 10 (methods A.3)."""
    question = Message("user", f"{_state(problem.statement, steps)}\n{_SCORE_REQUEST}")
    return Prompt(_SCORE_SYSTEM, _SCORE_EXAMPLES, question)


_CHECK_REQUEST = "Is the plan both correct and complete? Answer solved or unsolved."
_CHECK_SYSTEM = (
    "You check a plan for a programming problem. Answer solved if every step is right and nothing is missing."
    " Answer unsolved otherwise."
)
_CHECK_EXAMPLES = _turns(
    (f"{_state(_NINE, ('Return x * 9.',))}\n{_CHECK_REQUEST}", "solved"),
    (f"{_state(_LONG, (_LOOK,))}\n{_CHECK_REQUEST}", "unsolved"),
)


def check_prompt(problem: Problem, steps: Sequence[str]) -> Prompt:
    """Ask for the completeness check of a finished plan (methods A.4)."""
    question = Message("user", f"{_state(problem.statement, steps)}\n{_CHECK_REQUEST}")
    return Prompt(_CHECK_SYSTEM, _CHECK_EXAMPLES, question)


_CHAIN_SYSTEM = (
    "You plan how to solve a programming problem. Write all steps of the plan, one short sentence a line, in plain"
    " words. Do not write code."
)
_CHAIN_EXAMPLES = _turns(
    (f"Problem: {_NINE}", "Step 1: Return x * 9."),
    (f"Problem: {_LONG}", render_steps((_LOOK, _NONE))),
)


def chain_prompt(problem: Problem) -> Prompt:
    """Ask for the whole plan at once: the chain-of-thought baseline."""
    return Prompt(_CHAIN_SYSTEM, _CHAIN_EXAMPLES, Message("user", f"Problem: {problem.statement}"))
