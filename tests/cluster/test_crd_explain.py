"""`kubectl explain evorun` reads like documentation."""

from __future__ import annotations

import asyncio
import re
import tempfile

import pytest
from cluster_access import Cluster, KubectlError
from crd_objects import install_crd

from perseid.api.search import SearchSpec

_NOT_YET = "doesn't exist", "not found", "doesn't have a resource type", "couldn't find resource"


async def explain(cluster: Cluster, *arguments: str) -> str:
    """What kubectl explains; the API server publishes a new kind, and then its schema, a moment after it serves it."""
    install_crd(cluster)
    async with asyncio.timeout(60):
        while True:
            # What kubectl remembers may be from a time before the kind was there, in which case it looks no more.
            with tempfile.TemporaryDirectory() as cache:
                options = "--api-version=perseid.dev/v1alpha1", f"--cache-dir={cache}"
                try:
                    said = await asyncio.to_thread(cluster.kubectl, "explain", *options, *arguments)
                except KubectlError as error:
                    if not any(words in str(error) for words in _NOT_YET):
                        raise
                else:
                    return re.sub(r"\s+", " ", said)
            await asyncio.sleep(0.1)


async def test_explain_says_what_the_kind_is_for(cluster: Cluster) -> None:
    said = await explain(cluster, "evorun")
    assert "A language model that makes itself better" in said
    assert "KIND: EvolutionRun" in said


async def test_explain_gives_the_docstrings_of_the_models(cluster: Cluster) -> None:
    said = await explain(cluster, "evorun.spec.synthesis.search")
    for name in ("rounds", "siblings", "end_gate"):
        description = SearchSpec.model_fields[name].description
        assert description is not None
        assert re.sub(r"\s+", " ", description) in said
    assert "enum: mcts, tot, cot, direct" in said
    assert "FIELD: search <Object>" in said


async def test_explain_lists_every_field_of_the_spec(cluster: Cluster) -> None:
    said = await explain(cluster, "evorun.spec", "--recursive")
    for field in ("targetModules", "enforceEager", "blockSize", "decontamination", "nodeSelector <map[string]string>"):
        assert field in said
    assert "failurePolicy <Object>" in said


@pytest.mark.parametrize("field", ["spec.generations.max", "status.conditions", "status.columns.gpuHours"])
async def test_explain_finds_single_fields(cluster: Cluster, field: str) -> None:
    assert f"FIELD: {field.split('.')[-1]}" in await explain(cluster, f"evorun.{field}")
