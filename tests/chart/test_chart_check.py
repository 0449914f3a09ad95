"""What `helm test` runs, against a real API server and a real health server: it says yes, and says why not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chart_helm import CHART, objects_of, the
from cluster_access import Cluster
from crd_objects import install_crd

from perseid_operator.health import Health, serve
from perseid_operator.kfp.settings import KfpSettings
from perseid_operator.metrics import Metrics
from perseid_operator.settings import Settings

pytestmark = pytest.mark.slow  # A real API server has to be started, and built before that.

SCRIPT = CHART / "files" / "check_installation.py"
SAMPLE = CHART / "files" / "manifests" / "samples" / "quickstart.yaml"


@dataclass
class Installation:
    """An account with the rights that the chart gives to `helm test`, and an operator's probes."""

    kubeconfig: Path
    namespace: str
    health: Health
    url: str

    async def check(self, sample: Path = SAMPLE) -> tuple[int, str]:
        """Exit status, and all that was printed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", str(SCRIPT), str(sample)),
            *(f"--namespace={self.namespace}", f"--ready={self.url}/readyz", "--seconds=0.1"),
            env={"KUBECONFIG": str(self.kubeconfig), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, printed.decode()


@pytest.fixture
def account(cluster: Cluster, namespace: str) -> Path:
    install_crd(cluster)
    cluster.kubectl("create", "serviceaccount", "perseid-operator-test", "-n", namespace)
    for kind in ("Role", "RoleBinding"):
        given = the(objects_of("default"), kind, "perseid-operator-test")
        given["metadata"]["namespace"] = namespace
        for subject in given.get("subjects", []):
            subject["namespace"] = namespace
        cluster.kubectl("create", "--filename=-", input=json.dumps(given))
    return cluster.service_account_kubeconfig(namespace, "perseid-operator-test")


@contextlib.asynccontextmanager
async def operators_probes() -> AsyncIterator[tuple[Health, str]]:
    health = Health(time.monotonic, Settings(kfp=KfpSettings(endpoint="http://kfp"), storage="/files"))
    runner = await serve(health, Metrics(), 0, "127.0.0.1")
    try:
        yield health, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def installation(account: Path, namespace: str) -> AsyncIterator[Installation]:
    async with operators_probes() as (health, url):
        yield Installation(account, namespace, health, url)


async def test_an_installation_that_works_passes_and_nothing_is_stored(
    cluster: Cluster, installation: Installation
) -> None:
    installation.health.started()
    status, said = await installation.check()
    assert status == 0, said
    assert "takes EvolutionRuns" in said
    assert "is ready: 200 ready" in said
    kubectl = (cluster.kubectl, "get", "evolutionruns", "-n", installation.namespace, "-o", "name")
    assert await asyncio.to_thread(*kubectl) == ""


async def test_an_operator_that_is_not_ready_fails_it_with_its_own_words(installation: Installation) -> None:
    status, said = await installation.check()
    assert status == 1
    assert "did not answer 200 within 0.1 s, but: 503 the operator is starting" in said


async def test_an_operator_that_does_not_answer_fails_it(installation: Installation) -> None:
    installation.url = "http://127.0.0.1:1"
    status, said = await installation.check()
    assert status == 1
    assert "http://127.0.0.1:1/readyz did not answer 200" in said


async def test_a_cluster_that_refuses_the_sample_fails_it(installation: Installation, tmp_path: Path) -> None:
    installation.health.started()
    other = tmp_path / "other.yaml"
    other.write_text(SAMPLE.read_text(encoding="utf-8").replace("kvCacheGib: 2", "kvCacheGib: -2"), encoding="utf-8")
    status, said = await installation.check(other)
    assert status == 1
    assert "cannot create a sample EvolutionRun" in said
    assert "kvCacheGib" in said


async def test_an_account_without_the_right_fails_it(cluster: Cluster, installation: Installation) -> None:
    installation.health.started()
    installation.namespace = "default"
    status, said = await installation.check()
    assert status == 1
    assert "403" in said
