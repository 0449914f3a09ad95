"""What becomes of a spec in the TrainJob of its training stages."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainjob_attempts import EVERYTHING, POD, attempt

from perseid.api.attempt import Attempt
from perseid.api.base import RUN_NAME, replace
from perseid.api.stages import TRAIN_JOB_STAGES
from perseid_trainjob.manifest import identity_labels, job_name, train_job


def nodes(manifest: dict[str, Any]) -> dict[str, Any]:
    """The patch of the nodes' pods."""
    (patch,) = manifest["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    found: dict[str, Any] = replicated["template"]["spec"]["template"]
    return found


def test_every_field_of_a_stage_is_in_the_trainjob() -> None:
    manifest = train_job(attempt(**EVERYTHING), "finetune", POD)
    spec, trainer = manifest["spec"], manifest["spec"]["trainer"]
    assert spec["runtimeRef"] == {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": "torch-gpu"}
    assert spec["activeDeadlineSeconds"] == 7200
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (4, 8)
    assert trainer["image"] == EVERYTHING["image"]
    assert trainer["resourcesPerNode"] == {
        "requests": {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8"},
        "limits": {"memory": "512Gi", "nvidia.com/gpu": "8"},
    }
    assert trainer["env"] == [
        {"name": "PERSEID_SCRATCH_DIR", "value": "/scratch"},
        {"name": "HF_HOME", "value": "/cache/huggingface"},
        {"name": "PERSEID_CACHE", "value": "/cache/perseid"},
        {"name": "AWS_REGION", "value": "here"},
        {
            "name": "AWS_SECRET_ACCESS_KEY",
            "valueFrom": {"secretKeyRef": {"name": "storage", "key": "secret-key"}},
        },
    ]
    pod = nodes(manifest)
    assert pod["spec"]["nodeSelector"] == {"accelerator": "h200"}
    assert pod["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["spec"]["serviceAccountName"] == "runner"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert {one["name"]: one for one in pod["spec"]["volumes"]} == {
        "dshm": {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
        "scratch": {"name": "scratch", "emptyDir": {"sizeLimit": "500Gi"}},
        "cache": {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}},
    }
    assert {one["mountPath"] for one in pod["spec"]["containers"][0]["volumeMounts"]} == {
        "/dev/shm", "/scratch", "/cache",
    }  # fmt: skip
    assert pod["metadata"]["labels"]["team"] == "models"


def test_a_queue_is_the_trainjobs_and_not_its_pods() -> None:
    manifest = train_job(attempt(**EVERYTHING), "finetune", POD)
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "urgent", "the stage's own goes first"
    assert "pipeline/runid" in manifest["metadata"]["labels"], "by which the operator finds it"
    assert "kueue.x-k8s.io/queue-name" not in nodes(manifest)["metadata"]["labels"]
    assert "kueue.x-k8s.io/queue-name" not in train_job(attempt(queue="q"), "finetune", POD)["metadata"]["labels"]


def test_a_priority_class_of_kueue_is_the_trainjobs_which_is_what_kueue_reads() -> None:
    manifest = train_job(attempt(**EVERYTHING), "finetune", POD)
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "nightly"
    assert "kueue.x-k8s.io/priority-class" not in nodes(manifest)["metadata"]["labels"]
    assert "kueue.x-k8s.io/priority-class" not in train_job(attempt(queue="q"), "finetune", POD)["metadata"]["labels"]


def test_the_nodes_are_told_the_attempt_and_belong_to_the_launchers_pod() -> None:
    told = attempt()
    manifest = train_job(told, "self-assessment", POD)
    assert manifest["spec"]["trainer"]["command"] == ["python3", "-m", "perseid.stages.nodes"]
    stage, argument = manifest["spec"]["trainer"]["args"]
    assert stage == "self-assessment"
    assert Attempt.of_arguments(json.loads(argument)) == Attempt.of_arguments(told.arguments())
    assert manifest["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": POD.name, "uid": POD.uid}
    ]
    labels = nodes(manifest)["metadata"]["labels"]
    assert (labels["pipeline/runid"], labels["perseid.dev/stage"]) == (told.run_id, "self-assessment")
    assert "activeDeadlineSeconds" not in manifest["spec"]
    assert "numProcPerNode" in manifest["spec"]["trainer"], "torch's policy would count CPUs"


def test_a_text_that_the_kubelet_would_change_comes_through() -> None:
    spec = attempt().run.spec
    texts = replace(spec.conversion, instructions=["pay $$5 for $(HOME) and {{x}}"])
    told = replace(attempt(), run=replace(attempt().run, spec=replace(spec, conversion=texts)))
    (_, argument) = train_job(told, "finetune", POD)["spec"]["trainer"]["args"]
    assert "$$" not in argument
    assert "$(" not in argument
    assert Attempt.of_arguments(json.loads(argument)).run.spec.conversion == told.run.spec.conversion


def test_processes_on_each_node_are_what_finetune_says_where_it_does() -> None:
    told = attempt()
    spec = replace(told.run.spec, finetune=replace(told.run.spec.finetune, processes=3))
    manifest = train_job(replace(told, run=replace(told.run, spec=spec)), "finetune", POD)
    assert manifest["spec"]["trainer"]["numProcPerNode"] == 3


@given(
    name=st.from_regex(RUN_NAME, fullmatch=True).filter(lambda one: len(one) <= 53),
    generation=st.integers(0, 10**6),
    number=st.integers(0, 10**6),
    stage=st.sampled_from(TRAIN_JOB_STAGES),
)
def test_a_name_is_one_that_trainer_takes_with_room_for_its_pods(
    name: str, generation: int, number: int, stage: Any
) -> None:
    told = replace(attempt(name=name), generation=generation, number=number)
    found = job_name(told, stage)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", found)
    assert len(f"{found}-node-0-63-abcde") <= 63
    assert found == job_name(told, stage)


def test_names_differ_by_stage_attempt_generation_and_files() -> None:
    told = attempt()
    others = [
        (told, "finetune"),
        (told, "self-assessment"),
        (replace(told, number=1), "finetune"),
        (replace(told, generation=1003), "finetune"),
        (attempt(storage="s3://models/runs/b"), "finetune"),
    ]
    assert len({job_name(one, stage) for one, stage in others}) == len(others)  # type: ignore[arg-type]


def test_attempts_at_a_stage_are_found_by_labels_that_other_runs_of_the_name_have_not() -> None:
    assert identity_labels(attempt(0), "finetune") == identity_labels(attempt(1), "finetune")
    assert identity_labels(attempt(), "finetune") != identity_labels(attempt(storage="s3://other"), "finetune")
    assert identity_labels(attempt(), "finetune") != identity_labels(attempt(), "self-assessment")
    for value in identity_labels(attempt(), "mentor-supervised").values():
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value)


@pytest.mark.parametrize("pipeline", [{}, EVERYTHING])
def test_a_trainjob_is_data_that_json_holds(pipeline: dict[str, Any]) -> None:
    manifest = train_job(attempt(**pipeline), "finetune", POD)
    assert json.loads(json.dumps(manifest)) == manifest
