"""`perseid plan`: what it says a cluster would be asked for is what `decide` asks for, generation by generation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from perseid.api.load import load_run
from perseid.api.names import display_name, experiment_name
from perseid.api.stages import STAGES
from perseid.cli import exits
from perseid.cli.app import app
from perseid.cli.plan import PlannedRun
from perseid.decide import run_id_of
from perseid.pipelines.generation import compile_template

ROOT = Path(__file__).parents[2]
UID = "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11"
HEAD = """\
apiVersion: perseid.dev/v1alpha1
kind: EvolutionRun
metadata: {name: small, namespace: lab}
"""


def perseid(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def written(directory: Path, spec: str, head: str = HEAD) -> Path:
    path = directory / "run.yaml"
    path.write_text(f"{head}spec: {spec}\n")
    return path


def planned(file: Path, *options: str) -> dict[str, Any]:
    result = perseid("plan", file, "--json", *options)
    assert result.exit_code == exits.OK, result.output
    return json.loads(result.stdout)


def test_ids_names_and_places_are_those_that_the_operator_will_use(tmp_path: Path) -> None:
    plan = planned(written(tmp_path, "{generations: {max: 3}, storage: {uri: 's3://bucket/small/'}}"), "--uid", UID)
    assert plan["experiment"] == experiment_name("lab", "small")
    assert plan["uid"] == UID
    assert [one["generation"] for one in plan["runs"]] == [0, 1, 2]
    for one in plan["runs"]:
        number = one["generation"]
        assert one["run_id"] == run_id_of(UID, number, 0)
        assert one["display_name"] == display_name("lab", "small", number, 0)
        assert one["storage"] == f"s3://bucket/small/generations/{number:03d}/attempts/0"
    assert plan["runs"][1]["start_model"] == "s3://bucket/small/generations/000/attempts/0/finetune/model"


def test_a_placeholder_uid_is_the_same_every_time_and_is_owned_up_to(tmp_path: Path) -> None:
    file = written(tmp_path, "{}")
    first, second = planned(file), planned(file)
    assert first == second
    assert first["uid_is_placeholder"] is True
    assert any("ids depend on the object's uid" in note for note in first["notes"])
    elsewhere = planned(file, "-n", "other")
    assert elsewhere["runs"][0]["run_id"] != first["runs"][0]["run_id"]
    known = planned(file, "--uid", UID)
    assert known["uid_is_placeholder"] is False
    assert not any("placeholder" in note for note in known["notes"])


def test_each_generation_says_what_it_waits_for(tmp_path: Path) -> None:
    spec = "{generations: {max: 3, approval: manual}, suspend: true, model: {evolutionRun: earlier}}"
    plan = planned(written(tmp_path, spec))
    first, second, third = (one["starts"] for one in plan["runs"])
    assert "EvolutionRun earlier has a promoted model" in first
    assert "spec.suspend is set to false" in first
    assert "approves" not in first
    assert second == "generation 0 has ended and somebody approves generation 1"
    assert third == "generation 1 has ended and somebody approves generation 2"


def test_what_is_approved_in_the_file_waits_for_nobody(tmp_path: Path) -> None:
    head = HEAD.replace("}", ", annotations: {perseid.dev/approved-generation: '1'}}")
    plan = planned(written(tmp_path, "{generations: {max: 3, approval: manual}}", head))
    assert plan["runs"][1]["starts"] == "generation 0 has ended"
    assert plan["runs"][2]["starts"] == "generation 1 has ended and somebody approves generation 2"


def test_ten_generations_are_told_of_unless_a_number_is_given(tmp_path: Path) -> None:
    file = written(tmp_path, "{generations: {max: 40}}")
    plan = planned(file)
    assert (len(plan["runs"]), plan["runs_not_shown"]) == (10, 30)
    plan = planned(file, "--generations", "25")  # more than a status holds
    assert (len(plan["runs"]), plan["runs_not_shown"]) == (25, 15)
    assert plan["runs"][24]["run_id"] == run_id_of(plan["uid"], 24, 0)
    assert len(planned(file, "--generations", "100")["runs"]) == 40


def test_the_plan_ends_where_the_brain_would_end_the_run(tmp_path: Path) -> None:
    # Nothing can gain more than all points: no promotion is possible, and patience is used up after two generations.
    spec = "{generations: {max: 9, patience: 2, promotion: {minImprovement: 1.0}}}"
    plan = planned(written(tmp_path, spec))
    assert [one["generation"] for one in plan["runs"]] == [0, 1]
    assert plan["runs"][1]["start_model"] == plan["runs"][0]["start_model"]


def test_shards_and_the_queue_are_told_with_the_stages_that_they_are_about(tmp_path: Path) -> None:
    pipeline = "{pipeline: {shards: 4, queue: research, stages: {synthesize: {gpus: 1}}}}"
    stages = planned(written(tmp_path, pipeline))["stages"]
    assert stages[0]["resources"] == {"gpus": 1, "gpu_type": "nvidia.com/gpu", "shards": 4, "queue": "research"}
    assert stages[1]["resources"] == {}


def test_stages_are_told_with_image_resources_and_labels(tmp_path: Path) -> None:
    stages = "{finetune: {gpus: 2, memory: 64Gi, labels: {kueue.x-k8s.io/queue-name: gpus}, timeoutSeconds: 60}}"
    file = written(tmp_path, f"{{pipeline: {{image: 'org/stage:1', stages: {stages}}}}}")
    plan = planned(file)
    assert [stage["name"] for stage in plan["stages"]] == ["synthesize", "convert", "finetune", "evaluate"]
    assert {stage["image"] for stage in plan["stages"]} == {"org/stage:1"}
    tune = plan["stages"][2]["resources"]
    assert tune == {
        "memory": "64Gi",
        "gpus": 2,
        "gpu_type": "nvidia.com/gpu",
        "labels": {"kueue.x-k8s.io/queue-name": "gpus"},
        "timeout_seconds": 60,
    }
    assert "kueue.x-k8s.io/queue-name=gpus" in perseid("plan", file).stdout


@pytest.mark.parametrize(
    ("spec", "stages", "model"),
    [
        ("{methods: [meteor]", "mentor-supervised self-assessment self-evolution evaluate", "self-evolution"),
        (
            "{methods: [meteor], meteor: {stages: [self-assessment, mentor-supervised]}",
            "mentor-supervised self-assessment evaluate",
            "self-assessment",
        ),
        (
            "{methods: [meteor, sra-mcts], meteor: {stages: [self-evolution]}",
            "synthesize convert finetune self-evolution evaluate",
            "self-evolution",
        ),
    ],
    ids=["meteor", "two stages of meteor", "both methods"],
)
def test_the_stages_are_those_of_the_runs_methods_and_the_last_that_trains_makes_the_model(
    tmp_path: Path, spec: str, stages: str, model: str
) -> None:
    resources = "pipeline: {stages: {selfAssessment: {gpus: 1, memory: 16Gi}, selfEvolution: {gpus: 1, memory: 16Gi}}}"
    file = written(tmp_path, f"{spec}, generations: {{max: 2}}, {resources}}}")
    plan = planned(file)
    assert [stage["name"] for stage in plan["stages"]] == stages.split()
    assert plan["stages"][-2]["resources"]["memory"] == "16Gi"
    assert plan["runs"][1]["start_model"].endswith(f"/generations/000/attempts/0/{model}/model")
    page = perseid("plan", file).stdout
    assert [name for name in STAGES if f" {name} " in page] == stages.split()


def test_the_pipeline_is_compiled_and_its_digest_follows_what_is_in_it(tmp_path: Path) -> None:
    plain, other = planned(written(tmp_path, "{}")), planned(written(tmp_path, "{pipeline: {image: 'org/stage:1'}}"))
    longer = planned(written(tmp_path, "{generations: {max: 5}, suspend: true}"))
    assert plain["pipeline_digest"] != other["pipeline_digest"]
    assert plain["pipeline_digest"] == longer["pipeline_digest"], "how far a run goes is no part of its pipeline"
    pipeline, _ = compile_template(load_run(written(tmp_path, "{}")).spec.template)
    assert plain["pipeline_bytes"] > len(json.dumps(pipeline, separators=(",", ":")))
    assert plain["runs"][0]["bytes"] > plain["pipeline_bytes"]


def test_what_is_too_big_to_be_submitted_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, "{}")
    plan = planned(file)
    assert not any("bytes" in note for note in plan["notes"])
    monkeypatch.setattr("perseid.cli.plan.PIPELINE_LIMIT", plan["pipeline_bytes"] - 1)
    monkeypatch.setattr("perseid.cli.plan.SUBMISSION_LIMIT", plan["runs"][0]["bytes"] - 1)
    notes = planned(file)["notes"]
    assert any(f"The pipeline has {plan['pipeline_bytes']:,} bytes, and the operator refuses" in note for note in notes)
    assert any(f"A submission has {plan['runs'][0]['bytes']:,} bytes" in note for note in notes)


def test_limits_are_told_by_the_field_that_sets_them(tmp_path: Path) -> None:
    budget = "{gpuHours: 12.5, mentorTokens: 2000000}"
    spec = f"{{activeDeadlineSeconds: 7200, budget: {budget}, generations: {{maxAttempts: 5}}}}"
    limits = planned(written(tmp_path, spec))["limits"]
    assert limits["activeDeadlineSeconds"] == "7200 s"
    assert limits["budget.gpuHours"] == "12.5"
    assert limits["budget.mentorCost"] == "none"
    assert limits["budget.mentorTokens"] == "2,000,000"
    assert limits["startDeadlineSeconds"] == "none"
    assert limits["generations.maxAttempts"].startswith("5 ")


def test_without_a_storage_uri_the_operators_own_root_is_named_or_stood_in_for(tmp_path: Path) -> None:
    file = written(tmp_path, "{}")
    unknown = planned(file, "--uid", UID)
    assert unknown["storage"] == f"OPERATOR-STORAGE/lab/small-{UID}"
    assert any("--storage-root" in note for note in unknown["notes"])
    known = planned(file, "--uid", UID, "--storage-root", "s3://perseid/runs")
    assert known["storage"] == f"s3://perseid/runs/lab/small-{UID}"
    assert not any("--storage-root" in note for note in known["notes"])


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.yaml")))
def test_the_examples_can_be_planned_and_every_number_is_on_the_page(name: str) -> None:
    file = ROOT / "examples" / name
    plan, page = planned(file), perseid("plan", file).stdout
    words = " ".join(page.split())
    for one in (PlannedRun(**run) for run in plan["runs"]):
        assert one.run_id in page
        assert one.display_name in page
        assert one.starts in words
    assert plan["pipeline_digest"] in page
    assert plan["experiment"] in page


def test_a_run_that_somebody_else_manages_is_said_to_be_left_alone(tmp_path: Path) -> None:
    notes = planned(written(tmp_path, "{managedBy: example.com/other}"))["notes"]
    assert any("spec.managedBy is example.com/other" in note for note in notes)
    assert not any(
        "managedBy" in note for note in planned(written(tmp_path, "{managedBy: perseid.dev/operator}"))["notes"]
    )


def test_a_mistake_in_the_file_or_the_uid_is_a_mistake_and_no_traceback(tmp_path: Path) -> None:
    result = perseid("plan", written(tmp_path, "{sed: 1}"))
    assert result.exit_code == exits.MISTAKE
    assert "seed" in result.stderr
    result = perseid("plan", written(tmp_path, "{}"), "--uid", "not-a-uid")
    assert result.exit_code == exits.MISTAKE
    assert "UUID" in result.stderr


def test_a_pipeline_that_kfp_refuses_is_a_mistake_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise ValueError("the image is no image")

    monkeypatch.setattr("perseid.pipelines.generation.compile_template", refuse)
    result = perseid("plan", written(tmp_path, "{}"))
    assert result.exit_code == exits.MISTAKE
    assert "KFP cannot compile the pipeline of spec.pipeline: the image is no image" in result.stderr
