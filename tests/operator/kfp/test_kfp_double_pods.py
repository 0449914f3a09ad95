"""The pods that KFP's double makes of a compiled pipeline: with everything that the spec asks of a stage's pod."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kubernetes_asyncio import client

from kfp_double.stage_pods import delay_of, plan_pods, returned, stage_pod
from perseid.api.pipeline import GenerationTemplate
from perseid.pipelines.generation import compile_template

PARAMETERS = {
    "run": {"spec": {"pipeline": {"serviceAccount": "trainer"}}},
    "run_id": "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f10",
    "generation": 0,
    "attempt": 0,
    "storage": "s3://models/perseid",
    "start_model": "embedded:smollm2-135m-instruct",
}
WORKFLOW: dict[str, Any] = {"name": "perseid-generation-abc", "run_id": PARAMETERS["run_id"], "parameters": PARAMETERS}


def posted(pipeline: dict[str, Any] | None = None, **resources: Any) -> dict[str, Any]:
    compiled, platform = compile_template(
        GenerationTemplate.model_validate(
            {
                "stages": ["synthesize", "convert"],
                "pipeline": {
                    "image": "example.org/stage:1",
                    "env": [{"name": "AWS_REGION", "value": "eu-central-1"}],
                    "secretEnv": [{"name": "AWS_SECRET_ACCESS_KEY", "secret": "storage", "key": "password"}],
                    "stages": {"synthesize": resources},
                    **(pipeline or {}),
                },
            }
        )
    )
    return {"pipeline_spec": compiled, "platform_spec": platform}


def the_pod(task: str, spec: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    (planned,), _ = plan_pods(WORKFLOW, task, spec, outputs)
    return stage_pod(WORKFLOW, planned, spec)


def test_a_stages_pod_has_the_image_environment_and_resources_of_the_compiled_pipeline() -> None:
    spec = posted(
        cpu="2", memory="8Gi", gpus=1, sharedMemory="1Gi", scratch="20Gi", timeoutSeconds=600,
        nodeSelector={"pool": "gpu"}, labels={"kueue.x-k8s.io/queue-name": "team"},
    )  # fmt: skip
    pod = the_pod("synthesize", spec, {})
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "example.org/stage:1"
    assert container["resources"] == {
        "requests": {"cpu": "2", "memory": "8Gi"},
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "1"},
    }
    environment = {entry["name"]: entry for entry in container["env"]}
    assert environment["AWS_REGION"]["value"] == "eu-central-1"
    assert environment["PERSEID_SCRATCH_DIR"]["value"] == "/scratch"
    assert environment["AWS_SECRET_ACCESS_KEY"]["valueFrom"] == {"secretKeyRef": {"name": "storage", "key": "password"}}
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod["spec"]["volumes"]}
    assert volumes["dshm"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    assert volumes["scratch"] == {"sizeLimit": "20Gi"}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/dev/shm", "/scratch"}
    assert pod["spec"]["nodeSelector"] == {"pool": "gpu"}
    assert pod["spec"]["activeDeadlineSeconds"] == 600
    assert pod["spec"]["serviceAccountName"] == "trainer"
    labels = pod["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "team"
    assert labels["pipeline/runid"] == PARAMETERS["run_id"]


def test_a_stages_pod_bears_taints_and_names_the_secrets_for_its_image() -> None:
    borne = [{"key": "gpu", "operator": "Exists"}, {"key": "a", "effect": "NoExecute", "tolerationSeconds": 60}]
    pod = the_pod("synthesize", posted({"imagePullSecrets": [{"name": "registry"}]}, tolerations=borne), {})
    assert pod["spec"]["tolerations"] == [borne[0], {**borne[1], "operator": "Equal"}]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_the_pod_that_launches_a_train_job_is_told_which_pod_it_is_and_may_ask_the_api_server() -> None:
    run = {"stages": ["finetune"], "pipeline": {"image": "example.org/stage:1", "trainJob": {"numNodes": 2}}}
    compiled, platform = compile_template(GenerationTemplate.model_validate(run))
    pod = the_pod("finetune", {"pipeline_spec": compiled, "platform_spec": platform}, {})
    (container,) = pod["spec"]["containers"]
    told = [one["valueFrom"]["fieldRef"]["fieldPath"] for one in container["env"] if "valueFrom" in one]
    assert told == ["metadata.name", "metadata.uid", "metadata.namespace"]
    assert pod["spec"]["serviceAccountName"] == "trainer"
    assert pod["spec"]["automountServiceAccountToken"] is True


def test_a_stages_pod_mounts_the_claim_that_holds_the_cache() -> None:
    pod = the_pod("convert", posted({"cacheClaim": "models"}), {"synthesize": "x"})
    assert {"name": "models", "persistentVolumeClaim": {"claimName": "models"}} in pod["spec"]["volumes"]
    (container,) = pod["spec"]["containers"]
    assert {"name": "models", "mountPath": "/cache"} in container["volumeMounts"]


def test_a_search_in_shards_is_a_pod_for_each_and_one_that_joins_what_they_have_returned() -> None:
    spec = posted({"shards": 2}, gpus=1)
    tasks = spec["pipeline_spec"]["root"]["dag"]["tasks"]
    (loop,) = (name for name, task in tasks.items() if "parameterIterator" in task)
    shards, is_loop = plan_pods(WORKFLOW, loop, spec, {})
    assert is_loop
    assert [pod.values for pod in shards] == [{**PARAMETERS, "shard": shard} for shard in range(2)]
    assert len({pod.name for pod in shards}) == 2
    way = "perseid-generation-abc.root.for-loop-2.iteration-iterations(1:1).iteration-item.synthesize-shard.executor"
    assert shards[1].node == way
    container = stage_pod(WORKFLOW, shards[1], spec)["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    (joining,), is_loop = plan_pods(WORKFLOW, "synthesize", spec, {loop: ["a", "b"]})
    assert not is_loop
    assert joining.values == {**PARAMETERS, "shards": ["a", "b"]}
    assert stage_pod(WORKFLOW, joining, spec)["spec"]["containers"][0]["resources"]["limits"] == {}


def test_a_stages_pod_is_told_the_parameters_and_what_the_stage_before_it_returned() -> None:
    pod = the_pod("convert", posted(), {"synthesize": "s3://models/perseid/result.json"})
    arguments = pod["spec"]["containers"][0]["args"]
    told = json.loads(arguments[arguments.index("--executor_input") + 1])
    assert told["inputs"]["parameterValues"] == {**PARAMETERS, "before": "s3://models/perseid/result.json"}
    assert arguments[arguments.index("--function_to_execute") + 1] == "convert"


def test_a_pods_termination_message_gives_the_components_output_and_nothing_else_will_do() -> None:
    assert returned('{"parameterValues": {"Output": "s3://there"}, "artifacts": {}}') == "s3://there"
    for message in ("", "Traceback", '{"parameterValues": {}}', '{"parameterValues": {"Output": "s3'):
        with pytest.raises(ValueError, match="no output"):
            returned(message)


@pytest.mark.parametrize(
    ("reason", "waiting", "said"),
    [
        ("SchedulingGated", None, ""),
        ("Unschedulable", None, "Unschedulable: 0/1 nodes are available"),
        (None, client.V1ContainerStateWaiting(reason="ContainerCreating"), "ContainerCreating"),
        (None, client.V1ContainerStateWaiting(reason="ErrImagePull", message="not found"), "ErrImagePull: not found"),
    ],
)
def test_a_pod_that_does_not_run_yet_is_told_of_in_argos_words_but_at_a_gate_it_says_nothing(
    reason: str | None, waiting: client.V1ContainerStateWaiting | None, said: str
) -> None:
    message = "0/1 nodes are available"
    condition = client.V1PodCondition(type="PodScheduled", status="False", reason=reason, message=message)
    container = client.V1ContainerStatus(
        name="main",
        image="",
        image_id="",
        ready=False,
        restart_count=0,
        state=client.V1ContainerState(waiting=waiting),
    )
    status = client.V1PodStatus(
        phase="Pending",
        conditions=None if reason is None else [condition],
        container_statuses=None if waiting is None else [container],
    )
    assert delay_of(client.V1Pod(status=status)) == said
