"""The records that stages hand to each other: one JSON object on each line of a file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Level = Literal["one-line", "easy", "medium"]


class Record(BaseModel):
    """A line of a JSONL file. Unknown fields are an error, so that a typo does not pass as an absent value."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(Record):
    """A seed question, with tests where it has them."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    statement: Annotated[str, Field(min_length=1)]
    """What is asked, in natural language."""
    signature: str = ""
    """First line of the function, for example `def clamp(x, low, high):`. Empty where the statement says it all."""
    entry_point: str = ""
    """Name of the function that the tests call."""
    tests: tuple[str, ...] = ()
    """Python code run after the answer, normally one assert each; the answer is right when none raises."""
    setup: str = ""
    """Python code run before the answer."""
    reference: str = ""
    """A right answer. Never shown to a model."""
    level: Level | None = None
    family: str = ""
    """Problems of one family are near-duplicates of each other; a family never crosses splits. Empty: not said."""


class Plan(Record):
    """The best path of a search: natural-language steps."""

    problem_id: str
    index: int
    """0 is the best path of the problem's tree."""
    steps: tuple[str, ...]
    value: float | None
    """The path's value at the end of the search, 0 to 10."""
    solved: bool | None = None
    """The model's own completeness check; None where it was not asked."""


class Candidate(Record):
    """A code answer to a problem, with everything that is known about it."""

    id: str
    problem_id: str
    plan_index: int
    sample_index: int
    plan: tuple[str, ...]
    answer: str
    """The model's whole answer."""
    code: str | None
    """The code in it; None where none is complete."""
    truncated: bool
    mean_logprob: float | None
    """Per token, natural logarithm."""
    value: float | None = None
    """The plan's value at the end of the search, 0 to 10."""
    score: float | None = None
    """The whole answer's score by the paper's ladder, 0 to 10; None where it was not asked for or could not be had."""
    passed: bool | None = None
    """Verdict of the tests; None where there were none or they were not run."""
    reason: str = ""
    """Why there is no code, or why the tests failed."""


class TrainingSample(Record):
    """What fine-tuning reads: a chat whose last turn is learned."""

    id: str
    problem_id: str
    prompt: str
    """The user's turn."""
    answer: str
    """The assistant's turn; the loss is on it alone."""


class Dropped(Record):
    """Something that did not become training data, and why. Reports add up: kept + dropped by reason = total."""

    id: str
    problem_id: str
    reason: str
    detail: str = ""
