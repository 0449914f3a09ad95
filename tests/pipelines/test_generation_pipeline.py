"""The compiled pipeline: its golden form, and where each field of a spec ends up in it.

PERSEID_UPDATE_GOLDEN=1 writes the golden file anew; look at its difference before you commit it.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format, struct_pb2

from perseid.api.attempt import Attempt
from perseid.api.layout import STAGES
from perseid.api.load import load_run
from perseid.api.spec import EvolutionRun
from perseid.pipelines.generation import compile_pipeline

ROOT = Path(__file__).parents[2]
EXAMPLES = ("quickstart.yaml", "sra-mcts-8b.yaml")
GOLDEN = Path(__file__).parent / "golden" / "generation.yaml"
IMAGE = "registry.example/perseid-stage@sha256:" + 64 * "a"

EVERYTHING = {
    "cpu": "8",
    "memory": "64Gi",
    "gpus": 2,
    "gpuType": "amd.com/gpu",
    "sharedMemory": "16Gi",
    "scratch": "200Gi",
    "nodeSelector": {"disk": "fast", "accelerator": "mi300x"},
    "labels": {"kueue.x-k8s.io/queue-name": "research", "team": "models"},
    "retries": 3,
    "timeoutSeconds": 7200,
}
RUN = EvolutionRun.model_validate(
    {
        "metadata": {"name": "golden", "namespace": "research", "labels": {"a": "b"}},
        "spec": {
            "seed": 7,
            "model": {"ref": "org/name", "revision": "main"},
            "engine": {"vllm": {"blockSize": 32, "enforceEager": True, "tensorParallelSize": 2}},
            "conversion": {"instructions": ["Answer with one Python code block."]},
            "finetune": {"lora": {"targetModules": ["q_proj", "v_proj"]}},
            "evaluation": {"samples": 10, "k": [1, 10]},
            "pipeline": {
                "image": IMAGE,
                "env": [{"name": "AWS_REGION", "value": "here"}],
                "secretEnv": [
                    {"name": "AWS_SECRET_ACCESS_KEY", "secret": "storage", "key": "secret-key"},
                    {"name": "OPENAI_API_KEY", "secret": "mentor", "key": "token"},
                ],
                "stages": {
                    "synthesize": EVERYTHING,
                    "convert": {"cpu": "500m", "memory": "512Mi"},
                    "finetune": {**EVERYTHING, "gpuType": "nvidia.com/gpu", "retries": 0},
                },
            },
        },
    }
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return compile_to_documents(RUN, tmp_path_factory.mktemp("compiled"))


def compile_to_documents(run: EvolutionRun, directory: Path) -> list[dict[str, Any]]:
    """The pipeline and its Kubernetes part."""
    compile_pipeline(run, directory / "pipeline.yaml")
    return list(yaml.safe_load_all((directory / "pipeline.yaml").read_text()))


def container(compiled: list[dict[str, Any]], stage: str) -> dict[str, Any]:
    found: dict[str, Any] = compiled[0]["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]
    return found


def on_kubernetes(compiled: list[dict[str, Any]], stage: str) -> dict[str, Any]:
    executors = compiled[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    found: dict[str, Any] = executors.get(f"exec-{stage}", {})
    return found


def tasks(compiled: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compiled[0]["root"]["dag"]["tasks"]
    return found


def test_the_pipeline_is_the_golden_one(compiled: list[dict[str, Any]]) -> None:
    pipeline = {key: value for key, value in compiled[0].items() if key != "sdkVersion"}
    text = yaml.safe_dump_all([pipeline, *compiled[1:]], sort_keys=True, width=120)
    if os.environ.get("PERSEID_UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "run with PERSEID_UPDATE_GOLDEN=1 and look at the difference"


def test_compiling_twice_gives_the_same_pipeline(compiled: list[dict[str, Any]], tmp_path: Path) -> None:
    assert compile_to_documents(RUN, tmp_path) == compiled


def test_the_stages_run_one_after_the_other(compiled: list[dict[str, Any]]) -> None:
    edges = {name: task.get("dependentTasks", []) for name, task in tasks(compiled).items()}
    assert edges == {"synthesize": [], "convert": ["synthesize"], "finetune": ["convert"], "evaluate": ["finetune"]}


def test_each_stage_takes_the_result_of_the_one_before(compiled: list[dict[str, Any]]) -> None:
    for name, task in tasks(compiled).items():
        taken = [
            value["taskOutputParameter"]["producerTask"]
            for value in task["inputs"]["parameters"].values()
            if "taskOutputParameter" in value
        ]
        assert taken == task.get("dependentTasks", []), name


def test_no_stage_is_cached(compiled: list[dict[str, Any]]) -> None:
    assert [task["cachingOptions"].get("enableCache", False) for task in tasks(compiled).values()] == 4 * [False]


def test_every_stage_runs_in_the_specs_image(compiled: list[dict[str, Any]]) -> None:
    assert {container(compiled, stage)["image"] for stage in STAGES} == {IMAGE}


def test_resources_land_on_their_stage_alone(compiled: list[dict[str, Any]]) -> None:
    resources = {stage: container(compiled, stage).get("resources", {}) for stage in STAGES}
    full = resources["synthesize"]
    assert full["resourceCpuRequest"] == "8"
    assert "resourceCpuLimit" not in full
    assert full["resourceMemoryRequest"] == full["resourceMemoryLimit"] == "64Gi"
    assert full["accelerator"]["resourceType"] == "amd.com/gpu"
    assert full["accelerator"]["resourceCount"] == "2"
    assert resources["finetune"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert resources["convert"]["resourceCpuRequest"] == "500m"
    assert resources["convert"]["resourceMemoryLimit"] == "512Mi"
    assert "accelerator" not in resources["convert"]
    assert resources["evaluate"] == {}


def test_placement_lands_in_the_kubernetes_part_of_its_stage_alone(compiled: list[dict[str, Any]]) -> None:
    placed = on_kubernetes(compiled, "synthesize")
    assert placed["nodeSelector"]["labels"] == EVERYTHING["nodeSelector"]
    assert placed["podMetadata"]["labels"] == EVERYTHING["labels"]
    assert placed["activeDeadlineSeconds"] == "7200"
    shared, scratch = placed["emptyDirMounts"]
    assert shared == {"volumeName": "dshm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "16Gi"}
    assert scratch == {"volumeName": "scratch", "mountPath": "/scratch", "sizeLimit": "200Gi"}
    assert on_kubernetes(compiled, "convert").keys() == {"secretAsEnv"}
    assert on_kubernetes(compiled, "evaluate").keys() == {"secretAsEnv"}


def test_every_stage_has_the_environment_and_no_secret_stands_in_the_pipeline(compiled: list[dict[str, Any]]) -> None:
    for stage in STAGES:
        variables = {one["name"]: one["value"] for one in container(compiled, stage)["env"]}
        scratch = {"PERSEID_SCRATCH_DIR": "/scratch"} if stage in ("synthesize", "finetune") else {}
        assert variables == {"AWS_REGION": "here", **scratch}
        secrets = {
            entry["keyToEnv"][0]["envVar"]: (entry["secretName"], entry["keyToEnv"][0]["secretKey"])
            for entry in on_kubernetes(compiled, stage)["secretAsEnv"]
        }
        assert secrets == {"AWS_SECRET_ACCESS_KEY": ("storage", "secret-key"), "OPENAI_API_KEY": ("mentor", "token")}


def test_retries_are_asked_for_only_where_the_spec_does(compiled: list[dict[str, Any]]) -> None:
    policies = {name: task.get("retryPolicy", {}).get("maxRetryCount") for name, task in tasks(compiled).items()}
    assert policies == {"synthesize": 3, "convert": None, "finetune": None, "evaluate": None}


def test_no_command_installs_anything(compiled: list[dict[str, Any]]) -> None:
    for stage in STAGES:
        command = " ".join([*container(compiled, stage)["command"], *container(compiled, stage)["args"]])
        assert "pip" not in re.sub(r"pipeline", "", command), stage


def test_the_body_of_every_stage_is_one_call_into_the_stages(compiled: list[dict[str, Any]]) -> None:
    for stage in STAGES:
        (function,) = [
            node
            for node in ast.parse(container(compiled, stage)["command"][-1]).body
            if isinstance(node, ast.FunctionDef)
        ]
        docstring, imported, returned = function.body
        assert ast.get_docstring(function), docstring
        assert ast.unparse(imported) == "from perseid.stages.kfp import run_component"
        assert isinstance(returned, ast.Return)
        assert isinstance(returned.value, ast.Call)
        assert ast.unparse(returned.value).startswith(f"run_component('{stage}', ")


def test_only_the_storage_must_be_given_to_start_it_by_hand(compiled: list[dict[str, Any]]) -> None:
    inputs = compiled[0]["root"]["inputDefinitions"]["parameters"]
    assert [name for name, parameter in inputs.items() if not parameter.get("isOptional")] == ["storage"]
    assert EvolutionRun.model_validate(inputs["run"]["defaultValue"]) == RUN
    assert inputs["start_model"]["defaultValue"] == "org/name"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_compiles_to_far_less_than_kubernetes_takes(name: str, tmp_path: Path) -> None:
    compile_pipeline(load_run(ROOT / "examples" / name), tmp_path / "deep" / "pipeline.yaml")
    # etcd takes objects of 1.5 MiB and KFP puts the pipeline into its workflow several times over.
    assert (tmp_path / "deep" / "pipeline.yaml").stat().st_size < 128 * 1024
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["pipeline.yaml"], "scratch files were left"


@pytest.mark.parametrize("run", [RUN, *(load_run(ROOT / "examples" / name) for name in EXAMPLES)])
def test_an_attempt_survives_kfps_struct_in_which_every_number_is_a_float(run: EvolutionRun) -> None:
    attempt = Attempt(
        run=run,
        run_id="6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11",
        generation=3,
        number=1,
        storage="/runs/golden",
        start_model="/runs/golden/model",
    )
    given = json_format.ParseDict(attempt.arguments(), struct_pb2.Struct())
    taken = json_format.MessageToDict(given)
    assert isinstance(taken["generation"], float)
    fields = {"run": "run", "run_id": "run_id", "generation": "generation", "attempt": "number"}
    renamed = {fields.get(name, name): value for name, value in taken.items()}
    assert Attempt.model_validate(renamed) == attempt


def test_the_pipelines_parameters_are_what_an_attempt_gives(compiled: list[dict[str, Any]]) -> None:
    attempt = Attempt(run=RUN, run_id="x", generation=0, number=0, storage="/s", start_model="m")
    assert set(attempt.arguments()) == set(compiled[0]["root"]["inputDefinitions"]["parameters"])


def test_the_same_run_compiles_to_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    # Two processes with other hash seeds; each imports KFP, which takes a second or two.
    program = (
        "import sys; from pathlib import Path; from perseid.api.load import load_run;"
        "from perseid.pipelines.generation import compile_pipeline;"
        "compile_pipeline(load_run(sys.argv[1]), Path(sys.argv[2]))"
    )
    compiled = []
    for seed in ("1", "2"):
        output = tmp_path / f"{seed}.yaml"
        command = [sys.executable, "-c", program, str(ROOT / "examples" / EXAMPLES[0]), str(output)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        compiled.append(output.read_bytes())
    assert compiled[0] == compiled[1]
