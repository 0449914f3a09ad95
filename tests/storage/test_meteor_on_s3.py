"""METEOR with each stage on a machine of its own: all that they share is a bucket."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from meteor_world import MeteorWorld, world
from perseid.api.attempt import Attempt
from perseid.api.layout import RESULT, SCRATCH_DIRECTORY
from perseid.api.result import GenerationResult
from perseid.storage.objects import Objects

__all__ = ["world"]

ATTEMPT = "generations/000/attempts/0"
MADE = ("samples.jsonl", "dropped.jsonl", "yield.json", "assessments.jsonl", "agreement.json", "pairs.jsonl")
"""What the stages have made, but for journals, times and places."""


def digests_in_a_directory(attempt: Attempt) -> dict[str, str]:
    root = Path(attempt.storage) / ATTEMPT
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.name in MADE
    }


def digests_in_a_bucket(root: str) -> dict[str, str]:
    objects = Objects(root)
    found = {}
    for one in objects.list(ATTEMPT):
        if one.key.rsplit("/", 1)[-1] in MADE:
            content = objects.read(one.key)
            assert content is not None
            found[one.key.removeprefix(f"{ATTEMPT}/")] = hashlib.sha256(content[0]).hexdigest()
    return found


@pytest.mark.slow  # eight starts of stages, four of them over a real S3 server
def test_all_stages_over_a_bucket_make_what_they_make_in_a_directory(
    world: MeteorWorld, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start_at(2)
    here = world.attempt(world.spec())
    for stage in here.run.spec.stages:
        world.run(stage, here)
    calls, trainings = world.endpoints.total() + len(world.asked), list(world.trainings)
    world.trainings.clear()

    there = here.model_copy(update={"storage": root})
    for stage in there.run.spec.stages:
        monkeypatch.setenv(SCRATCH_DIRECTORY, str(tmp_path / f"machine-of-{stage}"))
        monkeypatch.setenv("PERSEID_CACHE", str(tmp_path / f"cache-of-{stage}"))
        world.run(stage, there)
    assert digests_in_a_bucket(root) == digests_in_a_directory(here) != {}
    assert world.endpoints.total() + len(world.asked) == 2 * calls
    assert world.trainings == trainings
    content = Objects(root).read(f"{ATTEMPT}/{RESULT}")
    assert content is not None
    generation = GenerationResult.model_validate_json(content[0])
    assert generation.candidate is not None
    assert generation.candidate.uri == f"{root}/{ATTEMPT}/self-evolution/model"
    expected = world.generation(here)
    assert [(one.stage, one.gain) for one in generation.lineage] == [(one.stage, one.gain) for one in expected.lineage]
    assert generation.dev == expected.dev
