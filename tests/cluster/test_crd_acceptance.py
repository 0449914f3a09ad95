"""What the models of the contract accept, a real API server accepts, and stores with the same meaning."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cluster_access import Cluster
from crd_objects import CRD_NAME, MANIFESTS, REPOSITORY, RefusedError, evolution_runs, install_crd, spec_with
from hypothesis import HealthCheck, given, settings

from perseid.api.load import load_run
from perseid.api.spec import EvolutionRunSpec

sys.path.insert(
    0, str(Path(__file__).parents[1] / "operator" / "crd")
)  # As pytest does for the tests that stand there.

from spec_strategies import odd_specs, valid_specs, verdict

FILES = [*(REPOSITORY / "examples").glob("*.yaml"), *(MANIFESTS / "samples").glob("[!k]*.yaml")]


def plain(spec: EvolutionRunSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", by_alias=True, exclude_none=True)


def test_the_api_server_establishes_the_crd_and_has_nothing_against_it(cluster: Cluster, namespace: str) -> None:
    install_crd(cluster)
    crd = json.loads(cluster.kubectl("get", "crd", CRD_NAME, "--output=json"))
    conditions = {condition["type"]: condition["status"] for condition in crd["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}, "NonStructuralSchema would stand here"
    assert cluster.kubectl("get", "evorun", "--namespace", namespace, "--ignore-not-found") == ""
    assert cluster.kubectl("get", "perseid", "--namespace", namespace, "--ignore-not-found") == ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
async def test_examples_and_samples_are_accepted_and_mean_the_same(cluster: Cluster, file: Path) -> None:
    install_crd(cluster)
    answer = await asyncio.to_thread(
        cluster.kubectl, "create", "--dry-run=server", "--namespace=default", "--output=json", f"--filename={file}"
    )
    stored = json.loads(answer)["spec"]
    assert stored == plain(load_run(file).spec)


def test_there_are_examples_and_samples() -> None:
    assert len(FILES) >= 5


@pytest.mark.parametrize("spec", [None, {}, {"finetune": {}, "problems": {}}])
async def test_defaults_are_filled_in_so_that_the_object_says_all_that_the_run_does(
    cluster: Cluster, spec: dict[str, Any] | None
) -> None:
    async with evolution_runs(cluster) as runs:
        stored = await runs.create(spec, dry_run=True)
    assert stored["spec"] == plain(EvolutionRunSpec())


async def test_what_is_left_to_the_profile_stays_absent(cluster: Cluster) -> None:
    async with evolution_runs(cluster) as runs:
        stored = await runs.create({"synthesis": {"search": {"profile": "paper"}}}, dry_run=True)
    search = stored["spec"]["synthesis"]["search"]
    assert search == {"algorithm": "mcts", "profile": "paper", "rollout": {}}


async def test_null_is_as_good_as_absent(cluster: Cluster) -> None:
    async with evolution_runs(cluster) as runs:
        stored = await runs.create({"seed": None, "model": {"revision": None}, "budget": None}, dry_run=True)
    assert stored["spec"] == plain(EvolutionRunSpec())


# Seconds: forty random specs, each with up to a hundred fields, and a request for each.
@settings(
    max_examples=40,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
    ],
)
@given(spec=valid_specs())
async def test_random_valid_specs_are_accepted_and_mean_the_same(cluster: Cluster, spec: dict[str, Any]) -> None:
    async with evolution_runs(cluster) as runs:
        stored = await runs.create(spec, dry_run=True)
    assert EvolutionRunSpec.model_validate(stored["spec"]) == EvolutionRunSpec.model_validate(spec)
    assert stored["spec"] == plain(EvolutionRunSpec.model_validate(spec))


@pytest.mark.slow  # Half a minute: two thousand requests, every field of the spec with every odd value.
async def test_api_server_and_models_give_the_same_verdict_on_every_odd_value(cluster: Cluster) -> None:
    turns = asyncio.Semaphore(8)
    verdicts = {True: 0, False: 0}

    async with evolution_runs(cluster) as runs:

        async def compare(path: tuple[str | int, ...], value: Any, spec: dict[str, Any]) -> str | None:
            accepted = verdict(spec)[0]
            async with turns:
                try:
                    await runs.create(spec, dry_run=True)
                except RefusedError as refusal:
                    wrong = f"{path} = {value!r}: refused, {refusal}" if accepted else None
                else:
                    wrong = None if accepted else f"{path} = {value!r}: accepted"
            verdicts[accepted] += 1
            return wrong

        compared = await asyncio.gather(*(compare(path, value, spec) for path, value, spec in odd_specs()))
    assert [wrong for wrong in compared if wrong is not None] == []
    assert verdicts[True] > 200
    assert verdicts[False] > 1000


ONE_OF_SEVERAL_TYPES = [
    ("engine.vllm.blockSize", ["auto", 8, 128], ["8", "none", 7, 8.5, True, [8], {}, ""]),
    ("engine.vllm.enforceEager", [True, False, "auto"], ["true", "always", 0, 1, [], [True], {}, {"a": 1}]),
    (
        "finetune.lora.targetModules",
        ["all-linear", ["q_proj"], ["q_proj", "v_proj"], ["m"] * 64],
        ["all", "", 5, 1.5, True, {}, {"a": 1}, [], [1], ["q", None], [""], ["m"] * 65, [["q"]], ["m" * 1025]],
    ),
]


@pytest.mark.parametrize(("path", "right", "wrong"), ONE_OF_SEVERAL_TYPES, ids=[row[0] for row in ONE_OF_SEVERAL_TYPES])
async def test_a_field_of_several_types_takes_what_the_models_take_and_nothing_else(
    cluster: Cluster, path: str, right: list[Any], wrong: list[Any]
) -> None:
    async with evolution_runs(cluster) as runs:
        for value in right:
            assert verdict(spec_with(path, value))[0]
            stored: Any = (await runs.create(spec_with(path, value), dry_run=True))["spec"]
            for part in path.split("."):
                stored = stored[part]
            assert stored == value
        for value in wrong:
            assert not verdict(spec_with(path, value))[0]
            with pytest.raises(RefusedError, match=path.split(".")[-1]):
                await runs.create(spec_with(path, value), dry_run=True)
