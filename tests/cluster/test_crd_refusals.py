"""Wrong objects are refused by the API server, with the name of the field and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from cluster_access import Cluster, KubectlError
from crd_objects import RefusedError, evolution_runs, install_crd, spec_with

from perseid.api.base import API_VERSION, KIND
from perseid.api.errors import RunFileError
from perseid.api.load import load_run

ENDPOINT = {"baseUrl": "http://x/v1", "model": "m"}

RULES_OF_METEOR = [
    ("meteor.mentor", {"type": "openai"}, "spec.meteor.mentor.openai", "type openai needs the field openai"),
    ("meteor.mentor", {"type": "model", "path": "pack"}, "spec.meteor.mentor.ref", "type model needs the field ref"),
    ("meteor.mentor", {"type": "recorded"}, "spec.meteor.mentor.path", "type recorded needs the field path"),
    ("meteor.mentor", {}, "spec.meteor.mentor.path", "type recorded needs the field path"),
    ("meteor.judge", {"type": "openai"}, "spec.meteor.judge.openai", "type openai needs the field openai"),
    ("meteor.judge", {"type": "model"}, "spec.meteor.judge.ref", "type model needs the field ref"),
    ("meteor.judge", {"type": "recorded"}, "spec.meteor.judge.path", "type recorded needs the field path"),
    (
        "meteor.judge",
        {"price": {"currency": "EUR"}},
        "spec.meteor",
        "mentor.price is in USD and judge.price in EUR: one budget needs one currency",
    ),
    (
        "meteor.questions.train",
        {"split": "train", "path": "q.jsonl"},
        "spec.meteor.questions.train.path",
        "source pack takes no path",
    ),
    (
        "meteor.questions.train",
        {"split": "train", "config": "main"},
        "spec.meteor.questions.train.config",
        "config is for source hub: remove it",
    ),
    ("meteor.questions.dev", {}, "spec.meteor.questions.dev.split", "needs the field split: train, dev or test"),
    (
        "meteor.questions.test",
        [{"split": "test"}, {"source": "csv"}],
        "spec.meteor.questions.test[1].path",
        "source csv needs the field path",
    ),
    (
        "meteor.selfEvolution",
        {"expensive": ["beam", "greedy"]},
        "spec.meteor.selfEvolution.expensive",
        "cheap and expensive are both greedy, so that there is nothing to learn; set expensive to [best-of-n]",
    ),
    (
        "meteor.selfEvolution",
        {"cheap": "sample", "expensive": ["beam", "beam"]},
        "spec.meteor.selfEvolution.expensive",
        "expensive names a decoding twice: name it once",
    ),
    (
        "meteor.selfEvolution",
        {"expensive": ["beam", "search"]},
        "spec.meteor.selfEvolution.critique",
        "the decoding search needs critique self-verdict",
    ),
    (
        "meteor.selfEvolution",
        {"expensive": ["search"], "critique": "self-verdict", "search": {"evaluator": {"type": "execution"}}},
        "spec.meteor.selfEvolution.search",
        "a question has no tests; set it to {type: likelihood}",
    ),
    (
        "meteor.selfEvolution",
        {"expensive": ["search"], "critique": "self-verdict", "search": {"algorithm": "direct"}},
        "spec.meteor.selfEvolution.search",
        "search.algorithm is direct, which searches for nothing",
    ),
    (
        "meteor.selfEvolution",
        {
            "cheap": "search",
            "critique": "self-verdict",
            "search": {"evaluator": {"type": "blend", "weights": {"likelihood": 0.0, "execution": 1.0}}},
        },
        "spec.meteor.selfEvolution.search",
        "a question has no tests; set it to {type: likelihood}",
    ),
]
WRONG = [
    *RULES_OF_METEOR,
    ("seed", -1, "spec.seed", "greater than or equal to 0"),
    ("seed", 2**31, "spec.seed", "less than or equal to 2147483647"),
    ("seed", "1", "spec.seed", "must be of type integer"),
    ("seed", 1.5, "spec.seed", "must be of type integer"),
    ("suspend", "yes", "spec.suspend", "must be of type boolean"),
    ("model.ref", "", "spec.model.ref", "at least 1 chars"),
    ("model.ref", "m" * 1025, "spec.model.ref", "Too long"),
    ("model.dtype", "int8", "spec.model.dtype", 'supported values: "auto", "float32"'),
    ("model", {"evolutionRun": "a", "ref": "b"}, "spec.model.evolutionRun", "both name a model: keep one"),
    ("model", {"evolutionRun": "a", "revision": "b"}, "spec.model.evolutionRun", "both name a model: keep one"),
    ("model.evolutionRun", "Not_A_Name", "spec.model.evolutionRun", "should match"),
    ("engine.type", "llama.cpp", "spec.engine.type", 'supported values: "vllm", "transformers"'),
    ("engine.vllm.blockSize", 7, "spec.engine.vllm.blockSize", "supported values"),
    ("engine.vllm.gpuMemoryUtilization", 0, "spec.engine.vllm.gpuMemoryUtilization", "greater than 0"),
    ("engine.vllm.gpuMemoryUtilization", 1.1, "spec.engine.vllm.gpuMemoryUtilization", "less than or equal to 1"),
    ("problems.train", {"source": "jsonl"}, "spec.problems.train.path", "source jsonl needs the field path"),
    ("problems.train", {"source": "pack"}, "spec.problems.train.split", "needs the field split: train, dev or test"),
    ("problems.dev", {"split": "prompts"}, "spec.problems.dev.split", "needs the field split: train, dev or test"),
    ("problems.dev", {"source": "hub", "path": "p"}, "spec.problems.dev.split", "source hub needs the field split"),
    ("problems.test", [{"source": "humaneval", "path": "p"}], "spec.problems.test[0].path", "takes no path: remove it"),
    ("problems.test", [{"split": "test"}] * 17, "spec.problems.test", "Too many"),
    ("problems.test", [{"split": "test", "levels": []}], "spec.problems.test[0].levels", "at least 1 items"),
    ("synthesis.search.rounds", 0, "spec.synthesis.search.rounds", "greater than or equal to 1"),
    (
        "synthesis.search.evaluator",
        {"weights": {"likelihood": 0, "execution": 0}},
        "spec.synthesis.search.evaluator.weights",
        "at least one weight must be above 0",
    ),
    ("synthesis.policyEndpoint", {"model": "m"}, "spec.synthesis.policyEndpoint.baseUrl", "Required value"),
    ("synthesis.policyEndpoint", {**ENDPOINT, "apiKeyEnv": "a-b"}, "spec.synthesis.policyEndpoint.apiKeyEnv", "match"),
    ("synthesis.policyEndpoint", {**ENDPOINT, "apiKey": "sk"}, "spec.synthesis.policyEndpoint.apiKey", "unknown field"),
    ("methods", [], "spec.methods", "at least 1 items"),
    ("methods", ["sra-mcts", "metoer"], "spec.methods[1]", 'supported values: "sra-mcts", "meteor"'),
    ("methods", ["meteor"] * 3, "spec.methods", "Too many"),
    ("meteor.stages", [], "spec.meteor.stages", "at least 1 items"),
    (
        "meteor.stages",
        ["finetune"],
        "spec.meteor.stages[0]",
        'supported values: "mentor-supervised", "self-assessment"',
    ),
    ("meteor.mentor", {"type": "verifier"}, "spec.meteor.mentor.type", "supported values"),
    ("meteor.judge.price.currency", "usd", "spec.meteor.judge.price.currency", "should match"),
    ("meteor.judge.price.currency", "Dollar", "spec.meteor.judge.price.currency", "Too long"),
    ("meteor.selfEvolution.expensive", ["beams"], "spec.meteor.selfEvolution.expensive[0]", "supported values"),
    ("budget.mentorTokens", 0, "spec.budget.mentorTokens", "greater than or equal to 1"),
    ("failurePolicy.rules", [{"action": "fail", "stages": ["self_assessment"]}], "rules[0].stages[0]", '"self-assess'),
    ("pipeline.stages.self-assessment", {}, "spec.pipeline.stages.self-assessment", "unknown field"),
    ("conversion.gate.minScore", 11, "spec.conversion.gate.minScore", "less than or equal to 10"),
    ("conversion.sampling.stop", ["s" * 65], "spec.conversion.sampling.stop[0]", "Too long"),
    ("finetune.lora.rang", 8, "spec.finetune.lora.rang", "unknown field"),
    ("finetune.lora.targetModules", "all", "spec.finetune.lora.targetModules", "should match"),
    ("evaluation", {"samples": 4, "k": [1, 5]}, "spec.evaluation.k", "raise evaluation.samples"),
    ("evaluation.k", [], "spec.evaluation.k", "at least 1 items"),
    ("generations.max", 1001, "spec.generations.max", "less than or equal to 1000"),
    ("engine.vllm", {"dataParallelSize": 0}, "spec.engine.vllm.dataParallelSize", "greater than or equal to 1"),
    ("pipeline.shards", 0, "spec.pipeline.shards", "greater than or equal to 1"),
    ("pipeline.shards", 33, "spec.pipeline.shards", "less than or equal to 32"),
    ("pipeline.stages.train", {}, "spec.pipeline.stages.train", "unknown field"),
    ("pipeline.stages.finetune.memory", "lots", "spec.pipeline.stages.finetune.memory", "should match"),
    ("pipeline.stages.finetune.labels", {"k" * 318: "v"}, "spec.pipeline.stages.finetune.labels", "more than 317"),
    ("pipeline.stages.finetune.labels", {"k": "v" * 64}, "spec.pipeline.stages.finetune.labels.k", "Too long"),
    (
        "pipeline.stages.finetune.nodeSelector",
        {f"k{number}": "v" for number in range(33)},
        "spec.pipeline.stages.finetune.nodeSelector",
        "Too many",
    ),
    ("failurePolicy.rules", [{"reasons": ["RunFailed"]}], "spec.failurePolicy.rules[0].action", "Required value"),
    ("failurePolicy.rules", [{"action": "retry"}], "spec.failurePolicy.rules[0].action", "supported values"),
    ("budget.gpuHours", 0, "spec.budget.gpuHours", "greater than 0"),
    ("ttlSecondsAfterFinished", -1, "spec.ttlSecondsAfterFinished", "greater than or equal to 0"),
    ("managedBy", "", "spec.managedBy", "at least 1 chars"),
    ("learningRate", 0.1, "spec.learningRate", "unknown field"),
]


@pytest.mark.parametrize(("path", "value", "field", "words"), WRONG, ids=[f"{row[2]}:{row[3]}"[:70] for row in WRONG])
async def test_a_wrong_object_is_refused_with_the_name_of_the_field(
    cluster: Cluster, path: str, value: object, field: str, words: str
) -> None:
    async with evolution_runs(cluster) as runs:
        with pytest.raises(RefusedError) as refusal:
            await runs.create(spec_with(path, value), dry_run=True)
    assert field in str(refusal.value)
    assert words in str(refusal.value)


@pytest.mark.parametrize(("path", "value", "words"), [(row[0], row[1], row[3]) for row in RULES_OF_METEOR])
def test_perseid_validate_says_of_a_broken_rule_of_meteor_what_the_api_server_says(
    path: str, value: object, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    run = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "run"}, "spec": spec_with(path, value)}
    file.write_text(yaml.safe_dump(run))
    with pytest.raises(RunFileError) as refusal:
        load_run(file)
    (problem,) = refusal.value.problems
    assert words in problem.message
    assert problem.path.startswith(f"spec.{path}".removesuffix(".judge"))


@pytest.mark.parametrize("name", ["a" * 54, "a.b"])
async def test_a_name_that_is_too_long_or_has_a_dot_is_refused_with_the_reason(cluster: Cluster, name: str) -> None:
    async with evolution_runs(cluster) as runs:
        with pytest.raises(
            RefusedError, match=r"metadata\.name must be at most 53 .* choose a shorter or plainer name"
        ):
            await runs.create({}, name, dry_run=True)
        assert (await runs.create({}, "a" * 53, dry_run=True))["metadata"]["name"] == "a" * 53


def test_kubectl_refuses_unknown_fields_unasked(cluster: Cluster) -> None:
    install_crd(cluster)
    text = """
        apiVersion: perseid.dev/v1alpha1
        kind: EvolutionRun
        metadata: {name: run}
        spec: {finetune: {lora: {rang: 8}}}
    """
    with pytest.raises(KubectlError, match=r'unknown field "spec\.finetune\.lora\.rang"'):
        cluster.kubectl("create", "--namespace=default", "--filename=-", input=text)


async def test_unknown_fields_are_pruned_for_who_does_not_want_to_be_told(cluster: Cluster) -> None:
    async with evolution_runs(cluster) as runs:
        stored = await runs.create({"luck": 7, "finetune": {"luck": 7}}, dry_run=True, strict=False)
    assert "luck" not in stored["spec"]
    assert "luck" not in stored["spec"]["finetune"]


ONE_GPU: dict[str, object] = {"pipeline": {"stages": {"evaluate": {"gpus": 1}}}}
TWO_NODES: dict[str, object] = {"pipeline": {"trainJob": {"numNodes": 2}}}
RULES_OF_SEVERAL_FIELDS: list[tuple[dict[str, object], str, str]] = [
    (
        {"methods": ["meteor"], "pipeline": {"shards": 2}},
        "spec.pipeline",
        "only the search of method sra-mcts is done in shards",
    ),
    (
        {"engine": {"vllm": {"tensorParallelSize": 2}}, "pipeline": {"stages": {"selfEvolution": {"gpus": 1}}}},
        "spec.pipeline",
        "a stage has fewer GPUs than engine.vllm takes (tensorParallelSize times dataParallelSize)",
    ),
    (
        {"methods": ["meteor"], "meteor": {"stages": ["self-evolution"]}, **TWO_NODES},
        "spec.pipeline",
        "pipeline.trainJob has nothing to do",
    ),
    ({"storage": {"uri": "/mnt/runs"}, **TWO_NODES}, "spec.storage", "but storage.uri is a directory"),
    ({"storage": {"uri": "file:///mnt/runs"}, **TWO_NODES}, "spec.storage", "but storage.uri is a directory"),
    ({"finetune": {"batchSize": 1}, **TWO_NODES}, "spec.pipeline", "finetune.batchSize is below"),
]


@pytest.mark.parametrize(("spec", "field", "words"), RULES_OF_SEVERAL_FIELDS)
async def test_fields_that_do_not_fit_each_other_are_refused(
    cluster: Cluster, spec: dict[str, object], field: str, words: str
) -> None:
    async with evolution_runs(cluster) as runs:
        with pytest.raises(RefusedError) as refusal:
            await runs.create(spec, dry_run=True)
    assert field in str(refusal.value)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    "spec",
    [
        {"methods": ["meteor"], "pipeline": {"shards": 1}},
        {"methods": ["meteor", "sra-mcts"], "pipeline": {"shards": 32}},
        # A stage without GPUs runs on a CPU, and fine-tuning runs no engine.
        {
            "engine": {"vllm": {"tensorParallelSize": 2, "dataParallelSize": 2}},
            "pipeline": {"stages": {"synthesize": {"gpus": 4}, "finetune": {"gpus": 1}}},
        },
        {"engine": {"type": "transformers", "vllm": {"tensorParallelSize": 2}}, **ONE_GPU},
        TWO_NODES,
        {"methods": ["meteor"], "storage": {"uri": "s3://a/b"}, "finetune": {"batchSize": 2}, **TWO_NODES},
    ],
)
async def test_fields_that_fit_each_other_are_taken(cluster: Cluster, spec: dict[str, object]) -> None:
    async with evolution_runs(cluster) as runs:
        await runs.create(spec, dry_run=True)
