"""A kind cluster with Argo in it; skipped where there is none, or no image of Argo (`build`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "cluster"))

from argo_world import IMAGE, Argo
from cluster_binaries import find_kubectl
from e2e_cluster import KEPT_CLUSTER_VARIABLE, kept_cluster, kind_cluster, missing_for_kind
from e2e_images import container_engine, is_there, load_image
from helm_binaries import find_clients

CLUSTER_NAME = "perseid-argo"


@pytest.fixture(scope="session")
def argo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Argo]:
    """Argo, and nothing of KFP."""
    engine = container_engine()
    reason = missing_for_kind(engine)
    if reason is not None or engine is None:
        pytest.skip(str(reason))
    if not is_there(engine, IMAGE):
        pytest.skip(f"there is no image {IMAGE}: run tests/e2e/argo/build")
    directory = tmp_path_factory.mktemp("argo")
    kubectl, helm = find_kubectl(os.environ), find_clients(os.environ).helm
    if kept := os.environ.get(KEPT_CLUSTER_VARIABLE):
        made = Argo(kept_cluster(kept, engine, kubectl, helm, directory / "kubeconfig"))
        made.install()
        yield made
        return
    with kind_cluster(CLUSTER_NAME, engine, kubectl, helm, directory / "kubeconfig") as cluster:
        load_image(CLUSTER_NAME, engine, IMAGE)
        made = Argo(cluster)
        made.install()
        yield made
