from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import get_args

import pytest
from ops_leases import Leases, Link, Mode
from ops_virtual_time import VirtualLoop, run_virtually

from perseid_operator.leader import ElectionTimes, LeaderElection, new_identity

LEASE_SECONDS, DEADLINE_SECONDS, RETRY_SECONDS = 15.0, 10.0, 2.0
LONGEST_WAIT = LEASE_SECONDS + 1.2 * RETRY_SECONDS + 1.0
"""Until a Lease that nobody renews is taken: its time, a retry with its spread, and the requests."""

Test = Callable[[], Awaitable[None]]


def virtually(test: Test) -> Callable[[], None]:
    """Fifteen seconds take no time at all."""

    def run() -> None:
        run_virtually(test())

    run.__name__ = test.__name__
    return run


def now() -> float:
    return asyncio.get_running_loop().time()


def candidate(leases: Leases, identity: str, link: Link | None = None) -> tuple[LeaderElection, Link]:
    link = link if link is not None else Link(leases)
    return LeaderElection(link, "perseid", identity=identity, clock=asyncio.get_running_loop().time), link


@contextlib.asynccontextmanager
async def led_by(leases: Leases, identity: str) -> AsyncIterator[tuple[LeaderElection, Link, asyncio.Event]]:
    election, link = candidate(leases, identity)
    async with election.leading() as lost:
        yield election, link, lost


@virtually
async def test_who_comes_first_makes_the_lease_and_leads_at_once() -> None:
    leases = Leases()
    async with led_by(leases, "a") as (election, _, lost):
        assert now() < 1
        assert election.is_leading
        assert not lost.is_set()
        assert leases.writes[0] == {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "perseid-operator", "namespace": "perseid"},
            "spec": {
                "holderIdentity": "a",
                "leaseDurationSeconds": 15,
                "acquireTime": leases.writes[0]["spec"]["renewTime"],
                "renewTime": leases.writes[0]["spec"]["renewTime"],
                "leaseTransitions": 0,
            },
        }


@virtually
async def test_a_leader_that_renews_leads_for_long_and_the_other_waits() -> None:
    leases = Leases()
    async with led_by(leases, "a") as (election, _, lost):
        other, _ = candidate(leases, "b")
        waiting = asyncio.create_task(other._acquire())
        while now() < 1800:
            await asyncio.sleep(1)
            assert election.is_leading
            assert not other.is_leading
        assert not lost.is_set()
        assert not waiting.done()
        renewals = [write["spec"] for write in leases.writes[1:]]
        assert len(renewals) == pytest.approx(1800 / RETRY_SECONDS, rel=0.05)
        assert {write["acquireTime"] for write in renewals} == {leases.writes[0]["spec"]["acquireTime"]}
        assert {write["leaseTransitions"] for write in renewals} == {0}
        waiting.cancel()


@pytest.mark.parametrize("mode", [mode for mode in get_args(Mode) if mode != "fine"])
def test_a_leader_that_cannot_renew_stops_before_another_may_begin(mode: Mode) -> None:
    async def scene() -> None:
        leases = Leases()
        async with led_by(leases, "a") as (election, link, lost):
            await asyncio.sleep(60)
            other, _ = candidate(leases, "b")
            taking = asyncio.create_task(other._acquire())
            await asyncio.sleep(20)
            link.mode = mode
            broken = now()
            await lost.wait()
            # A leader whose answers get lost still renews, so that the Lease lasts longer than its lead.
            assert now() - broken <= DEADLINE_SECONDS + 0.1
            assert not election.is_leading
            assert not taking.done()
            stopped = now()
            await taking
            assert other.is_leading
            assert not election.is_leading
            assert now() - stopped >= LEASE_SECONDS - DEADLINE_SECONDS - 0.1
            assert leases.writes[-1]["spec"]["leaseTransitions"] == 1
            assert now() - broken <= DEADLINE_SECONDS + LONGEST_WAIT
            # The broken link stays broken: leaving must not hang on it.
            left = now()
        assert now() - left <= RETRY_SECONDS + DEADLINE_SECONDS / 2

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scene())
        if mode == "hangs and cannot be cancelled":
            # What cannot be cancelled would keep the runner: it dies with its process.
            for task in asyncio.all_tasks(runner.get_loop()):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                asyncio.tasks._unregister_task(task)


@virtually
async def test_one_failed_renewal_costs_nothing() -> None:
    leases = Leases()
    async with led_by(leases, "a") as (election, link, lost):
        for mode in get_args(Mode)[1:]:
            if mode == "hangs and cannot be cancelled":
                continue
            link.mode = mode
            await asyncio.sleep(4)
            link.mode = "fine"
            await asyncio.sleep(8)
            assert election.is_leading, mode
        assert not lost.is_set()


@virtually
async def test_a_lease_that_is_given_back_is_taken_at_the_next_look() -> None:
    leases = Leases()
    async with led_by(leases, "a"):
        other, _ = candidate(leases, "b")
        taking = asyncio.create_task(other._acquire())
        await asyncio.sleep(30)
    assert "holderIdentity" not in leases.writes[-1]["spec"]
    ended = now()
    await taking
    assert now() - ended <= 1.2 * RETRY_SECONDS + 0.1
    assert leases.holder == "b"


@virtually
async def test_a_lease_is_given_back_also_when_the_body_fails() -> None:
    leases = Leases()
    with pytest.raises(ZeroDivisionError):
        async with led_by(leases, "a"):
            _ = 1 / 0
    assert leases.holder is None


@virtually
async def test_a_lead_that_was_lost_is_not_given_back() -> None:
    leases = Leases()
    async with led_by(leases, "a") as (_, link, lost):
        link.mode = "hangs"
        await lost.wait()
        other, _ = candidate(leases, "b")
        await other._acquire()
        link.mode = "fine"
    assert leases.holder == "b"


@virtually
async def test_a_process_that_stood_still_knows_at_once_that_it_leads_no_more() -> None:
    leases = Leases()
    async with led_by(leases, "a") as (election, _, lost):
        await asyncio.sleep(60)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.stand_still(20)
        assert not election.is_leading
        await lost.wait()
        assert not election.is_leading
        await asyncio.sleep(60)
        assert not election.is_leading


@virtually
async def test_a_renewal_that_is_granted_too_late_does_not_bring_the_lead_back() -> None:
    leases = Leases()
    async with led_by(leases, "a") as (election, link, lost):
        await asyncio.sleep(3.9)
        written = len(leases.writes)
        link.seconds = 1.0
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        # The next renewal reads until 5.04 and writes until 6.04: it is granted at 5.54, and the answer is on its way.
        loop.call_later(1.9, loop.stand_still, 30)
        await lost.wait()
        assert len(leases.writes) == written + 1
        await asyncio.sleep(30)
        assert not election.is_leading


@virtually
async def test_a_lead_is_counted_from_when_the_renewal_was_sent_not_from_its_answer() -> None:
    leases = Leases()
    link = Link(leases, seconds=1.0)
    election, _ = candidate(leases, "a", link)
    async with election.leading() as lost:
        # It looked at 0, was told at 0.5 that there is none, wrote then, and got its answer at 1.5.
        assert now() == pytest.approx(1.5)
        link.mode = "hangs"
        await lost.wait()
        assert now() == pytest.approx(0.5 + DEADLINE_SECONDS)


@virtually
async def test_a_leader_whose_time_is_over_does_not_write_any_more() -> None:
    leases = Leases()
    async with led_by(leases, "a") as (_, link, lost):
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        link.mode = "hangs"
        await asyncio.sleep(6)
        # The next look begins at 7.015 and is answered at 9.915, but the process stands still until its lead is over.
        link.mode, link.seconds = "fine", 2.9
        loop.call_at(9.0, lambda: loop.stand_still(1.01))
        await lost.wait()
        await asyncio.sleep(30)
        assert len(leases.writes) == 1


@virtually
async def test_a_leader_that_sees_another_in_the_lease_stops_at_once() -> None:
    leases = Leases()
    async with led_by(leases, "a") as (election, _, lost):
        leases.lease = None
        other, _ = candidate(leases, "b")
        await other._acquire()
        taken = now()
        await lost.wait()
        assert now() - taken <= RETRY_SECONDS + 0.1
        assert not election.is_leading
    assert leases.holder == "b"


@virtually
async def test_who_has_seen_a_holder_waits_for_it_also_when_the_lease_is_deleted() -> None:
    leases = Leases()
    async with led_by(leases, "a") as (_, link, lost):
        other, _ = candidate(leases, "b")
        taking = asyncio.create_task(other._acquire())
        await asyncio.sleep(30)
        link.mode = "hangs"
        leases.lease = None
        await lost.wait()
        assert not taking.done()
        await taking
        assert leases.holder == "b"


@virtually
async def test_a_candidate_whose_claim_was_granted_without_an_answer_finds_itself_the_holder() -> None:
    leases = Leases()
    election, link = candidate(leases, "a")
    link.mode = "answers get lost"
    leases.lease = None
    taking = asyncio.create_task(election._acquire())
    await asyncio.sleep(0.001)
    link.mode = "fine"
    leases.create(
        {
            "metadata": {"name": "perseid-operator"},
            "spec": {
                "holderIdentity": "a",
                "leaseDurationSeconds": 15,
                "leaseTransitions": 4,
                "acquireTime": "2026-01-01T00:00:00.000000Z",
                "renewTime": "2026-01-01T00:00:00.000000Z",
            },
        }
    )
    await taking
    assert now() < LEASE_SECONDS
    assert leases.writes[-1]["spec"]["leaseTransitions"] == 4
    assert leases.writes[-1]["spec"]["acquireTime"] == "2026-01-01T00:00:00.000000Z"


@pytest.mark.parametrize("renewed", ["1999-01-01T00:00:00Z", "2999-01-01T00:00:00Z"])
@pytest.mark.parametrize("duration", [1, 15, 40])
def test_what_a_strangers_clock_says_counts_for_nothing_and_its_longer_lease_is_kept(
    renewed: str, duration: int
) -> None:
    async def scene() -> None:
        leases = Leases()
        leases.create(
            {
                "metadata": {"name": "perseid-operator"},
                "spec": {
                    "holderIdentity": "stranger",
                    "leaseDurationSeconds": duration,
                    "leaseTransitions": 0,
                    "acquireTime": renewed,
                    "renewTime": renewed,
                },
            }
        )
        election, _ = candidate(leases, "a")
        await election._acquire()
        waited = max(LEASE_SECONDS, duration)
        assert waited <= now() <= waited + 1.2 * RETRY_SECONDS + 0.1

    run_virtually(scene())


@virtually
async def test_a_lease_of_nobody_is_taken_at_once() -> None:
    leases = Leases()
    async with led_by(leases, "a"):
        pass
    begun = now()
    async with led_by(leases, "b"):
        assert now() - begun < 0.1


@virtually
async def test_whoever_led_once_does_not_lead_again() -> None:
    leases = Leases()
    election, _ = candidate(leases, "a")
    async with election.leading():
        pass
    with pytest.raises(RuntimeError, match="does not lead again"):
        async with election.leading():
            pass


@virtually
async def test_beginning_and_end_of_the_lead_are_told_once_each() -> None:
    leases = Leases()
    told: list[bool] = []
    link = Link(leases)
    election = LeaderElection(link, "perseid", clock=asyncio.get_running_loop().time, on_change=told.append)
    async with election.leading() as lost:
        assert told == [True]
        link.mode = "fails"
        await lost.wait()
        assert told == [True, False]
    assert told == [True, False]


def test_a_right_that_is_missing_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        leases = Leases()
        election, link = candidate(leases, "a")
        link.mode = "forbids"
        taking = asyncio.create_task(election._acquire())
        await asyncio.sleep(30)
        taking.cancel()

    with caplog.at_level(logging.INFO, "perseid_operator.leader"):
        run_virtually(scene())
    told = [record.getMessage() for record in caplog.records if "verbs get, create and update" in record.getMessage()]
    assert len(told) == 1
    assert "perseid/perseid-operator" in told[0]


def test_an_answer_that_is_no_lease_is_taken_for_no_answer() -> None:
    async def scene() -> None:
        leases = Leases()
        election, link = candidate(leases, "a")

        async def nonsense(namespace: str, name: str) -> dict[str, object]:
            return {"kind": "Status"}

        link.read_lease = nonsense  # type: ignore[method-assign]
        assert not await election._try()
        assert not election.is_leading

    run_virtually(scene())


@pytest.mark.parametrize("times", [(15, 15, 2), (15, 10, 5), (15, 10, 0), (14.5, 10, 2), (0, 0, 0)])
def test_times_by_which_two_could_lead_are_refused(times: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="the election's times"):
        ElectionTimes(*times)


def test_two_processes_on_one_host_have_two_identities() -> None:
    assert new_identity() != new_identity()


@pytest.mark.parametrize("seed", range(8))
def test_whatever_the_network_does_two_never_lead_and_afterwards_one_does(seed: int) -> None:
    # A second each, for a thousand of virtual ones.
    chance = random.Random(seed)
    modes = [mode for mode in get_args(Mode) if mode != "hangs and cannot be cancelled"]
    leaders: set[str] = set()

    async def live(leases: Leases, link: Link, elections: dict[str, LeaderElection], place: str) -> None:
        # Each machine has a clock of its own, which runs a little fast or slow and began some day.
        began, rate = chance.uniform(0, 1e6), chance.uniform(0.99, 1.01)
        loop = asyncio.get_running_loop()
        for life in range(10_000):
            clock = lambda: began + rate * loop.time()  # noqa: E731
            election = LeaderElection(link, "perseid", identity=f"{place}{life}", clock=clock)
            elections[place] = election
            async with election.leading() as lost:
                leaders.add(election.identity)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), chance.choice([5, 50, 1e6]))

    async def scene() -> None:
        leases = Leases()
        links = {place: Link(leases) for place in "abc"}
        elections: dict[str, LeaderElection] = {}
        lives = [asyncio.create_task(live(leases, links[place], elections, place)) for place in "abc"]
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        while now() < 1000:
            for _ in range(chance.randrange(1, 200)):
                await asyncio.sleep(0.1)
                leading = [one.identity for one in elections.values() if one.is_leading]
                assert len(leading) <= 1, leading
            link = links[chance.choice("abc")]
            link.mode = chance.choice([*modes, "fine", "fine", "fine"])
            link.seconds = chance.choice([0.01, 0.01, 1.0, 2.5, 6.0])
            if chance.random() < 0.05:
                loop.stand_still(chance.uniform(1, 40))
        for link in links.values():
            link.mode, link.seconds = "fine", 0.01
        for _ in range(int(10 * (LONGEST_WAIT + DEADLINE_SECONDS))):
            await asyncio.sleep(0.1)
            assert sum(one.is_leading for one in elections.values()) <= 1
        assert not any(task.done() for task in lives)

    run_virtually(scene())
    assert len(leaders) > 5
