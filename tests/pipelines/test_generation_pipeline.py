"""The compiled pipeline: its golden form, and where each field of a spec ends up in it.

PERSEID_UPDATE_GOLDEN=1 writes the golden files anew; look at their difference before you commit them.
"""

from __future__ import annotations

import ast
import json
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
from perseid.api.base import replace
from perseid.api.identity import definition
from perseid.api.load import load_run
from perseid.api.pipeline import POD_NAME, POD_NAMESPACE, POD_UID, EnvSpec, TrainJobSpec
from perseid.api.spec import EvolutionRun
from perseid.api.stages import TRAIN_JOB_STAGES, Method, StageName, module_of
from perseid.pipelines.generation import build_pipeline, build_template, compile_pipeline, compile_template

ROOT = Path(__file__).parents[2]
EXAMPLES = ("quickstart.yaml", "sra-mcts-8b.yaml")
GOLDEN = Path(__file__).parent / "golden"
IMAGE = "registry.example/perseid-stage@sha256:" + 64 * "a"

EVERYTHING = {
    "cpu": "8",
    "memory": "64Gi",
    "gpus": 2,
    "gpuType": "amd.com/gpu",
    "sharedMemory": "16Gi",
    "scratch": "200Gi",
    "nodeSelector": {"disk": "fast", "accelerator": "mi300x"},
    "tolerations": [
        {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "value": "models", "effect": "NoExecute", "tolerationSeconds": 600},
    ],
    "labels": {"kueue.x-k8s.io/queue-name": "research", "team": "models"},
    "retries": 3,
    "timeoutSeconds": 7200,
}


def of_methods(run: EvolutionRun, *methods: Method) -> EvolutionRun:
    return replace(run, spec=replace(run.spec, methods=list(methods)))


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
                "imagePullSecrets": [{"name": "registry"}],
                "stages": {
                    "synthesize": EVERYTHING,
                    "convert": {"cpu": "500m", "memory": "512Mi"},
                    "finetune": {**EVERYTHING, "gpuType": "nvidia.com/gpu", "retries": 0},
                    "selfAssessment": {**EVERYTHING, "memory": "32Gi"},
                },
            },
        },
    }
)
RUNS: dict[str, EvolutionRun] = {
    "generation": RUN,
    "meteor": of_methods(RUN, "meteor"),
    "both-methods": of_methods(RUN, "sra-mcts", "meteor"),
}
"""By the names of their golden files."""
IN_SHARDS = replace(RUN, spec=replace(RUN.spec, pipeline=replace(RUN.spec.pipeline, shards=8)))
ON_NODES = of_methods(
    replace(RUN, spec=replace(RUN.spec, pipeline=replace(RUN.spec.pipeline, train_job=TrainJobSpec(num_nodes=4)))),
    "sra-mcts",
    "meteor",
)
GOLDENS = {**RUNS, "shards": IN_SHARDS, "nodes": ON_NODES}
METEOR: list[StageName] = ["mentor-supervised", "self-assessment", "self-evolution"]
Documents = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Documents:
    """Each of them, compiled."""
    return {name: compile_to_documents(run, tmp_path_factory.mktemp("compiled")) for name, run in GOLDENS.items()}


@pytest.fixture(scope="module")
def compiled(pipelines: Documents) -> list[dict[str, Any]]:
    return pipelines["generation"]


every_run = pytest.mark.parametrize("name", RUNS)


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


@pytest.mark.parametrize("name", GOLDENS)
def test_the_pipeline_is_the_golden_one(pipelines: Documents, name: str) -> None:
    whole, *rest = pipelines[name]
    pipeline = {key: value for key, value in whole.items() if key != "sdkVersion"}
    text = yaml.safe_dump_all([pipeline, *rest], sort_keys=True, width=120)
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("PERSEID_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text(), "run with PERSEID_UPDATE_GOLDEN=1 and look at the difference"


def test_compiling_twice_gives_the_same_pipeline(compiled: list[dict[str, Any]], tmp_path: Path) -> None:
    assert compile_to_documents(RUN, tmp_path) == compiled


@pytest.mark.parametrize(
    ("methods", "meteor", "stages"),
    [
        (["sra-mcts"], METEOR, ["synthesize", "convert", "finetune", "evaluate"]),
        (["meteor"], METEOR, [*METEOR, "evaluate"]),
        (["meteor"], ["self-evolution", "mentor-supervised"], ["mentor-supervised", "self-evolution", "evaluate"]),
        (["meteor", "sra-mcts"], METEOR, ["synthesize", "convert", "finetune", *METEOR, "evaluate"]),
    ],
)
def test_the_stages_of_the_methods_run_one_after_the_other(
    methods: list[str], meteor: list[str], stages: list[str], tmp_path: Path
) -> None:
    said = {"metadata": {"name": "stages"}, "spec": {"methods": methods, "meteor": {"stages": meteor}}}
    compiled = compile_to_documents(EvolutionRun.model_validate(said), tmp_path)
    edges = {name: task.get("dependentTasks", []) for name, task in tasks(compiled).items()}
    assert edges == {name: [before] if before else [] for before, name in zip([None, *stages], stages, strict=False)}


@every_run
def test_each_stage_takes_the_result_of_the_one_before(pipelines: Documents, name: str) -> None:
    compiled = pipelines[name]
    for name, task in tasks(compiled).items():
        taken = [
            value["taskOutputParameter"]["producerTask"]
            for value in task["inputs"]["parameters"].values()
            if "taskOutputParameter" in value
        ]
        assert taken == task.get("dependentTasks", []), name


@every_run
def test_no_stage_is_cached(pipelines: Documents, name: str) -> None:
    cached = [task["cachingOptions"].get("enableCache", False) for task in tasks(pipelines[name]).values()]
    assert cached == len(RUNS[name].spec.stages) * [False]


@every_run
def test_every_stage_runs_in_the_specs_image(pipelines: Documents, name: str) -> None:
    assert {container(pipelines[name], stage)["image"] for stage in RUNS[name].spec.stages} == {IMAGE}


def test_resources_land_on_their_stage_alone(pipelines: Documents) -> None:
    compiled = pipelines["both-methods"]
    resources = {stage: container(compiled, stage).get("resources", {}) for stage in RUNS["both-methods"].spec.stages}
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
    assert resources["self-assessment"]["resourceMemoryLimit"] == "32Gi"
    assert resources["mentor-supervised"] == resources["self-evolution"] == {}
    assert resources["evaluate"] == {}


@pytest.mark.parametrize("stage", ["synthesize", "self-assessment"])
def test_placement_lands_in_the_kubernetes_part_of_its_stage_alone(pipelines: Documents, stage: str) -> None:
    compiled = pipelines["both-methods"]
    placed = on_kubernetes(compiled, stage)
    assert placed["nodeSelector"]["labels"] == EVERYTHING["nodeSelector"]
    assert placed["podMetadata"]["labels"] == EVERYTHING["labels"]
    assert placed["tolerations"] == [
        {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "operator": "Equal", "value": "models", "effect": "NoExecute", "tolerationSeconds": "600"},
    ]
    assert placed["activeDeadlineSeconds"] == "7200"
    shared, scratch = placed["emptyDirMounts"]
    assert shared == {"volumeName": "dshm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "16Gi"}
    assert scratch == {"volumeName": "scratch", "mountPath": "/scratch", "sizeLimit": "200Gi"}
    for other in ("convert", "mentor-supervised", "self-evolution", "evaluate"):
        assert on_kubernetes(compiled, other).keys() == {"secretAsEnv", "imagePullSecret"}


@pytest.mark.parametrize("name", GOLDENS)
def test_every_task_names_the_secrets_for_its_image(pipelines: Documents, name: str) -> None:
    executors = pipelines[name][1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors.keys() == pipelines[name][0]["deploymentSpec"]["executors"].keys()
    for executor, given in executors.items():
        assert [one["secretName"] for one in given["imagePullSecret"]] == ["registry"], executor


@every_run
def test_every_stage_has_the_environment_and_no_secret_stands_in_the_pipeline(pipelines: Documents, name: str) -> None:
    compiled = pipelines[name]
    for stage in RUNS[name].spec.stages:
        variables = {one["name"]: one["value"] for one in container(compiled, stage)["env"]}
        roomy = ("synthesize", "finetune", "self-assessment")
        scratch = {"PERSEID_SCRATCH_DIR": "/scratch"} if stage in roomy else {}
        assert variables == {"AWS_REGION": "here", **scratch}
        secrets = {
            entry["keyToEnv"][0]["envVar"]: (entry["secretName"], entry["keyToEnv"][0]["secretKey"])
            for entry in on_kubernetes(compiled, stage)["secretAsEnv"]
        }
        assert secrets == {"AWS_SECRET_ACCESS_KEY": ("storage", "secret-key"), "OPENAI_API_KEY": ("mentor", "token")}


def test_every_stage_and_shard_mounts_the_cache_and_looks_there_unless_told_otherwise(tmp_path: Path) -> None:
    own = [*IN_SHARDS.spec.pipeline.env, EnvSpec(name="HF_HOME", value="/elsewhere")]
    for env, home in ((IN_SHARDS.spec.pipeline.env, "/cache/huggingface"), (own, "/elsewhere")):
        pipeline = replace(IN_SHARDS.spec.pipeline, cache_claim="models", env=env)
        run = replace(IN_SHARDS, spec=replace(IN_SHARDS.spec, pipeline=pipeline))
        compiled = compile_to_documents(run, tmp_path)
        for stage in ("synthesize-shard", *run.spec.stages):
            variables = {one["name"]: one["value"] for one in container(compiled, stage)["env"]}
            assert (variables["HF_HOME"], variables["PERSEID_CACHE"]) == (home, "/cache/perseid")
            (mount,) = on_kubernetes(compiled, stage)["pvcMount"]
            assert (mount["constant"], mount["mountPath"]) == ("models", "/cache")


def test_retries_are_asked_for_only_where_the_spec_does(pipelines: Documents) -> None:
    every = tasks(pipelines["both-methods"])
    policies = {name: task.get("retryPolicy", {}).get("maxRetryCount") for name, task in every.items()}
    assert policies == {**dict.fromkeys(every), "synthesize": 3, "self-assessment": 3}


@every_run
def test_no_command_installs_anything(pipelines: Documents, name: str) -> None:
    compiled = pipelines[name]
    for stage in RUNS[name].spec.stages:
        command = " ".join([*container(compiled, stage)["command"], *container(compiled, stage)["args"]])
        assert "pip" not in re.sub(r"pipeline", "", command), stage


@every_run
def test_the_body_of_every_stage_is_one_call_into_the_stages(pipelines: Documents, name: str) -> None:
    compiled = pipelines[name]
    for stage in RUNS[name].spec.stages:
        (function,) = [
            node
            for node in ast.parse(container(compiled, stage)["command"][-1]).body
            if isinstance(node, ast.FunctionDef)
        ]
        assert function.name == module_of(stage)
        docstring, imported, returned = function.body
        assert ast.get_docstring(function), docstring
        assert ast.unparse(imported) == "from perseid.stages.kfp import run_component"
        assert isinstance(returned, ast.Return)
        assert isinstance(returned.value, ast.Call)
        assert ast.unparse(returned.value).startswith(f"run_component('{stage}', ")


def test_only_the_storage_must_be_given_to_start_it_by_hand(compiled: list[dict[str, Any]]) -> None:
    inputs = compiled[0]["root"]["inputDefinitions"]["parameters"]
    assert [name for name, parameter in inputs.items() if not parameter.get("isOptional")] == ["storage"]
    assert EvolutionRun.model_validate(inputs["run"]["defaultValue"]) == definition(RUN)
    assert inputs["start_model"]["defaultValue"] == "org/name"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_compiles_to_far_less_than_kubernetes_takes(name: str, tmp_path: Path) -> None:
    compile_pipeline(load_run(ROOT / "examples" / name), tmp_path / "deep" / "pipeline.yaml")
    # etcd takes objects of 1.5 MiB and KFP puts the pipeline into its workflow several times over.
    assert (tmp_path / "deep" / "pipeline.yaml").stat().st_size < 128 * 1024
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["pipeline.yaml"], "scratch files were left"


def test_every_stage_gives_the_ui_what_it_shows_best(pipelines: Documents) -> None:
    shown = {
        name.removeprefix("comp-"): {
            artifact: kind["artifactType"]["schemaTitle"].removeprefix("system.")
            for artifact, kind in one["outputDefinitions"]["artifacts"].items()
        }
        for name, one in pipelines["both-methods"][0]["components"].items()
    }
    scalars = {"metrics": "Metrics"}
    data = {**scalars, "yields": "Markdown"}
    trained = {"model": "Model"}
    assert shown == {
        "synthesize": data,
        "convert": data,
        "finetune": {**scalars, **trained},
        **{stage: {**data, **trained} for stage in METEOR},
        "evaluate": {**scalars, "scores": "Metrics", "report": "HTML", "candidate": "Model"},
    }


def test_runs_that_agree_in_stages_and_pipeline_share_their_template_and_others_do_not() -> None:
    run = RUNS["meteor"]
    questions = replace(run.spec.meteor.questions, test=[])
    other = replace(run.spec, seed=8, meteor=replace(run.spec.meteor, questions=questions))
    assert other.template == run.spec.template
    fewer = replace(run.spec, meteor=replace(run.spec.meteor, stages=["self-evolution"]))
    assert fewer.template != run.spec.template
    unused = replace(RUN.spec, meteor=replace(RUN.spec.meteor, stages=["self-evolution"]))
    assert unused.template == RUN.spec.template, "stages of a method that the run does not have are none of its own"
    description = "One generation: mentor-supervised, self-assessment, self-evolution, evaluate."
    assert build_template(run.spec.template).pipeline_spec.pipeline_info.description == description


@pytest.mark.parametrize("run", [*RUNS.values(), *(load_run(ROOT / "examples" / name) for name in EXAMPLES)])
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
    assert Attempt.of_arguments(taken) == replace(attempt, run=definition(run))


def test_the_pipelines_parameters_are_what_an_attempt_gives(compiled: list[dict[str, Any]]) -> None:
    attempt = Attempt(run=RUN, run_id="x", generation=0, number=0, storage="/s", start_model="m")
    assert set(attempt.arguments()) == set(compiled[0]["root"]["inputDefinitions"]["parameters"])


def test_what_stages_go_by_is_told_to_an_attempt_as_it_is_at_the_moment() -> None:
    spec = RUNS["meteor"].spec
    budget = replace(spec.budget, mentor_cost=2.5, mentor_tokens=10**6)
    run = replace(RUNS["meteor"], spec=replace(spec, budget=budget, retain_models="promoted", suspend=True))
    attempt = Attempt(run=run, run_id="x", generation=0, number=0, storage="/s", start_model="m")
    told = EvolutionRun.model_validate(attempt.arguments()["run"])
    assert told.spec.budget == budget
    assert told.spec.retain_models == "promoted"
    assert not told.spec.suspend, "what else may change under way is no stage's business"


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


def loop_of(compiled: list[dict[str, Any]]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The loop's name among the tasks, its task, and the one task in it."""
    ((name, loop),) = [(name, task) for name, task in tasks(compiled).items() if "parameterIterator" in task]
    (inner,) = compiled[0]["components"][loop["componentRef"]["name"]]["dag"]["tasks"].values()
    return name, loop, inner


def test_a_search_in_shards_is_a_loop_over_their_numbers_and_a_task_that_takes_all_they_give(
    pipelines: Documents,
) -> None:
    compiled = pipelines["shards"]
    name, loop, shard = loop_of(compiled)
    assert json.loads(loop["parameterIterator"]["items"]["raw"]) == list(range(8))
    assert "iteratorPolicy" not in loop, "all at once, as far as there are GPUs"
    assert loop["taskInfo"]["name"] == "synthesize-shards"
    assert shard["componentRef"]["name"] == "comp-synthesize-shard"
    assert not shard["cachingOptions"].get("enableCache", False), "KFP loses an output where one shard was cached"
    edges = {one: task.get("dependentTasks", []) for one, task in tasks(compiled).items()}
    chain = [name, "synthesize", "convert", "finetune", "evaluate"]
    assert edges == {one: [before] if before else [] for before, one in zip([None, *chain], chain, strict=False)}
    taken = tasks(compiled)["synthesize"]["inputs"]["parameters"]["shards"]["taskOutputParameter"]
    assert taken["producerTask"] == name


def test_each_shard_gets_what_the_search_would_get_and_the_task_that_joins_them_no_gpu(pipelines: Documents) -> None:
    compiled, whole = pipelines["shards"], pipelines["generation"]
    for part in ("resources", "env", "image"):
        assert container(compiled, "synthesize-shard")[part] == container(whole, "synthesize")[part]
    assert on_kubernetes(compiled, "synthesize-shard") == on_kubernetes(whole, "synthesize")
    assert loop_of(compiled)[2]["retryPolicy"] == tasks(whole)["synthesize"]["retryPolicy"]
    joining = container(compiled, "synthesize")
    assert "resources" not in joining
    assert joining["env"] == container(whole, "synthesize")["env"]
    placed = on_kubernetes(compiled, "synthesize")
    assert placed.keys() == {"secretAsEnv", "imagePullSecret", "emptyDirMounts", "activeDeadlineSeconds"}, (
        "no queue, no GPU's node"
    )
    assert [one["volumeName"] for one in placed["emptyDirMounts"]] == ["scratch"]


def test_the_body_of_a_shard_is_one_call_too(pipelines: Documents) -> None:
    source = container(pipelines["shards"], "synthesize-shard")["command"][-1]
    (function,) = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    assert function.name == "synthesize_shard"
    assert ast.unparse(function.body[-1]).startswith("return run_component('synthesize', ")
    assert ast.unparse(function.body[-1]).endswith("metrics, shard=shard)")


def test_stages_on_nodes_are_launched_by_pods_without_a_gpu_that_know_who_they_are(pipelines: Documents) -> None:
    compiled, alone = pipelines["nodes"], pipelines["both-methods"]
    for stage in ON_NODES.spec.stages:
        if stage not in TRAIN_JOB_STAGES:
            assert container(compiled, stage) == container(alone, stage)
            assert on_kubernetes(compiled, stage) == on_kubernetes(alone, stage)
            continue
        ours = container(compiled, stage)
        assert "resources" not in ours
        assert (ours["env"], ours["image"]) == (container(alone, stage)["env"][-1:], IMAGE)
        assert on_kubernetes(compiled, stage).keys() == {"fieldPathAsEnv", "secretAsEnv", "imagePullSecret"}
        assert {one["name"]: one["fieldPath"] for one in on_kubernetes(compiled, stage)["fieldPathAsEnv"]} == {
            POD_NAME: "metadata.name",
            POD_UID: "metadata.uid",
            POD_NAMESPACE: "metadata.namespace",
        }
        (function,) = [one for one in ast.parse(ours["command"][-1]).body if isinstance(one, ast.FunctionDef)]
        assert function.name == module_of(stage)
        assert ast.unparse(function.body[-1]).startswith(f"return launch_component('{stage}', ")
    assert {name: task.get("dependentTasks") for name, task in tasks(compiled).items()} == {
        name: task.get("dependentTasks") for name, task in tasks(alone).items()
    }


def test_a_machine_of_its_own_searches_shards_one_after_the_other(tmp_path: Path) -> None:
    pipeline: Any = build_pipeline(IN_SHARDS, shards_at_once=1)
    loops = [task for task in pipeline.pipeline_spec.root.dag.tasks.values() if task.HasField("parameter_iterator")]
    assert [loop.iterator_policy.parallelism_limit for loop in loops] == [1]


def test_thirty_two_shards_make_no_bigger_pipeline_than_two() -> None:
    sizes = []
    for shards in (2, 32):
        spec = replace(RUN.spec, pipeline=replace(RUN.spec.pipeline, shards=shards))
        sizes.append(len(json.dumps(compile_template(spec.template))))
    assert sizes[1] - sizes[0] < 200, "a number for each"


@pytest.mark.parametrize(
    ("resources", "size"),
    [
        ({"gpus": 2}, "16Gi"),
        ({"gpus": 2, "sharedMemory": "64Gi"}, "64Gi"),
        ({"gpus": 1, "sharedMemory": "1Gi"}, "1Gi"),
        ({"gpus": 1}, None),
        ({}, None),
    ],
)
def test_processes_of_several_gpus_have_shared_memory_to_talk_through(
    resources: dict[str, Any], size: str | None
) -> None:
    spec = {"pipeline": {"stages": {"evaluate": resources}}}
    run = EvolutionRun.model_validate({"metadata": {"name": "shared"}, "spec": spec})
    _, platform = compile_template(run.spec.template)
    mounts = on_kubernetes([{}, platform], "evaluate").get("emptyDirMounts", []) if platform else []
    assert [one["sizeLimit"] for one in mounts] == ([] if size is None else [size])


def test_the_runs_queue_is_a_label_of_pods_with_gpus_alone_and_a_stages_own_goes_before_it(tmp_path: Path) -> None:
    own = {"gpus": 1, "labels": {"kueue.x-k8s.io/queue-name": "big"}}
    stages = {"synthesize": {"gpus": 1}, "finetune": own, "evaluate": {"cpu": "4"}}
    spec = {"pipeline": {"queue": "research", "shards": 2, "stages": stages}}
    run = EvolutionRun.model_validate({"metadata": {"name": "queued"}, "spec": spec})
    compiled = compile_to_documents(run, tmp_path)
    names = ("synthesize-shard", "synthesize", "convert", "finetune", "evaluate")
    queues = {
        name: on_kubernetes(compiled, name).get("podMetadata", {}).get("labels", {}).get("kueue.x-k8s.io/queue-name")
        for name in names
    }
    assert queues == {**dict.fromkeys(names), "synthesize-shard": "research", "finetune": "big"}
