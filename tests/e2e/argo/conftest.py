"""A kind cluster with Argo in it; skipped where there is none, or no image of Argo (`build`)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "cluster"))

from argo_world import IMAGE, Argo
from cluster_binaries import find_kubectl
from e2e_cluster import kept_cluster, kind_cluster, load_archive, missing_for_kind
from e2e_images import container_engine, save_image
from helm_binaries import find_clients

CLUSTER_NAME = "perseid-argo"


@pytest.fixture(scope="session")
def argo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Argo]:
    """Argo, and nothing of KFP."""
    engine = container_engine()
    reason = missing_for_kind(engine)
    if reason is not None or engine is None:
        pytest.skip(str(reason))
    if subprocess.run([engine, "image", "inspect", IMAGE], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"there is no image {IMAGE}: run tests/e2e/argo/build")
    directory = tmp_path_factory.mktemp("argo")
    kubectl, helm = find_kubectl(os.environ), find_clients(os.environ).helm
    if kept := os.environ.get("PERSEID_E2E_CLUSTER"):
        made = Argo(kept_cluster(kept, engine, kubectl, helm, directory / "kubeconfig"))
        made.install()
        yield made
        return
    with kind_cluster(CLUSTER_NAME, engine, kubectl, helm, directory / "kubeconfig") as cluster:
        archive = directory / "image.tar"
        save_image(engine, IMAGE, archive)
        load_archive(CLUSTER_NAME, engine, archive)
        made = Argo(cluster)
        made.install()
        yield made
