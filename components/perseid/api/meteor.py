"""METEOR: who teaches and who judges, which questions there are, and how its three stages go.

Source: METEOR (arXiv 2411.11933): mentor-supervised learning, self-assessment, self-evolution.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from perseid.api.base import ApiModel, Fraction, Text
from perseid.api.engine import OpenAISpec, SamplingSpec
from perseid.api.search import SearchSpec
from perseid.api.stages import METEOR_STAGES, MeteorStages

Price = Annotated[float, Field(ge=0.0, le=1e6)]


class PriceSpec(ApiModel):
    """What a million tokens cost."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", max_length=3)] = "USD"
    """ISO 4217 code. Prices of one run must be in one currency."""
    prompt: Price = 0.0
    """Prompt tokens that the provider computes."""
    cached_prompt: Price | None = None
    """Prompt tokens from the provider's cache. Default: as `prompt`."""
    completion: Price = 0.0
    """Tokens of the answer."""


class MentorSpec(ApiModel):
    """The strong model that teaches."""

    type: Literal["openai", "model", "recorded"] = "recorded"
    """`openai`: an OpenAI-compatible endpoint. `model`: a model of the hub or a directory, run here. `recorded`:
    answers from a file; a paid mentor is recorded once, and anybody can repeat the run."""
    openai: OpenAISpec | None = None
    """Of `type: openai`."""
    ref: Text | None = None
    """Of `type: model`: as `spec.model.ref`."""
    path: Text | None = None
    """Of `type: recorded`: the file, or `pack` for the answers that come with Perseid's questions. A relative path
    starts at the YAML file."""
    price: PriceSpec = PriceSpec()
    """What its tokens cost; `spec.budget.mentorCost` is in this currency."""
    sampling: SamplingSpec = SamplingSpec(temperature=0.7, max_tokens=1024)
    """How its answers are decoded."""
    record: Text | None = None
    """File that the answers of `type: openai` and `model` are added to: `type: recorded` reads it. A relative path
    starts at the YAML file; a cluster needs an absolute one on a volume that lasts. Default: none."""

    @model_validator(mode="after")
    def _type_has_what_it_needs(self) -> Self:
        needs = {"openai": self.openai, "model": self.ref, "recorded": self.path}
        field = {"openai": "openai", "model": "ref", "recorded": "path"}[self.type]
        if needs[self.type] is None:
            raise ValueError(f"type {self.type} needs the field {field}")
        return self


class JudgeSpec(ApiModel):
    """Who says whether an answer is right, and how it could be better."""

    type: Literal["openai", "model", "recorded", "verifier"] = "verifier"
    """As a mentor's, and `verifier`: a rule or a program decides, where the question has one."""
    openai: OpenAISpec | None = None
    """Of `type: openai`."""
    ref: Text | None = None
    """Of `type: model`: as `spec.model.ref`."""
    path: Text | None = None
    """Of `type: recorded`: the file. A relative path starts at the YAML file."""
    price: PriceSpec = PriceSpec()
    """What its tokens cost."""
    max_tokens: Annotated[int, Field(ge=16, le=131_072)] = 512
    """Longest verdict. Judges decode greedily."""
    record: Text | None = None
    """As a mentor's."""

    @model_validator(mode="after")
    def _type_has_what_it_needs(self) -> Self:
        needs = {"openai": self.openai, "model": self.ref, "recorded": self.path, "verifier": ""}
        field = {"openai": "openai", "model": "ref", "recorded": "path", "verifier": ""}[self.type]
        if needs[self.type] is None:
            raise ValueError(f"type {self.type} needs the field {field}")
        return self


class QuestionColumns(ApiModel):
    """Which column of a file or dataset holds what."""

    id: Text | None = None
    """Default: made of the source and the row's content, so that the same question has the same id everywhere."""
    title: Text = "title"
    """The question, or its title."""
    body: Text | None = None
    """What else is said of it. Default: the column `body` where there is one."""
    field: Text | None = None
    """The field of knowledge. Default: the set's own."""
    answer: Text | None = None
    """A reference answer, for judges and never for the learner. Default: none."""


class QuestionSet(ApiModel):
    """Questions of a domain."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$", max_length=63)] | None = None
    """How reports call the set. Default: made of source and split."""
    source: Literal["pack", "jsonl", "csv", "parquet", "hub"] = "pack"
    """`pack`: Perseid's own questions. `jsonl`, `csv`, `parquet`: a file. `hub`: a dataset of the hub."""
    path: Text | None = None
    """The file, or the dataset's id. A relative path starts at the YAML file."""
    split: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", max_length=64)] | None = None
    """`train`, `dev` or `test`. A source without splits of its own is split by question, so that none crosses."""
    config: Text | None = None
    """Configuration of a dataset of the hub that has several."""
    columns: QuestionColumns = QuestionColumns()
    """Of files and datasets."""
    limit: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Take the first n questions only."""

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> Self:
        if self.source != "pack" and not self.path:
            raise ValueError(f"source {self.source} needs the field path")
        if self.source == "pack" and self.path:
            raise ValueError("source pack takes no path")
        if self.source != "hub" and self.config:
            raise ValueError("config is for source hub: remove it")
        if self.source == "pack" and self.split not in {"train", "dev", "test"}:
            raise ValueError("source pack needs the field split: train, dev or test")
        return self

    @property
    def title(self) -> str:
        """The set's name in reports and file names."""
        return self.name or (f"questions-{self.source}-{self.split}" if self.split else f"questions-{self.source}")


class MentorSupervisedSpec(ApiModel):
    """Stage 1: the learner writes a guideline, the mentor answers by it, the learner learns the answers."""

    guideline: bool = True
    """False: the mentor answers without one, as a control."""
    sampling: SamplingSpec = SamplingSpec(temperature=0.7, max_tokens=512)
    """How guidelines are decoded."""


class SelfAssessmentSpec(ApiModel):
    """Stage 2: the learner answers, is judged, revises, and learns to judge."""

    max_tries: Annotated[int, Field(ge=1, le=16)] = 3
    """Answers to a question at most, revisions included. What never becomes right goes to quarantine."""
    interval: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Right answers after which the learner is trained; later questions are answered by the newer model."""
    chain_of_thought: bool = True
    """The learner is told to think first and then to give the result; it is trained on the plain question and what it
    said. False: the plain question, which a learner of stage 1 answers in the mentor's form."""
    learn_to_judge: bool = True
    """In the end verdicts become training data too, with one answer for each question once more."""
    sampling: SamplingSpec = SamplingSpec(temperature=0.7, top_p=0.9, max_tokens=512)
    """How answers are decoded."""
    tolerance: Fraction = 0.02
    """Loss of pass@1 on dev that a training may bring; after a greater one it is rolled back."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """Peak learning rate of the rounds on answers; all else, and learning to judge, is `spec.finetune`'s."""


Decoding = Literal["greedy", "sample", "beam", "best-of-n", "search"]


class SelfEvolutionSpec(ApiModel):
    """Stage 3: without a mentor. Cheap decoding learns from expensive decoding, turn by turn."""

    cheap: Decoding = "greedy"
    """What is to become better."""
    expensive: Annotated[list[Decoding], Field(min_length=1, max_length=5)] = ["best-of-n"]
    """What it learns from. `search` costs most: a tree for each question."""
    critique: Literal["likelihood", "self-verdict"] = "likelihood"
    """How the learner chooses among its own answers, and by which an expensive answer must be better than the cheap
    one. `likelihood`: mean log-probability of a token. `self-verdict`: how likely it calls the answer right."""
    critique_margin: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    """How much better, in the critique's unit."""
    sampling: SamplingSpec = SamplingSpec(temperature=0.8, max_tokens=512)
    """How the samples of `sample` and `best-of-n` are decoded; the longest answer and the stop texts count for all."""
    samples: Annotated[int, Field(ge=2, le=64)] = 8
    """Beams, or samples of `best-of-n`."""
    search: SearchSpec = SearchSpec()
    """Of `search`: a tree of reasoning steps about the question, then the answer by the best path, greedily. A question
    has no tests, so that execution counts nothing in a blend."""
    objective: Literal["dpo", "ipo", "contrastive"] = "dpo"
    """`contrastive`: the paper's, a hinge on the difference of the mean log-probabilities."""
    beta: Annotated[float, Field(gt=0.0, le=10.0)] = 0.1
    """Strength of the pull to the turn's own start, of `dpo` and `ipo`."""
    margin: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Of `contrastive`, in nats per token."""
    supervised_weight: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Weight of the likelihood of the better answer beside the pairwise loss."""
    max_turns: Annotated[int, Field(ge=1, le=64)] = 2
    """Turns at most. A turn without gain on dev is rolled back and ends the stage."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Peak learning rate; the rest of the training is `spec.finetune`'s."""

    @model_validator(mode="after")
    def _decodings_differ(self) -> Self:
        if self.cheap in self.expensive:
            raise ValueError(
                f"cheap and expensive are both {self.cheap}, so that there is nothing to learn; set expensive to"
                " [best-of-n], for example"
            )
        if len(set(self.expensive)) < len(self.expensive):
            raise ValueError("expensive names a decoding twice: name it once")
        return self

    @model_validator(mode="after")
    def _search_can_be_judged(self) -> Self:
        if "search" not in (self.cheap, *self.expensive):
            return self
        if self.critique != "self-verdict":
            raise ValueError(
                "the decoding search needs critique self-verdict: how likely its answer is after the steps that were"
                " found does not compare with an answer without them"
            )
        if self.search.algorithm == "direct":
            raise ValueError("search.algorithm is direct, which searches for nothing: choose mcts, tot or cot")
        evaluator = self.search.evaluator
        if evaluator is None or evaluator.type in ("ladder", "likelihood"):
            return self
        if evaluator.type == "execution" or evaluator.weights.ladder + evaluator.weights.likelihood <= 0:
            raise ValueError(
                "search.evaluator goes by execution alone, but a question has no tests; set it to {type: likelihood}"
            )
        return self


class QuestionsSpec(ApiModel):
    """Which questions are learned from, which decide and which are only reported."""

    train: QuestionSet = QuestionSet(split="train")
    """What stages 1 to 3 work on."""
    dev: QuestionSet = QuestionSet(split="dev")
    """Decides promotion and rollbacks. Never trained on."""
    test: Annotated[list[QuestionSet], Field(max_length=16)] = [QuestionSet(split="test")]
    """Scored for the report; decides nothing. Never trained on."""


class MeteorSpec(ApiModel):
    """A domain, its mentor and its judge, and how each stage goes."""

    stages: MeteorStages = list(METEOR_STAGES)
    """Which stages a generation goes through. Their order is always the paper's."""
    field: Text = "units of measurement"
    """The field of knowledge, as prompts name it."""
    questions: QuestionsSpec = QuestionsSpec()
    """The domain's questions."""
    mentor: MentorSpec = MentorSpec(path="pack")
    """Who teaches, in stage 1."""
    judge: JudgeSpec = JudgeSpec()
    """Who judges, in stage 2 and in the evaluation."""
    mentor_supervised: MentorSupervisedSpec = MentorSupervisedSpec()
    """Stage 1."""
    self_assessment: SelfAssessmentSpec = SelfAssessmentSpec()
    """Stage 2."""
    self_evolution: SelfEvolutionSpec = SelfEvolutionSpec()
    """Stage 3."""

    @model_validator(mode="after")
    def _one_currency(self) -> Self:
        if self.mentor.price.currency != self.judge.price.currency:
            raise ValueError(
                f"mentor.price is in {self.mentor.price.currency} and judge.price in {self.judge.price.currency}: one"
                " budget needs one currency"
            )
        return self
