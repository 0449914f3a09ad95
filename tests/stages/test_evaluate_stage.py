from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perseid.api.attempt import Attempt
from perseid.api.layout import Layout
from perseid.api.result import GenerationResult, YieldCounts
from perseid.api.spec import EvolutionRun
from perseid.data.jsonl import write_json
from perseid.engines import lazy
from perseid.engines.models import ResolvedModel
from perseid.engines.protocol import Request
from perseid.engines.scripted import ScriptedEngine
from perseid.stages import evaluate
from perseid.stages.context import StageContext
from perseid.stages.progress import ProgressWriter
from perseid.stages.scoring import score_model, scored_sets

MODEL = ResolvedModel(Path("/nowhere"), "m" * 64)
ANSWERS = {"one": "```python\ndef one():\n    return 1\n```", "two": "```python\ndef two():\n    return 1\n```"}


def answer(request: Request) -> list[str]:
    return [next(text for name, text in ANSWERS.items() if name in request.messages[-1].content)]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    scripted = ScriptedEngine(answer, model_id=MODEL.model_id)

    async def open_engine(*_: Any, **__: Any) -> ScriptedEngine:
        return scripted

    async def resolve(_: StageContext) -> ResolvedModel:
        return MODEL

    monkeypatch.setattr(lazy, "open_engine", open_engine)
    monkeypatch.setattr(evaluate, "resolve_start_model", resolve)
    return scripted


def context(root: Path, generation: int = 0, **more: Any) -> StageContext:
    """The evaluate stage of a generation that trained nothing."""
    root.mkdir()
    for name in ("dev", "test"):
        (root / f"{name}.jsonl").write_text(
            "".join(
                json.dumps(
                    {
                        "id": f"{name}-{function}",
                        "statement": f"Write a function {function}().",
                        "entry_point": function,
                        "tests": [f"assert {function}() == {value}"],
                    }
                )
                + "\n"
                for function, value in (("one", 1), ("two", 2))
            )
        )
    problems = {
        "dev": {"source": "jsonl", "path": str(root / "dev.jsonl"), "name": "dev"},
        "test": [{"source": "jsonl", "path": str(root / "test.jsonl"), "name": "test"}],
    }
    spec = {"problems": problems, "evaluation": {"samples": 2, "bootstrap": 100}, **more}
    attempt = Attempt(
        run=EvolutionRun.model_validate({"metadata": {"name": "stage"}, "spec": spec}),
        run_id="6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11",
        generation=generation,
        number=0,
        storage=str(root),
        start_model="org/name",
    )
    layout = Layout.of(attempt)
    directory, convert = layout.stage("evaluate"), layout.stage("convert")
    directory.mkdir(parents=True)
    convert.mkdir()
    (convert / "samples.jsonl").touch()
    write_json(convert / "yield.json", YieldCounts(total=0, kept=0, dropped={}))
    return StageContext(attempt, layout, directory, ProgressWriter(directory / "progress.json", "evaluate"))


def written(at: StageContext) -> GenerationResult:
    return GenerationResult.model_validate_json(at.layout.result.read_bytes())


async def test_a_generation_without_a_model_has_scores_of_its_start_model_and_the_reason(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    at = context(tmp_path / "run")
    result = await evaluate.run(at)
    generation = written(at)
    assert (generation.dev.parent.pass_at_1, generation.test[0].parent.pass_at_1) == (0.5, 0.5)
    assert generation.candidate is None
    assert "finetune.minSamples" in (generation.reason or "")
    assert result.usage.calls == len(engine.requests) == 4


async def test_a_generation_that_was_scored_makes_room_where_the_spec_says_so(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    for wanted in ("all", "promoted"):
        at = context(tmp_path / wanted, generation=1, retainModels=wanted)
        rejected = at.layout.root / "generations/000/attempts/0/finetune/model/model.safetensors"
        rejected.parent.mkdir(parents=True)
        rejected.touch()
        await evaluate.run(at)
        assert rejected.exists() is (wanted == "all")
        assert written(at).generation == 1


async def test_an_evaluation_that_was_killed_between_two_sets_reports_all_that_it_asked(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    calm = await evaluate.run(context(tmp_path / "calm"))

    killed = context(tmp_path / "killed")
    await score_model(killed, MODEL, scored_sets(killed)[:1], "the start model")
    asked = len(engine.requests)
    resumed = await evaluate.run(killed)

    assert len(engine.requests) - asked == 2, "the set that was scored is asked again"
    assert resumed.usage == calm.usage
    assert written(killed).usage["evaluate"].completion_tokens == calm.usage.completion_tokens
