"""The cluster that these tests share: kind's, or, where PERSEID_KFP_ENDPOINT is set, the one of the kubeconfig.

Everything that takes minutes happens once. Where no cluster can be made the tests are skipped, and pytest says why.
"""

from __future__ import annotations

import os
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "cluster"))

from cluster_binaries import NoControlPlaneError, find_kubectl
from e2e_cluster import KEPT_CLUSTER_VARIABLE, Cluster, eventually, kept_cluster, kind_cluster, missing_for_kind
from e2e_images import IMAGES, Images, ImagesError, build_images, container_engine, load_image
from e2e_world import SECRET, SYSTEM, World
from helm_binaries import NoHelmError, find_clients

HERE = Path(__file__).parent
LIVE_KFP = "PERSEID_KFP_ENDPOINT"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAWRITER", "AWS_SECRET_ACCESS_KEY": "the-writers-secret"}
CLUSTER_NAME = "perseid-e2e"
MAKE_BUCKET = """
import urllib.error, urllib.request
bucket = "http://127.0.0.1:8888/buckets/models/"
try:
    urllib.request.urlopen(bucket)
except urllib.error.HTTPError:
    urllib.request.urlopen(urllib.request.Request(bucket, method="POST"))
print("there")
"""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A cluster with KFP and a storage, and nothing of Perseid but its images."""
    try:
        kubectl, helm = find_kubectl(os.environ), find_clients(os.environ).helm
    except (NoControlPlaneError, NoHelmError) as error:
        _skip(str(error))
    if os.environ.get(LIVE_KFP):
        yield _live_world(kubectl, helm)
        return
    engine = container_engine()
    reason = missing_for_kind(engine)
    if reason is not None or engine is None:
        _skip(str(reason))
    directory = tmp_path_factory.mktemp("kind")
    if kept := os.environ.get(KEPT_CLUSTER_VARIABLE):
        cluster = kept_cluster(kept, engine, kubectl, helm, directory / "kubeconfig")
        yield _world_in_kind(cluster, IMAGES)
        return
    try:
        images = build_images(engine, os.environ)
    except ImagesError as error:
        # Without a registry and without a base there is nothing to build on; a mistake in a recipe must not hide so.
        if "registry" in str(error) or "no such host" in str(error) or "dial tcp" in str(error):
            _skip(f"{error}\nNo base image can be had: run scripts/base_image.sh")
        raise
    with kind_cluster(CLUSTER_NAME, engine, kubectl, helm, directory / "kubeconfig") as cluster:
        for name in filter(None, (images.operator, images.stage, images.world, images.previous_operator)):
            load_image(CLUSTER_NAME, engine, name, spare=name == images.operator)
        yield _world_in_kind(cluster, images)


@pytest.fixture(scope="session")
def installed(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same, with the operator of the chart for all namespaces."""
    _make_namespace(world, SYSTEM, restricted=True)
    world.helm_apply(SYSTEM, tmp_path_factory.mktemp("values"))
    return world


@pytest.fixture(scope="session")
def tiny_model(installed: World) -> str:
    """URI of a model of kilobytes, for tests of what becomes of a run whatever its model can do."""
    return installed.make_tiny_model(installed.kfp_namespace)


@pytest.fixture
def namespace(world: World) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    _make_namespace(world, name)
    yield name
    world.cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def restricted_namespace(world: World) -> Iterator[str]:
    """Another one, under Kubernetes' strictest rules for pods."""
    name = f"e2e-own-{uuid.uuid4().hex[:8]}"
    _make_namespace(world, name, restricted=True)
    yield name
    world.cluster.kubectl("delete", "namespace", name, "--wait=false")


def _make_namespace(world: World, name: str, *, restricted: bool = False) -> None:
    """With the storage's credentials in it; where `restricted`, under Kubernetes' strictest rules for pods."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"} if restricted else {}
    world.cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}, _storage_secret(name)
    )


def _storage_secret(namespace: str) -> dict[str, object]:
    values = {
        name: os.environ.get(name, value) if os.environ.get(LIVE_KFP) else value for name, value in CREDENTIALS.items()
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": namespace},
        "stringData": values,
    }


def _world_in_kind(cluster: Cluster, images: Images) -> World:
    world = World(
        cluster,
        images,
        storage_env={"AWS_REGION": "us-east-1", "AWS_ENDPOINT": "http://seaweedfs.kubeflow.svc:8333"},
    )
    cluster.kubectl("apply", "--filename", str(HERE / "world.yaml"))
    cluster.apply(_storage_secret(world.kfp_namespace))
    for deployment in ("seaweedfs", "ml-pipeline"):
        cluster.kubectl(
            "rollout", "status", f"deployment/{deployment}", "--namespace", world.kfp_namespace, "--timeout=240s",
            seconds=250,
        )  # fmt: skip
    in_storage = ("exec", "deployment/seaweedfs", "--namespace", world.kfp_namespace, "--", "python", "-c")
    eventually(lambda: cluster.kubectl(*in_storage, MAKE_BUCKET), "the storage has a bucket", 60)
    return world


def _live_world(kubectl: Path, helm: Path) -> World:
    """A real KFP, in the cluster of the kubeconfig, that can pull the images."""
    needed = ("PERSEID_OPERATOR_IMAGE", "PERSEID_STAGE_IMAGE", "PERSEID_STORAGE")
    missing = [name for name in needed if not os.environ.get(name)]
    if missing:
        pytest.fail(f"{LIVE_KFP} is set; with a live KFP these are needed too: {', '.join(missing)}")
    kubeconfig = Path(os.environ.get("KUBECONFIG", Path.home() / ".kube" / "config"))
    world = World(
        Cluster(kubeconfig, kubectl, helm),
        Images(os.environ["PERSEID_OPERATOR_IMAGE"], os.environ["PERSEID_STAGE_IMAGE"], None),
        kfp_namespace=os.environ.get("PERSEID_KFP_NAMESPACE", "kubeflow"),
        kfp_endpoint=os.environ.get("PERSEID_KFP_ENDPOINT_IN_CLUSTER", "http://ml-pipeline.kubeflow.svc:8888"),
        kfp_seen_from_here=os.environ[LIVE_KFP],
        storage=os.environ["PERSEID_STORAGE"],
        storage_env={name: os.environ[name] for name in ("AWS_REGION", "AWS_ENDPOINT") if name in os.environ},
    )
    world.cluster.apply(_storage_secret(world.kfp_namespace))
    return world


def _skip(reason: str) -> None:
    warnings.warn(f"SKIPPED every test in a cluster: {reason}", stacklevel=2)
    pytest.skip(reason)
