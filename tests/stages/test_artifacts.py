"""What KFP's UI gets of a stage: its real artifact classes, filled by the components' own call."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kfp import dsl

from perseid.api.attempt import Attempt
from perseid.api.layout import RESULT, Layout
from perseid.api.result import Gain, GenerationResult, ModelRef, Score, SetResult, StageResult, StageUsage, YieldCounts
from perseid.api.spec import EvolutionRun
from perseid.api.stages import StageName, module_of
from perseid.data.jsonl import write_jsonl
from perseid.data.records import Dropped
from perseid.report.page import generation_page
from perseid.stages.artifacts import set_scores, yield_table
from perseid.stages.kfp import run_component
from sample_manifest import MANIFEST

RUN_ID = "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11"
BAD = "<script>alert('x')</script>"


def score(value: float) -> Score:
    return Score(
        pass_at_1=value, low=value - 0.1, high=value + 0.1, problems=10, samples=4, pass_at={"1": value, "4": 0.9}
    )


def gained(name: str = "dev") -> SetResult:
    gain = Gain(value=0.2, low=0.05, high=0.35)
    return SetResult(name=name, parent=score(0.4), candidate=score(0.6), gain=gain)


def generation(**more: Any) -> GenerationResult:
    known: dict[str, Any] = {
        "generation": 3,
        "attempt": 0,
        "run_id": RUN_ID,
        "candidate": ModelRef(uri="s3://bucket/run/model", model_id="c" * 64, generation=3),
        "parent_model_id": "b" * 64,
        "dev": gained(),
        "test": [SetResult(name="held-out", parent=score(0.3), candidate=score(0.5), gain=gained().gain)],
        "yields": YieldCounts(total=10, kept=6, dropped={"tests-failed": 3, "no-code": 1}),
        "usage": {"synthesize": StageUsage(calls=12, completion_tokens=3456, seconds=78.0)},
    }
    return GenerationResult(**{**known, **more})


class Stage:
    """A stage that is done, in a directory: its body is not needed, and importing that would take seconds."""

    def __init__(self, root: Path, name: StageName, monkeypatch: pytest.MonkeyPatch, **result: Any) -> None:
        module = SimpleNamespace(run=None, run_shard=None)
        monkeypatch.setitem(sys.modules, f"perseid.stages.{module_of(name)}", module)  # type: ignore[arg-type]
        self.attempt = Attempt(
            run=EvolutionRun.model_validate({"metadata": {"name": "shown"}}),
            run_id=RUN_ID,
            generation=3,
            number=0,
            storage=str(root),
            start_model="org/start",
        )
        self.name: StageName = name
        self.layout = Layout.of(self.attempt)
        self.directory = self.layout.stage(name)
        self.directory.mkdir(parents=True)
        done = StageResult(stage=name, state="done", **result)
        (self.directory / RESULT).write_text(done.model_dump_json(by_alias=True))
        self.artifacts = root / "artifacts"
        self.artifacts.mkdir()
        self.metrics = dsl.Metrics(uri=str(self.artifacts / "metrics"))

    def artifact(self, kind: Any) -> Any:
        return kind(name=kind.__name__, uri=str(self.artifacts / kind.__name__))

    def run(self, **artifacts: Any) -> str:
        told = self.attempt.arguments()
        parameters = (told["run"], RUN_ID, 3, 0, told["storage"], told["start_model"])
        return run_component(self.name, parameters, self.metrics, **artifacts)


def put_model(stage: Stage, made_by: StageName) -> Path:
    directory = stage.layout.stage(made_by) / "model"
    directory.mkdir(parents=True)
    (directory / "perseid-model.json").write_text(MANIFEST.model_dump_json())
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


def test_a_model_artifact_is_the_manifest_and_never_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, "finetune", monkeypatch, metrics={"trained": 1.0, "samples": 3})
    directory = put_model(stage, "finetune")
    model = stage.artifact(dsl.Model)
    assert stage.run(model=model) == str(stage.directory / RESULT)
    assert stage.metrics.metadata == {"trained": 1.0, "samples": 3}
    assert Path(model.path).read_text() == MANIFEST.model_dump_json()
    assert model.metadata == {
        "uri": str(directory),
        "model_id": "c" * 64,
        "generation": 3,
        "base": "org/name",
        "base_model_id": "b" * 64,
        "data_digest": MANIFEST.data_digest,
    }


def test_where_nothing_was_trained_the_model_artifact_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, "finetune", monkeypatch)
    model = stage.artifact(dsl.Model)
    stage.run(model=model)
    assert json.loads(Path(model.path).read_text()) == {}
    assert model.metadata.keys() == {"skipped"}


def test_the_search_tells_its_plans_and_why_others_were_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, "synthesize", monkeypatch, counts={"problems": 3, "plans": 1})
    reasons = ["plan-too-short", "no-path", "plan-too-short"]
    write_jsonl(
        stage.directory / "dropped.jsonl",
        [Dropped(id=str(n), problem_id="p", reason=why, detail="") for n, why in enumerate(reasons)],
    )
    yields = stage.artifact(dsl.Markdown)
    stage.run(yields=yields)
    assert Path(yields.path).read_text().splitlines() == [
        "| what became of it | count | share |",
        "|---|---:|---:|",
        "| kept | 1 | 25.0% |",
        "| dropped: plan-too-short | 2 | 50.0% |",
        "| dropped: no-path | 1 | 25.0% |",
        "| total | 4 | 100.0% |",
    ]


@pytest.mark.parametrize("name", ["convert", "mentor-supervised", "self-assessment", "self-evolution"])
def test_a_stage_that_makes_training_data_tells_its_yield(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: StageName
) -> None:
    stage = Stage(tmp_path, name, monkeypatch)
    yields = stage.artifact(dsl.Markdown)
    stage.run(yields=yields)
    assert Path(yields.path).read_text() == "No training data.\n"
    counts = YieldCounts(total=4, kept=1, dropped={"tests-failed": 3})
    (stage.directory / "yield.json").write_text(counts.model_dump_json())
    stage.run(yields=yields)
    assert Path(yields.path).read_text() == yield_table(counts)


def test_a_yield_of_nothing_has_no_shares_and_a_reason_cannot_break_the_table() -> None:
    assert yield_table(YieldCounts(total=0, kept=0)).splitlines()[2:] == ["| kept | 0 |  |", "| total | 0 |  |"]
    table = yield_table(YieldCounts(total=1, kept=0, dropped={"a|b\nc": 1}))
    assert "| dropped: a\\|b c | 1 | 100.0% |" in table


def test_the_last_stage_gives_scores_to_compare_a_page_and_the_model_with_its_lineage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, "evaluate", monkeypatch)
    put_model(stage, "finetune")
    stage.layout.result.write_text(generation().model_dump_json(by_alias=True))
    scores, page, candidate = map(stage.artifact, (dsl.ClassificationMetrics, dsl.HTML, dsl.Model))
    scores = dsl.Metrics(uri=scores.uri)
    stage.run(generation=(scores, page, candidate))
    assert scores.metadata == dict(set_scores(generation()))
    assert Path(page.path).read_text() == generation_page("shown", generation())
    assert json.loads(Path(candidate.path).read_text())["model_id"] == "c" * 64
    assert candidate.metadata == {
        "uri": "s3://bucket/run/model",
        "model_id": "c" * 64,
        "generation": 3,
        "base": "org/name",
        "base_model_id": "b" * 64,
        "data_digest": MANIFEST.data_digest,
        "start_model": "org/start",
        "start_model_id": "b" * 64,
        "pass_at_1": 0.6,
        "gain": 0.2,
    }


def test_a_generation_without_a_model_says_why_and_has_its_start_models_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, "evaluate", monkeypatch)
    dev = SetResult(name="dev", parent=score(0.4))
    nothing = generation(candidate=None, reason="too few records", dev=dev, test=[])
    stage.layout.result.write_text(nothing.model_dump_json(by_alias=True))
    scores, page, candidate = dsl.Metrics(uri=str(tmp_path / "s")), stage.artifact(dsl.HTML), stage.artifact(dsl.Model)
    stage.run(generation=(scores, page, candidate))
    assert candidate.metadata == {"skipped": "too few records"}
    assert set(scores.metadata) == {"dev_start_pass_at_1", "dev_start_pass_at_4", "dev_start_low", "dev_start_high"}
    assert "No model: too few records." in Path(page.path).read_text()


def test_scores_are_called_the_same_in_every_generation() -> None:
    found = dict(set_scores(generation()))
    assert found["dev_pass_at_1"] == 0.6
    assert found["dev_pass_at_4"] == 0.9
    assert found["dev_start_pass_at_1"] == 0.4
    assert (found["dev_gain"], found["dev_gain_low"], found["dev_gain_high"]) == (0.2, 0.05, 0.35)
    assert found["held-out_pass_at_1"] == 0.5
    assert list(found) == list(dict(set_scores(generation(generation=4, candidate=MODEL_OF_4))))


MODEL_OF_4 = ModelRef(uri="x", generation=4)


class Page(HTMLParser):
    """The texts of a page, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_tells_scores_yields_and_usage_and_needs_nothing_beside_it() -> None:
    page = Page(generation_page("shown", generation()))
    for text in (
        "shown, generation 3, attempt 0",
        "s3://bucket/run/model",
        "dev (decides)",
        "60.0% (50.0% to 70.0%)",
        "+20.0 (+5.0 to +35.0)",
        "dropped: tests-failed",
        "3456",
    ):
        assert text in page.texts
    assert page.loads == []
    assert "Judged against the start model" not in page.texts, "a table without rows is left out"


def test_no_text_of_a_run_becomes_markup_of_the_page() -> None:
    hostile = generation(
        candidate=ModelRef(uri=BAD, model_id=BAD, generation=3),
        dev=gained(BAD),
        yields=YieldCounts(total=1, kept=0, dropped={BAD: 1}),
        usage={BAD: StageUsage()},
    )
    page = Page(generation_page(BAD, hostile))
    assert "script" not in page.tags
    assert BAD in page.texts
    assert generation_page(BAD, hostile).count("<script") == 0
