"""What a problem's statement says, and how alike two such texts are: the part of the pack's checks that reads prose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from perseid.data.records import Problem

STATEMENT = re.compile(
    r"Write a function (?P<name>\w+)\((?P<parameters>[\w, ]*)\) that (?P<task>.+)\. "
    r"For example, (?P<called>\w+)\((?P<arguments>.*)\) returns (?P<value>.+)\.",
    re.DOTALL,
)
"""The form of every statement of the pack: short and always the same, because a very small model has to read it."""


def task_of(problem: Problem) -> str:
    """What the function does: the statement without its name and example; all of it where it has another form."""
    match = STATEMENT.fullmatch(problem.statement)
    return problem.statement if match is None else match["task"]


def masked_task(problem: Problem) -> str:
    """The task with each parameter replaced by its position and each number by a 0: what near-duplicates share."""
    match = STATEMENT.fullmatch(problem.statement)
    text = task_of(problem)
    for position, name in enumerate(match["parameters"].split(", ") if match else ()):
        text = re.sub(rf"\b{name}\b", f"p{chr(ord('a') + position)}", text)
    return re.sub(r"\d+", "0", plain_text(text))


def plain_text(text: str) -> str:
    """Lower case, without punctuation and without the opening words that most statements share."""
    text = " ".join(re.sub(r"[`\"',.;:]", " ", text.lower()).split())
    return re.sub(r"^(write an? (python )?function (to|that|which) )?(returns? |find )?(the )?", "", text)


def similar_pairs(
    left: Sequence[tuple[str, str]], right: Sequence[tuple[str, str]], threshold: float
) -> Iterator[tuple[str, str, float]]:
    """Pairs (left key, right key, ratio) of texts whose difflib ratio is at least the threshold."""
    for other, other_text in right:
        matcher = SequenceMatcher(None, "", other_text, autojunk=False)
        for one, one_text in left:
            matcher.set_seq1(one_text)
            # The quick ratios are upper bounds of the exact one, which costs a hundred times more.
            if matcher.real_quick_ratio() >= threshold and matcher.quick_ratio() >= threshold:
                ratio = matcher.ratio()
                if ratio >= threshold:
                    yield one, other, ratio
