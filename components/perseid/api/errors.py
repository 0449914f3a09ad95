"""What is wrong with a run file, in words that let its author put it right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SHOWN_CHARACTERS = 40
_LONG_NUMBER: int = 10**_SHOWN_CHARACTERS


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake."""

    line: int
    """Counted from 1; 0 where the mistake is the whole file's."""
    column: int
    """Counted from 1; 0 where the mistake is the whole file's."""
    path: str
    """The field as the file spells it, for example `spec.problems.test[0].source`. May be empty."""
    message: str
    """What is wrong: what was expected and what was given."""
    hint: str = ""
    """What to do about it. May be empty."""


class RunFileError(Exception):
    """A run file that cannot be used. `problems` holds every mistake that was found, by line."""

    def __init__(self, file: Path, problems: Sequence[Problem]) -> None:
        if not problems:
            raise ValueError("a RunFileError needs at least one problem")
        self.file = file
        self.problems = tuple(sorted(problems))
        super().__init__(file, self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [f"{self.file} has {count} mistake{'s' if count > 1 else ''}:"]
        for problem in self.problems:
            where = f"{self.file}:{problem.line}:{problem.column}" if problem.line else str(self.file)
            lines += ["", f"  {where}" + (f"  {problem.path}" if problem.path else ""), f"    {problem.message}"]
            if problem.hint:
                lines.append(f"    {problem.hint}")
        return "\n".join(lines)


def is_short(value: object) -> bool:
    """Whether a message has room for the value as it is written."""
    if isinstance(value, int):
        return abs(value) < _LONG_NUMBER
    return len(str(value)) <= _SHOWN_CHARACTERS


def shown(value: object) -> str:
    """The value as it is written, if that is short; else its beginning, and of a number its length."""
    if is_short(value):
        return str(value)
    if isinstance(value, int):  # Python refuses to write one of more than 4,300 digits.
        return f"a number of more than {_SHOWN_CHARACTERS} digits"
    return f"{str(value)[: _SHOWN_CHARACTERS - 3]}..."
