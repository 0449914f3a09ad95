"""The tests' cluster with Kueue and Kubeflow Trainer in it; skipped where there is no image of them (`build`)."""

from __future__ import annotations

import os

import pytest
from e2e_cluster import KEPT_CLUSTER_VARIABLE
from e2e_images import is_there, load_image
from e2e_world import SYSTEM, World
from queue_world import ACCOUNT, IMAGE, Queues


@pytest.fixture(scope="session")
def queues(installed: World, tmp_path_factory: pytest.TempPathFactory) -> Queues:
    """A queue that may have nothing yet, and an operator that may list TrainJobs."""
    engine, kind_name = installed.cluster.engine, installed.cluster.name
    if engine is None or kind_name is None or not is_there(engine, IMAGE):
        pytest.skip(f"there is no kind cluster, or no image {IMAGE}: run tests/e2e/queue/build")
    if not os.environ.get(KEPT_CLUSTER_VARIABLE):
        load_image(kind_name, engine, IMAGE)
    train_jobs = {"enabled": True, "namespace": installed.kfp_namespace, "serviceAccounts": [ACCOUNT]}
    made = Queues(installed)
    made.install(engine)
    installed.helm_apply(SYSTEM, tmp_path_factory.mktemp("values"), trainJobs=train_jobs)
    return made
