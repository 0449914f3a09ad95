"""The election on a real API server, with the rights that manifests/ gives and no others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cluster_access import Cluster
from control_plane import ControlPlane

from perseid_operator.kube.connection import Connection
from perseid_operator.kube.leases import LeaseClient
from perseid_operator.leader import LEASE_NAME, ElectionTimes, LeaderElection
from perseid_operator.login import access

pytestmark = pytest.mark.slow  # A real API server has to be started, and built before that.

RIGHTS = Path(__file__).parents[3] / "manifests" / "base" / "leader-election.yaml"
QUICK = ElectionTimes(lease=3.0, renew_deadline=2.0, retry=0.2)
WAIT_SECONDS = 60.0


@pytest.fixture
def kubeconfig(cluster: Cluster, namespace: str) -> Path:
    cluster.kubectl("create", "serviceaccount", "perseid-operator", "-n", namespace)
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=RIGHTS.read_text(encoding="utf-8"))
    return cluster.service_account_kubeconfig(namespace, "perseid-operator")


@contextlib.asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncIterator[LeaseClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        way = await access()
    async with Connection(way) as connection:
        yield LeaseClient(connection)


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[LeaseClient]:
    async with connected(kubeconfig) as client:
        yield client


def election(client: LeaseClient, namespace: str, identity: str, times: ElectionTimes = QUICK) -> LeaderElection:
    return LeaderElection(client, namespace, identity=identity, times=times)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await holds():  # noqa: ASYNC110  # What is waited for here tells nobody.
            await asyncio.sleep(0.05)


async def lease(client: LeaseClient, namespace: str) -> dict[str, Any]:
    return dict((await client.read_lease(namespace, LEASE_NAME))["spec"])


async def test_the_api_server_takes_the_lease_its_renewals_its_release_and_the_next_holder(
    client: LeaseClient, namespace: str
) -> None:
    first, second = election(client, namespace, "first"), election(client, namespace, "second")
    taken, done = asyncio.Event(), asyncio.Event()

    async def wait_and_lead() -> None:
        async with second.leading():
            taken.set()
            await done.wait()

    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as tasks:
        async with first.leading() as lost:
            made = await lease(client, namespace)
            assert (made["holderIdentity"], made["leaseDurationSeconds"]) == ("first", 3)
            tasks.create_task(wait_and_lead())

            async def renewed() -> bool:
                now = await lease(client, namespace)
                assert now["acquireTime"] == made["acquireTime"]
                renewals = (datetime.fromisoformat(one["renewTime"]) for one in (now, made))
                return (next(renewals) - next(renewals)).total_seconds() > QUICK.lease

            await eventually(renewed)
            assert first.is_leading
            assert not second.is_leading
            assert not taken.is_set()
            assert not lost.is_set()
        # Given back, so nobody waits for its end.
        await taken.wait()
        now = await lease(client, namespace)
        assert (now["holderIdentity"], now["leaseTransitions"]) == ("second", 1)
        done.set()


async def test_a_leader_stops_in_time_when_the_api_server_hangs_and_another_leads_when_it_is_back(
    client: LeaseClient, namespace: str, own_cluster: ControlPlane
) -> None:
    first, second = election(client, namespace, "first"), election(client, namespace, "second")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_SECONDS), contextlib.AsyncExitStack() as leading:
        lost = await leading.enter_async_context(first.leading())
        with own_cluster.api_server_paused():
            hung = loop.time()
            await lost.wait()
            assert loop.time() - hung <= QUICK.renew_deadline + 0.5
            assert not first.is_leading
        async with second.leading():
            assert not first.is_leading
            assert (await lease(client, namespace))["holderIdentity"] == "second"


async def test_without_the_rights_nobody_leads_and_nothing_breaks(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "serviceaccount", "nobody", "-n", namespace)
    async with connected(cluster.service_account_kubeconfig(namespace, "nobody")) as client:
        candidate = election(client, namespace, "nobody")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0), candidate.leading():
                pytest.fail("it leads without a right to")
        assert not candidate.is_leading
