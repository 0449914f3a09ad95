"""METEOR's stages without a model: a learner whose skill is a number in its weights' place, and lessons that change it.

Question `train-3` is `What is 3 + 7?`; a learner of skill 5 answers those below 5 right at once. A training adds the
next of `lessons` to the skill. Everything but the model and its training is real: files, journals, budgets, scores.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perseid.api.attempt import Attempt
from perseid.api.layout import Layout
from perseid.api.result import GenerationResult, StageResult
from perseid.api.spec import EvolutionRun
from perseid.api.stages import StageName, module_of
from perseid.engines import lazy, roles
from perseid.engines.protocol import Request
from perseid.engines.scripted import ScriptedEngine
from perseid.stages import training
from perseid.stages.runtime import run_stage

SKILL = "model.safetensors"
_QUESTION = re.compile(r"What is (\d+) \+ 7\?")


def right(number: int) -> str:
    return f"{number} and 7 are {number + 7}.\nAnswer: {number + 7}"


def wrong(number: int) -> str:
    return f"{number} and 7 are {number + 8}.\nAnswer: {number + 8}"


def number_of(text: str) -> int:
    found = _QUESTION.search(text)
    assert found is not None, text
    return int(found[1])


def write_questions(path: Path, name: str, numbers: Sequence[int], *, checked: bool = True) -> str:
    lines = []
    for number in numbers:
        title = f"What is {number} + 7?"
        question: dict[str, Any] = {"id": f"{name}-{number}", "title": title, "answer": right(number)}
        if checked:
            question["check"] = {"type": "number", "value": number + 7}
        lines.append(json.dumps(question) + "\n")
    path.write_text("".join(lines))
    return str(path)


@dataclass
class MeteorWorld:
    """A run's files, and what its models have been asked."""

    root: Path
    lessons: list[int] = field(default_factory=lambda: [1] * 20)
    trainings: list[list[str]] = field(default_factory=list)
    """Ids of the samples or pairs of each training that was made."""
    asked: list[Request] = field(default_factory=list)
    """Every request that reached a model of ours."""
    mentor: Callable[[Request], list[str]] = lambda request: [right(number_of(request.messages[-1].content))]
    judge: Callable[[Request], list[str]] | None = None
    endpoints: Counter[str] = field(default_factory=Counter)
    """Requests that reached an endpoint, by kind."""
    on_call: Callable[[Request], None] = lambda request: None

    def spec(self, **meteor: Any) -> dict[str, Any]:
        """Ten train questions, four dev questions; a mentor behind an endpoint."""
        files = {
            "train": write_questions(self.root / "train.jsonl", "train", range(10)),
            "dev": write_questions(self.root / "dev.jsonl", "dev", range(20, 28)),
        }
        endpoint = {"baseUrl": "http://127.0.0.1:1/v1", "model": "mentor"}
        return {
            "methods": ["meteor"],
            "model": {"ref": str(self.root / "base"), "dtype": "float32"},
            "finetune": {"minSamples": 1},
            "evaluation": {"samples": 2, "bootstrap": 100},
            "sandbox": {"workers": 1},
            "meteor": {
                "field": "sums",
                "questions": {
                    "train": {"source": "jsonl", "path": files["train"]},
                    "dev": {"source": "jsonl", "path": files["dev"], "name": "dev"},
                    "test": [],
                },
                "mentor": {
                    "type": "openai",
                    "openai": endpoint,
                    "price": {"prompt": 1000.0, "completion": 1000.0},
                    "sampling": {"temperature": 0, "maxTokens": 32},
                },
                "selfAssessment": {"interval": 4, "maxTries": 2},
                "selfEvolution": {"samples": 4},
                **meteor,
            },
        }

    def attempt(self, spec: dict[str, Any], generation: int = 0, number: int = 0) -> Attempt:
        return Attempt(
            run=EvolutionRun.model_validate({"metadata": {"name": "meteor"}, "spec": spec}),
            run_id=f"6f2c1f3e-8a51-4b7e-9d15-{generation:06d}{number:06d}",
            generation=generation,
            number=number,
            storage=str(self.root / "storage"),
            start_model=spec["model"]["ref"],
        )

    def run(self, stage: StageName, attempt: Attempt) -> StageResult:
        """As the pipeline's step does."""
        import importlib

        return run_stage(stage, attempt, importlib.import_module(f"perseid.stages.{module_of(stage)}").run)

    def directory(self, stage: StageName, attempt: Attempt) -> Path:
        return Layout.of(attempt).stage(stage)

    def lines(self, stage: StageName, attempt: Attempt, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory(stage, attempt) / name).read_text().splitlines()]

    def generation(self, attempt: Attempt) -> GenerationResult:
        return GenerationResult.model_validate_json(Layout.of(attempt).result.read_bytes())

    def start_at(self, skill: int) -> None:
        """Give the base another skill."""
        (self.root / "base" / SKILL).write_text(str(skill))

    def skill(self, directory: Path) -> int:
        return int((directory / SKILL).read_text())

    def kinds(self) -> Counter[str]:
        return Counter(request.kind for request in self.asked)

    def train(
        self, items: Sequence[Any], base: Path, output: Path, work: Path, *_: Any, **named: Any
    ) -> SimpleNamespace:
        """What stands in for fine-tuning: the next lesson."""
        if not output.exists():
            self.trainings.append([item.id for item in items])
            shutil.copytree(base, output)
            (output / SKILL).write_text(str(self.skill(base) + self.lessons[len(self.trainings) - 1]))
            (output / "perseid-model.json").write_text(json.dumps({"trained": len(self.trainings)}))
        return SimpleNamespace(manifest=SimpleNamespace(metrics=SimpleNamespace(steps=3, final_loss=0.5)))

    def answer(self, skill: int, request: Request) -> list[str]:
        """What a learner of that skill says: questions below it right, the next one after advice or one time in n."""
        self.asked.append(request)
        self.on_call(request)
        text = "\n".join(message.content for message in request.messages)
        if "Write a function" in text:
            return ["```python\ndef same(x):\n    return x\n```"]
        number = number_of(text)
        easy = number % 20
        if request.sampling.choices is not None:
            return ["right" if right(number).splitlines()[0] in text and easy <= skill else "wrong"]
        if request.kind == "guideline":
            return ["Add the two numbers. Check the carry."]
        if request.kind == "revise":
            return [right(number) if easy <= skill else wrong(number)]
        if request.kind == "propose":
            return [f"Next step: {number} plus 7, way {index}, is {number + 7}." for index in range(request.sampling.n)]
        if request.kind == "decode" and "Use these steps" in text:
            return [right(number)]
        if request.sampling.n > 1 and request.kind == "decode":
            return [right(number) if easy <= skill and index else wrong(number) for index in range(request.sampling.n)]
        return [right(number) if easy < skill else wrong(number)]

    def endpoint(self, spec: Any) -> ScriptedEngine:
        script = self.mentor if spec.model == "mentor" else self.judge
        assert script is not None, "nobody may be asked"

        def answer(request: Request) -> list[str]:
            self.endpoints[request.kind] += 1
            self.on_call(request)
            return script(request)

        return ScriptedEngine(answer, model_id=spec.model)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MeteorWorld:
    """A base of skill 3."""
    monkeypatch.setenv("PERSEID_CACHE", str(tmp_path / "cache"))
    made = MeteorWorld(tmp_path)
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (base / name).write_text("{}")
    (base / SKILL).write_text("3")

    async def open_engine(path: Path, model_id: str, *_: Any, **__: Any) -> ScriptedEngine:
        skill = made.skill(path)
        return ScriptedEngine(lambda request: made.answer(skill, request), model_id=model_id)

    monkeypatch.setattr(lazy, "open_engine", open_engine)
    monkeypatch.setattr(roles, "open_endpoint", made.endpoint)
    monkeypatch.setattr(training, "fine_tune", made.train)
    monkeypatch.setattr(training, "prefer", made.train)
    return made
