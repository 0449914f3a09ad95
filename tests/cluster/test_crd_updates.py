"""What of an EvolutionRun may change while it exists, on a real API server."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest
import yaml
from cluster_access import Cluster, KubectlError
from crd_objects import CRD_FILE, RefusedError, evolution_runs, spec_with, wait_until_established

from perseid.api.identity import MAY_CHANGE, spec_changes
from perseid.api.spec import EvolutionRunSpec

FIRST = {
    "model": {"revision": "abc"},
    "generations": {"max": 3},
    "synthesis": {"search": {"rounds": 3}, "policyEndpoint": {"baseUrl": "http://x/v1", "model": "m"}},
}
FIXED = [
    ("seed", 1, "spec.seed"),
    ("model.ref", "other/model", "spec.model.ref"),
    ("model.revision", "def", "spec.model.revision"),
    ("model.revision", None, "spec.model.revision"),
    ("engine.type", "transformers", "spec.engine.type"),
    ("engine.vllm.enforceEager", False, "spec.engine.vllm"),
    ("engine.vllm.blockSize", 16, "spec.engine.vllm"),
    ("problems.train.limit", 3, "spec.problems.train"),
    ("problems.test", [], "spec.problems.test"),
    ("synthesis.search.rounds", 4, "spec.synthesis.search"),
    ("synthesis.search.rounds", None, "spec.synthesis.search"),
    ("synthesis.search.branch", 4, "spec.synthesis.search"),
    ("synthesis.policyEndpoint", None, "spec.synthesis.policyEndpoint"),
    ("synthesis.policyEndpoint.model", "n", "spec.synthesis.policyEndpoint"),
    ("synthesis.evaluatorEndpoint", {"baseUrl": "b", "model": "m"}, "spec.synthesis.evaluatorEndpoint"),
    ("conversion.gate.keepFraction", 0.5, "spec.conversion.gate"),
    ("sandbox.workers", 3, "spec.sandbox.workers"),
    ("finetune.learningRate", 0.1, "spec.finetune.learningRate"),
    ("finetune.lora.rank", 8, "spec.finetune.lora"),
    ("finetune.lora.targetModules", ["q_proj"], "spec.finetune.lora"),
    ("evaluation.samples", 5, "spec.evaluation.samples"),
    ("generations.patience", 2, "spec.generations.patience"),
    ("generations.promotion.minImprovement", 0.1, "spec.generations.promotion"),
    ("pipeline.image", "other", "spec.pipeline.image"),
    ("pipeline.stages.finetune.labels", {"a": "b"}, "spec.pipeline.stages"),
    ("storage.uri", "s3://bucket/other", "spec.storage.uri"),
    ("methods", ["meteor"], "spec.methods"),
    ("meteor.stages", ["self-evolution"], "spec.meteor.stages"),
    ("meteor.mentor.ref", "other/model", "spec.meteor.mentor"),
    ("meteor.selfEvolution.critiqueMargin", 0.5, "spec.meteor.selfEvolution"),
    ("managedBy", "somebody/else", "spec.managedBy"),
]
MAY = [
    ("suspend", True),
    ("suspendPolicy", "terminate"),
    ("startDeadlineSeconds", 60),
    ("startDeadlineSeconds", None),
    ("activeDeadlineSeconds", 600),
    ("ttlSecondsAfterFinished", 0),
    ("budget.gpuHours", 5.5),
    ("budget.mentorCost", 1),
    ("budget.mentorTokens", 10**6),
    ("failurePolicy.rules", [{"action": "fail", "reasons": ["OutOfMemory"], "stages": []}]),
    ("reclaimPolicy", "delete"),
    ("reclaimPolicy", "retain"),
    ("deletePolicy", "orphan"),
    ("retainModels", "promoted"),
    ("generations.approval", "manual"),
    ("generations.max", 4),
]


def test_the_tables_say_what_the_contract_says() -> None:
    """Both tables, against the field-by-field comparison that a run directory uses."""
    before = EvolutionRunSpec.model_validate(FIRST)
    for path, value, _ in FIXED:
        assert not any(change.may_change for change in spec_changes(before, _changed(path, value))), path
    for path, value in MAY:
        for change in spec_changes(before, _changed(path, value)):
            # A whole section that may change is compared part by part there.
            assert any(change.path.startswith(".".join(map(str, field))) for field in MAY_CHANGE), path


def _changed(path: str, value: object) -> EvolutionRunSpec:
    spec = EvolutionRunSpec.model_validate(FIRST).model_dump(mode="json", by_alias=True)
    part: Any = spec
    *parents, last = path.split(".")
    for name in parents:
        part = part[name]
    part[last] = value
    return EvolutionRunSpec.model_validate(spec)


async def test_what_makes_a_run_this_run_cannot_change(cluster: Cluster, namespace: str) -> None:
    async with evolution_runs(cluster, namespace) as runs:
        created = await runs.create(FIRST)
        for path, value, field in FIXED:
            with pytest.raises(RefusedError) as refusal:
                await runs.change("run", {"spec": spec_with(path, value)})
            assert f"Forbidden: {field} is fixed. Generations" in str(refusal.value), path
            assert "create another EvolutionRun" in str(refusal.value)
        assert (await runs.get("run"))["metadata"]["generation"] == created["metadata"]["generation"] == 1


async def test_the_answer_names_everything_that_was_changed_and_nothing_else(cluster: Cluster, namespace: str) -> None:
    async with evolution_runs(cluster, namespace) as runs:
        await runs.create(FIRST)
        with pytest.raises(
            RefusedError, match=r"spec\.finetune\.lora is fixed\. spec\.finetune\.epochs is fixed\. Gen"
        ):
            await runs.change("run", {"spec": {"finetune": {"epochs": 7, "lora": {"rank": 8}}}})


async def test_what_holds_bounds_and_ends_a_run_may_change(cluster: Cluster, namespace: str) -> None:
    async with evolution_runs(cluster, namespace) as runs:
        await runs.create(FIRST)
        for path, value in MAY:
            stored: Any = (await runs.change("run", {"spec": spec_with(path, value)}))["spec"]
            *parents, last = path.split(".")
            for name in parents:
                stored = stored[name]
            assert stored.get(last) == value, path


def test_every_field_that_may_change_is_tried() -> None:
    tried = {("spec", *path.split(".")) for path, _ in MAY}
    for field in MAY_CHANGE:
        assert any(path[: len(field)] == field for path in tried), field


async def test_the_number_of_generations_only_grows(cluster: Cluster, namespace: str) -> None:
    async with evolution_runs(cluster, namespace) as runs:
        await runs.create({"generations": {"max": 3}})
        with pytest.raises(RefusedError, match=r"spec\.generations\.max can only grow.*set spec\.suspend"):
            await runs.change("run", {"spec": {"generations": {"max": 2}}})
        with pytest.raises(RefusedError, match=r"spec\.generations\.max can only grow"):
            await runs.change("run", {"spec": None})  # The defaults come back, and the default is 1.
        assert (await runs.change("run", {"spec": {"generations": {"max": 5}}}))["spec"]["generations"]["max"] == 5


# Seconds: the API server takes its time to serve a changed CRD.
async def test_an_object_stored_under_an_older_crd_is_completed_and_goes_on(cluster: Cluster, namespace: str) -> None:
    """A new version of Perseid has fields that stored objects lack: their defaults are no change."""
    crd = yaml.load(CRD_FILE.read_text().replace("perseid.dev", "older.perseid.dev"), Loader=yaml.CSafeLoader)
    names = crd["spec"]["names"]
    names.update(
        plural="olderruns", singular="olderrun", kind="OlderRun", listKind="OlderRunList", shortNames=["older"]
    )
    crd["metadata"]["name"] = "olderruns.older.perseid.dev"
    older = copy.deepcopy(crd)
    for root in (crd, older):
        schema = root["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        schema["properties"]["kind"]["enum"] = ["OlderRun"]
    spec = schema["properties"]["spec"]
    del spec["properties"]["finetune"]["properties"]["packing"], spec["default"]
    del spec["properties"]["finetune"]["x-kubernetes-validations"]  # its message speaks of packing
    spec["properties"]["finetune"]["default"].pop("packing")

    def kubectl(*arguments: str, of: Any = None) -> str:
        return cluster.kubectl(*arguments, f"--namespace={namespace}", input=None if of is None else json.dumps(of))

    run = {"apiVersion": "older.perseid.dev/v1alpha1", "kind": "OlderRun", "metadata": {"name": "run"}, "spec": {}}
    try:
        kubectl("create", "--filename=-", of=older)
        wait_until_established(cluster, "olderruns.older.perseid.dev")
        stored = json.loads(kubectl("create", "--output=json", "--filename=-", of=run))
        assert "packing" not in stored["spec"]["finetune"]
        kubectl("replace", "--filename=-", of=crd)
        async with asyncio.timeout(60):
            while "packing" not in stored["spec"]["finetune"]:
                stored = json.loads(await asyncio.to_thread(kubectl, "get", "older/run", "--output=json"))
        assert stored["spec"] == EvolutionRunSpec().model_dump(mode="json", by_alias=True, exclude_none=True)
        kubectl("patch", "older/run", "--type=merge", '--patch={"spec": {"suspend": true}}')
        with pytest.raises(KubectlError, match=r"spec\.finetune\.packing is fixed"):
            kubectl("patch", "older/run", "--type=merge", '--patch={"spec": {"finetune": {"packing": "padded"}}}')
    finally:
        kubectl("delete", "crd", "olderruns.older.perseid.dev", "--ignore-not-found", "--wait=false")


async def test_metadata_may_change_as_ever(cluster: Cluster, namespace: str) -> None:
    async with evolution_runs(cluster, namespace) as runs:
        await runs.create(FIRST)
        metadata = {"annotations": {"perseid.dev/approved-generation": "1"}, "finalizers": ["perseid.dev/cleanup"]}
        stored = await runs.change("run", {"metadata": metadata})
        assert stored["metadata"]["finalizers"] == ["perseid.dev/cleanup"]
        await runs.change("run", {"metadata": {"finalizers": None}})
