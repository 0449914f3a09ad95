"""The records that stages hand to each other: one JSON object on each line of a file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

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


class NumberCheck(Record):
    """The answer's last number is this one."""

    type: Literal["number"] = "number"
    value: float
    tolerance: Annotated[float, Field(ge=0.0)] = 0.0
    """Largest absolute difference."""


class ChoiceCheck(Record):
    """The answer names this option and no other."""

    type: Literal["choice"] = "choice"
    options: Annotated[tuple[str, ...], Field(min_length=2)]
    answer: str
    """One of the options."""


class PatternCheck(Record):
    """The answer contains what this regular expression matches. Case does not count."""

    type: Literal["pattern"] = "pattern"
    pattern: str
    forbidden: str = ""
    """A regular expression that must match nowhere in it. Empty: none."""


class CodeCheck(Record):
    """The code in the answer passes these tests, as `Problem.tests`."""

    type: Literal["code"] = "code"
    tests: Annotated[tuple[str, ...], Field(min_length=1)]
    setup: str = ""


Check = Annotated[NumberCheck | ChoiceCheck | PatternCheck | CodeCheck, Field(discriminator="type")]


class Question(Record):
    """A question of a domain, with a check where a rule or a program can decide whether an answer is right."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    title: Annotated[str, Field(min_length=1)]
    """The question, or its title."""
    body: str = ""
    """What else is said of it."""
    field: str = ""
    """Field of knowledge, for example `units of measurement`."""
    answer: str = ""
    """A reference answer. Judges may see it, the learner never."""
    check: Check | None = None
    family: str = ""
    """Questions of one family are near-duplicates of each other; a family never crosses splits. Empty: not said."""

    @property
    def text(self) -> str:
        """Title and body, as a model reads them."""
        return f"{self.title}\n\n{self.body}" if self.body else self.title


class PreferencePair(Record):
    """Two answers to one prompt, of which one is better."""

    id: str
    question_id: str
    prompt: str
    """The user's turn."""
    chosen: str
    rejected: str


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
    weight: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0
    """How much each token of the answer counts in the loss. A word among paragraphs needs more than 1 to be heard."""


class Dropped(Record):
    """Something that did not become training data, and why. Reports add up: kept + dropped by reason = total."""

    id: str
    problem_id: str
    reason: str
    detail: str = ""


class TreeRecord(Record):
    """A finished search, whole: nodes with visits, values, evidence and reflections."""

    problem_id: str
    stop_reason: str
    solved: bool | None
    failure: str | None
    paths: tuple[dict[str, Any], ...]
    """Steps and value, the best first."""
    counts: dict[str, int]
    tree: dict[str, Any]
