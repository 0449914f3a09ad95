"""What the models are asked where an answer to a question is planned, not a program (METEOR's third stage).

Worked examples are of no field of its own, and none of them may be a question that anything is evaluated on.
"""

from __future__ import annotations

from perseid.search.prompts import (
    CHECK_REQUEST,
    PROPOSE_REQUEST,
    REFLECT_REQUEST,
    SCORE_REQUEST,
    Instruction,
    Words,
    render_steps,
    state,
    turns,
)

_PENS = "A box holds 4 pens. How many pens do 6 boxes hold?"
_PENS_STEP = "6 times 4 is 24, so they hold 24 pens."
_APPLES = "Anna has 12 apples and gives a quarter of them away. How many are left?"
_QUARTER = "A quarter of 12 is 3."
_LEFT = "12 minus 3 is 9, so 9 apples are left."
_PRIME = "Is 91 a prime number?"
_PRIME_STEP = "91 is 7 times 13, so it is no prime number."

QUESTIONS = Words(
    propose=Instruction(
        "You answer a question step by step. Say the next step of the reasoning in one short sentence. The last step"
        " says the result. Do not repeat a step.",
        turns(
            (f"{state(_PENS, ())}\n{PROPOSE_REQUEST}", f"Next step: {_PENS_STEP}"),
            (f"{state(_APPLES, ())}\n{PROPOSE_REQUEST}", f"Next step: {_QUARTER}"),
            (f"{state(_APPLES, (_QUARTER,))}\n{PROPOSE_REQUEST}", f"Next step: {_LEFT}"),
            (f"{state(_PRIME, ())}\n{PROPOSE_REQUEST}", f"Next step: {_PRIME_STEP}"),
        ),
    ),
    reflect=Instruction(
        "You check the reasoning about a question. If its steps answer the whole question, answer <end>. If not,"
        " answer 'Analysis:' and one or two short sentences: what is wrong or missing, and what the next step should"
        " do. Do not answer the question yourself.",
        turns(
            (f"{state(_PENS, (_PENS_STEP,))}\n{REFLECT_REQUEST}", "<end>"),
            (
                f"{state(_APPLES, (_QUARTER,))}\n{REFLECT_REQUEST}",
                "Analysis: The part that is given away is found. The next step should take it from all apples.",
            ),
        ),
    ),
    score=Instruction(
        "You rate the reasoning about a question. Ask in this order; the first yes decides:\n"
        "1. Is the last step wrong? Then 0 to 3.\n"
        "2. Does it not follow from the steps before it? Then 4 or 5.\n"
        "3. Is the result missing? Then 6 or 7.\n"
        "4. Is a case or a detail missing? Then 8 or 9.\n"
        "Otherwise 10. Answer with the number only.",
        turns(
            (f"{state(_PENS, (_PENS_STEP,))}\n{SCORE_REQUEST}", "10"),
            (f"{state(_PENS, ('6 plus 4 is 10, so they hold 10 pens.',))}\n{SCORE_REQUEST}", "1"),
            (f"{state(_APPLES, (_QUARTER,))}\n{SCORE_REQUEST}", "7"),
        ),
    ),
    check=Instruction(
        "You check the reasoning about a question. Answer solved if every step is right and the result is said."
        " Answer unsolved otherwise.",
        turns(
            (f"{state(_PENS, (_PENS_STEP,))}\n{CHECK_REQUEST}", "solved"),
            (f"{state(_APPLES, (_QUARTER,))}\n{CHECK_REQUEST}", "unsolved"),
        ),
    ),
    chain=Instruction(
        "You answer a question step by step. Write all steps of the reasoning, one short sentence a line. The last step"
        " says the result.",
        turns(
            (f"Problem: {_PENS}", render_steps((_PENS_STEP,))),
            (f"Problem: {_APPLES}", render_steps((_QUARTER, _LEFT))),
        ),
    ),
)
"""Reasoning about a question, step by step."""
