"""Splits by question: no question, near-duplicate by normalised text, or family lies in two of them.

A question's split depends on the question alone, by a hash of its family or, without one, of its normalised text.
So it stays where it is when rows are added, removed or reordered, on every machine and in every version of Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal, get_args

from perseid.data.errors import DataError
from perseid.data.question_text import normalised
from perseid.data.records import Question

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHARES: dict[Split, int] = {"train": 80, "dev": 10, "test": 10}
"""Per cent of the families (questions, where they have none) that a split gets on average."""

_BUCKETS = 100


def split_of(question: Question) -> Split:
    """The split of a question of a source that has none of its own."""
    key = f"family\n{question.family}" if question.family else f"text\n{normalised(question.text)}"
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    bucket = int.from_bytes(digest[:8], "big") % _BUCKETS
    for split in SPLITS:
        if bucket < SHARES[split]:
            return split
        bucket -= SHARES[split]
    raise AssertionError("the shares add up to all buckets")


def select_split(questions: Iterable[Question], split: str, place: str) -> list[Question]:
    """The questions of one split, in their order. `place` is the source, for messages.

    Raises DataError: a split of another name, or one text that stands in two splits because its family is not said
    everywhere, or is another one.
    """
    wanted = checked_split(split, place)
    kept: list[Question] = []
    homes: dict[str, tuple[Split, Question]] = {}
    for question in questions:
        home = split_of(question)
        first_home, first = homes.setdefault(normalised(question.text), (home, question))
        if first_home != home:
            raise DataError(
                f"{place}: the questions {first.id!r} and {question.id!r} have the same text and would stand in "
                f"{first_home} and {home}, because their families are {first.family or 'not said'} and "
                f"{question.family or 'not said'}; give both the same family, or remove one"
            )
        if home == wanted:
            kept.append(question)
    return kept


def checked_split(split: str, place: str) -> Split:
    """The name as a split. Raises DataError where it is none."""
    for each in SPLITS:
        if each == split:
            return each
    raise DataError(
        f"{place}: there is no split {split!r}; the source has no splits of its own and is split into "
        f"{', '.join(SPLITS)}"
    )
