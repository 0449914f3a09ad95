"""`perseid logs`: the stages' own words, from the right pods, in the right order; and what there is without pods."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_runs import URL, ClusterRun
from kubernetes_asyncio.client import ApiClient
from stage_pods import driver, pod, stage
from stand_in_api import StandInApi
from typer.testing import Result

from perseid.api.layout import attempt_key
from perseid.api.reasons import StageState
from perseid.api.result import StageResult
from perseid.api.spec import EvolutionRunSpec
from perseid.api.stages import STAGES, module_of
from perseid.cli import exits
from perseid.pipelines.generation import compile_template
from perseid_operator.cli.pods import stage_of, stage_pods

Perseid = Callable[..., Result]


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perseid_operator.cli.logs.LOOK_SECONDS", 0.01)


def running(**spec: object) -> ClusterRun:
    return ClusterRun(**spec).running(synthesize=StageState.SUCCEEDED, convert=StageState.RUNNING)


async def as_pods(*raw: dict[str, object]) -> list[object]:
    """As Kubernetes' client gives them."""

    class Answer:
        data = json.dumps({"items": list(raw)})

    async with ApiClient() as client:
        return list(client.deserialize(Answer(), "V1PodList").items)


def test_logs_come_in_the_order_of_stages_and_apart_from_what_is_said_about_them(
    api: StandInApi, perseid: Perseid
) -> None:
    run = running()
    api.put(run.object())
    api.pods = [stage("convert", run.run_id, phase="Running"), driver("convert", run.run_id)]
    api.pods += [stage("synthesize", run.run_id), driver("synthesize", run.run_id), stage("finetune", "another-run")]
    for one in api.pods:
        api.logs[one["metadata"]["name"]] = f"says {one['metadata']['name']}\nend\n".encode()
    result = perseid("logs", "small")
    assert result.exit_code == exits.OK, result.output
    assert [line for line in result.stdout.splitlines() if line != "end"] == [
        "says perseid-generation-x7k2p-synthesize",
        "says perseid-generation-x7k2p-convert",
    ]
    assert "synthesize (pod perseid-generation-x7k2p-synthesize)" in result.stderr
    only = perseid("logs", "small", "--stage", "convert", "--tail", "1")
    assert (only.stdout, only.stderr) == ("end\n", "")


def test_the_nodes_of_a_trainjob_are_shown_with_the_pod_that_launched_it(api: StandInApi, perseid: Perseid) -> None:
    run = running()
    api.put(run.object())
    nodes = [pod(f"small-0-0-node-{number}", run.run_id, None, second=1 + number) for number in range(2)]
    for one in nodes:
        one["metadata"]["labels"]["perseid.dev/stage"] = "finetune"
        one["spec"]["containers"] = [{"name": "node", "image": "stage"}]
        one["status"]["containerStatuses"][0]["name"] = "node"
    api.pods = [*nodes, stage("finetune", run.run_id)]
    for one in api.pods:
        api.logs[one["metadata"]["name"]] = f"says {one['metadata']['name']}\n".encode()
    result = perseid("logs", "small", "--stage", "finetune")
    assert result.exit_code == exits.OK, result.output
    assert result.stdout.splitlines() == [
        "says perseid-generation-x7k2p-finetune",
        "says small-0-0-node-0",
        "says small-0-0-node-1",
    ]


def test_every_try_of_a_retried_stage_is_shown_the_oldest_first(api: StandInApi, perseid: Perseid) -> None:
    run = running()
    api.put(run.object())
    tries = [pod(f"try-{n}", run.run_id, f"root.convert.executor({n})", second=n) for n in (1, 0)]
    api.pods = tries
    api.logs = {"try-0": b"first\n", "try-1": b"second\n"}
    assert perseid("logs", "small", "--stage", "convert").stdout == "first\nsecond\n"


def test_what_comes_as_no_text_and_without_an_end_of_line_is_shown_all_the_same(
    api: StandInApi, perseid: Perseid
) -> None:
    run = running()
    api.put(run.object())
    api.pods = [stage("convert", run.run_id)]
    api.logs = {"perseid-generation-x7k2p-convert": "größer \U0001f600\n".encode() + b"\xff broken" + b"x" * 300_000}
    lines = perseid("logs", "small", "--stage", "convert").stdout.splitlines()
    assert lines[0] == "größer \U0001f600"
    assert lines[1].startswith("\ufffd broken")
    assert len(lines[1]) > 300_000


def test_a_stage_that_does_not_start_is_told_with_the_reason(api: StandInApi, perseid: Perseid) -> None:
    run = running()
    api.put(run.object())
    api.pods = [stage("convert", run.run_id, waiting={"reason": "ImagePullBackOff", "message": "no such image"})]
    result = perseid("logs", "small")
    assert result.exit_code == exits.OK
    assert "convert has not started: ImagePullBackOff: no such image" in result.stderr
    unscheduled = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes have gpus"}
    ]
    api.pods = [stage("convert", run.run_id, conditions=unscheduled)]
    assert "convert has not started: Unschedulable: 0/3 nodes have gpus" in perseid("logs", "small").stderr


def test_pods_are_looked_for_beside_the_run_then_in_kubeflow_then_everywhere(api: StandInApi, perseid: Perseid) -> None:
    run = running()
    api.put(run.object())
    looked = [("list", "pods", "lab"), ("list", "pods", "kubeflow"), ("list", "pods", "")]
    for place, namespace in enumerate(("lab", "kubeflow", "ml-team")):
        api.pods = [stage("convert", run.run_id, namespace=namespace)]
        api.logs = {"perseid-generation-x7k2p-convert": f"in {namespace}\n".encode()}
        api.asked.clear()
        assert perseid("logs", "small").stdout == f"in {namespace}\n"
        assert [one for one in api.asked if one[1] == "pods"] == looked[: place + 1]
    api.asked.clear()
    assert perseid("logs", "small", "--pods-in", "ml-team").stdout == "in ml-team\n"
    assert [one for one in api.asked if one[1] == "pods"] == [("list", "pods", "ml-team")]


def test_a_namespace_that_may_not_be_looked_into_is_passed_over_unless_it_was_named(
    api: StandInApi, perseid: Perseid
) -> None:
    run = running()
    api.put(run.object())
    api.pods = [stage("convert", run.run_id)]
    api.logs = {"perseid-generation-x7k2p-convert": b"found\n"}
    api.forbidden.add(("list", "pods", "lab"))
    assert perseid("logs", "small").stdout == "found\n"
    named = perseid("logs", "small", "--pods-in", "lab")
    assert named.exit_code == exits.MISTAKE
    assert "you may not list pods in namespace lab" in named.stderr


def test_following_goes_on_from_stage_to_stage_until_the_attempt_ends(api: StandInApi, perseid: Perseid) -> None:
    run = running()
    api.put(run.object())
    run_id = run.run_id
    api.pods = [stage("convert", run_id, phase="Running")]
    api.logs = {"perseid-generation-x7k2p-convert": b"converted\n"}
    looks = 0

    def before(verb: str, resource: str) -> None:
        nonlocal looks
        looks += resource == "pods"
        if resource == "pods" and looks == 9:
            api.pods.append(stage("finetune", run_id, waiting={"reason": "PodInitializing"}))
        if resource == "pods" and looks == 12:
            api.pods[-1] = stage("finetune", run_id, phase="Running")
        if resource == "pods" and looks == 15:
            api.logs["perseid-generation-x7k2p-finetune"] = b"trained\n"  # until here the API server says: waiting

    def after_log(name: str) -> None:
        if name.endswith("finetune"):  # the last stage comes and goes between two looks
            api.pods.append(stage("evaluate", run_id))
            api.logs["perseid-generation-x7k2p-evaluate"] = b"evaluated\n"
            api.put(run.generation(candidate=0.5, parent=0.4).object())

    api.before, api.after_log = before, after_log
    result = perseid("logs", "small", "--follow")
    assert result.exit_code == exits.OK, result.output
    assert result.stdout == "converted\ntrained\nevaluated\n"
    assert looks >= 15


def test_following_one_stage_ends_with_that_stage(api: StandInApi, perseid: Perseid) -> None:
    run = running()
    api.put(run.object())
    api.pods = [stage("convert", run.run_id, phase="Running")]
    api.logs = {"perseid-generation-x7k2p-convert": b"converted\n"}
    done = {"synthesize": StageState.SUCCEEDED, "convert": StageState.SUCCEEDED, "finetune": StageState.RUNNING}
    api.after_log = lambda name: api.put(run.running(**done).object())
    result = perseid("logs", "small", "--stage", "convert", "-f")
    assert result.exit_code == exits.OK, result.output
    assert result.stdout == "converted\n"


def write_result(root: Path, generation: int, attempt: int, stage_name: str, error: str | None) -> None:
    path = root / attempt_key(generation, attempt) / stage_name / "result.json"
    path.parent.mkdir(parents=True)
    result = StageResult(stage=stage_name, state="failed" if error else "done", error=error)
    path.write_text(result.model_dump_json(by_alias=True))


def test_without_pods_the_stages_own_results_and_the_recorded_error_are_shown(
    api: StandInApi, perseid: Perseid, tmp_path: Path
) -> None:
    run = running(storage={"uri": str(tmp_path)})
    failed = run.run_id
    write_result(tmp_path, 0, 0, "synthesize", None)
    write_result(tmp_path, 0, 0, "convert", "the disk is full: free some")
    run.failed("convert: the disk is full")
    api.put(run.object())
    result = perseid("logs", "small", "--generation", "0", "--attempt", "0")
    assert result.exit_code == exits.OK, result.output
    assert result.stdout.splitlines() == [
        "synthesize: done",
        "convert: the disk is full: free some",
        "RunFailed: convert: the disk is full",
    ]
    assert f"no pod of generation 0, attempt 0 (run {failed}) is there any more" in result.stderr
    assert "Kubeflow keeps what the pods wrote" in result.stderr


def test_without_pods_the_results_of_shards_are_shown_before_that_of_their_stage(
    api: StandInApi, perseid: Perseid, tmp_path: Path
) -> None:
    run = running(storage={"uri": str(tmp_path)}, pipeline={"shards": 2})
    write_result(tmp_path, 0, 0, "synthesize-shard-00", None)
    write_result(tmp_path, 0, 0, "synthesize-shard-01", "its node is gone")
    run.failed("synthesize: synthesize-shard-01: its node is gone")
    api.put(run.object())
    result = perseid("logs", "small", "--generation", "0", "--attempt", "0")
    assert result.stdout.splitlines()[:2] == ["synthesize-shard-00: done", "synthesize-shard-01: its node is gone"]


def test_without_pods_and_results_one_is_told_where_else_to_look(api: StandInApi, perseid: Perseid) -> None:
    run = running(storage={"uri": "/a/directory/of/the/cluster"})
    api.put(run.object())
    result = perseid("logs", "small")
    assert result.exit_code == exits.MISTAKE
    assert "the directory /a/directory/of/the/cluster, which is not there on this machine" in result.stderr
    assert URL + run.run_id in result.stderr
    assert "there are no logs of small to show" in result.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--generation", "1"), "has no generation 1 yet; the newest is 0"),
        (("--attempt", "3"), "generation 0 of small has no attempt 3; its newest is 0"),
    ],
)
def test_an_attempt_that_was_never_made_has_no_logs(
    api: StandInApi, perseid: Perseid, options: tuple[str, ...], reason: str
) -> None:
    api.put(running().object())
    result = perseid("logs", "small", *options)
    assert result.exit_code == exits.MISTAKE
    assert reason in result.stderr


def test_the_logs_of_a_stage_of_meteor_are_asked_for_by_its_name(
    api: StandInApi, perseid: Perseid, tmp_path: Path
) -> None:
    run = ClusterRun(methods=["meteor"], storage={"uri": str(tmp_path)})
    run.running(**{"mentor-supervised": StageState.SUCCEEDED, "self-assessment": StageState.RUNNING})
    api.put(run.object())
    by_function = pod("self-assessment-pod", run.run_id, None, function="self_assessment", phase="Running")
    api.pods = [by_function, stage("mentor-supervised", run.run_id), driver("mentor-supervised", run.run_id)]
    api.logs = {"perseid-generation-x7k2p-mentor-supervised": b"taught\n", "self-assessment-pod": b"judged\n"}
    result = perseid("logs", "small", "--stage", "mentor-supervised")
    assert (result.exit_code, result.stdout) == (exits.OK, "taught\n"), result.output
    assert perseid("logs", "small").stdout == "taught\njudged\n", "in the order of stages"
    api.pods = []
    write_result(tmp_path, 0, 0, "mentor-supervised", None)
    write_result(tmp_path, 0, 0, "self-assessment", "the judge does not answer")
    assert perseid("logs", "small").stdout.splitlines() == [
        "mentor-supervised: done",
        "self-assessment: the judge does not answer",
    ]


def test_a_stage_that_the_run_does_not_have_is_a_mistake_that_names_those_that_it_has(
    api: StandInApi, perseid: Perseid
) -> None:
    api.put(running().object())
    result = perseid("logs", "small", "--stage", "self-evolution")
    assert result.exit_code == exits.MISTAKE
    assert "small has no stage self-evolution; its stages are synthesize, convert, finetune, evaluate" in result.stderr


def test_a_run_that_has_not_begun_has_no_logs(api: StandInApi, perseid: Perseid) -> None:
    api.put(ClusterRun(suspend=True).observe().object())
    assert "small has not begun" in perseid("logs", "small").stderr


async def test_a_pod_is_known_by_its_node_or_by_the_function_that_it_was_told_to_run() -> None:
    known = [pod(f"by-name-{name}", "r", f"root.{name}.executor") for name in STAGES]
    known += [pod(f"by-function-{name}", "r", None, function=module_of(name)) for name in STAGES]
    assert [stage_of(one) for one in await as_pods(*known)] == [*STAGES, *STAGES]
    loop = "root.for-loop-2.iteration-iterations(3:3).iteration-item.synthesize-shard"
    shards = [pod("by-name", "r", f"{loop}.executor"), pod("by-function", "r", None, function="synthesize_shard")]
    assert [stage_of(one) for one in await as_pods(*shards)] == ["synthesize", "synthesize"]
    strangers = [
        driver("convert", "r"),
        pod("root", "r", "root-driver"),
        pod("loop", "r", "root.for-loop-2.iteration-driver"),
        pod("shard", "r", f"{loop}-driver"),
        pod("hook", "r", "root.convert.onExit"),
        pod("agent", "r", None),
        pod("foreign", "r", "root.another-task.executor"),
        pod("foreign-function", "r", None, function="another_task"),
        pod("dashes-are-no-function", "r", None, function="self-assessment"),
        pod("underscores-are-no-task", "r", "root.self_assessment.executor"),
    ]
    assert [stage_of(one) for one in await as_pods(*strangers)] == [None] * len(strangers)


@pytest.mark.parametrize("methods", [["sra-mcts"], ["meteor"], ["sra-mcts", "meteor"]], ids="+".join)
async def test_the_compiled_pipeline_names_its_functions_where_they_are_looked_for(methods: list[str]) -> None:
    spec = EvolutionRunSpec.model_validate({"methods": methods})
    pipeline, _ = compile_template(spec.template)
    executors = pipeline["deploymentSpec"]["executors"]
    found = set()
    for executor in executors.values():
        raw = pod("any", "r", None)
        raw["spec"]["containers"][1] |= {key: executor["container"][key] for key in ("command", "args")}
        found |= {stage_of(one) for one in await as_pods(raw)}
    assert found == set(spec.stages)
    tasks = pipeline["root"]["dag"]["tasks"]
    assert set(tasks) == set(spec.stages), "nodes are called after tasks"


async def test_pods_with_hardly_anything_in_them_do_not_hurt() -> None:
    bare = {"metadata": {"name": "bare", "namespace": "n"}, "spec": {"containers": [{"name": "main"}]}}
    assert stage_pods(await as_pods(bare)) == []
    bare["metadata"]["annotations"] = {"workflows.argoproj.io/node-name": "w.root.convert.executor"}
    (only,) = stage_pods(await as_pods(bare))
    assert (only.stage, only.started, only.phase) == ("convert", False, "Pending")
    assert re.search("phase is Pending", only.waiting)
