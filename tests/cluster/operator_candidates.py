"""Several operators that share a Lease: processes of their own, each with an account of its own, so that the API
server's audit log tells who did what."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cluster_access import KubectlError
from control_plane import ControlPlane
from crd_objects import MANIFESTS
from operator_world import OperatorWorld

DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
THAT_STOPS = str(Path(__file__).with_name("operator_that_stops.py"))
IN_A_HURRY = str(Path(__file__).with_name("operator_in_a_hurry.py"))
LEASE = "perseid-operator"
ROLES = ("perseid-operator", "perseid-operator-leader-election")
Writes = Counter[tuple[str, str, int]]
"""How often which write was asked of the API server: verb, resource, HTTP status."""
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
ASIDE = ("leases", "events")
"""Whoever stands by writes Leases too; an Event only tells of what somebody did while he led, some moments later."""
SECONDS = 60.0
"""Longer than anything here takes on a busy machine: the longest is a Lease that runs out, 15 s and some."""


@dataclass
class Candidate:
    """One operator. `account` is its service account in the world's namespace."""

    account: str
    world: OperatorWorld
    process: asyncio.subprocess.Process
    log: Path

    @property
    def words(self) -> str:
        """What it has said."""
        return self.log.read_text()

    @property
    def has_led(self) -> bool:
        """Whether it leads, or did."""
        return "leads by the Lease" in self.words

    def last_said(self, words: str) -> datetime:
        """When it last said that."""
        line = next(line for line in reversed(self.words.splitlines()) if words in line)
        return datetime.fromisoformat(line.split()[0])

    @property
    def is_stopped(self) -> bool:
        """Whether a signal has stopped the process, which then waits for SIGCONT."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0] == "T"

    async def stop(self) -> None:
        """SIGSTOP; returns when it stands still."""
        self.process.send_signal(signal.SIGSTOP)
        await self.until(lambda: self.is_stopped, "stand still")

    def go_on(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    async def exit_code(self) -> int:
        """Wait for its end."""
        try:
            async with asyncio.timeout(SECONDS):
                return await self.process.wait()
        except TimeoutError:
            raise AssertionError(f"{self.account} does not end; its last words:\n{self.words[-3000:]}") from None

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until it does what is wanted of it."""
        try:
            async with asyncio.timeout(SECONDS):
                while not holds():
                    assert self.process.returncode is None, (
                        f"{self.account} should {what}, and has ended with {self.process.returncode}; its last words:\n"
                        f"{self.words[-3000:]}"
                    )
                    await asyncio.sleep(0.05)  # it is another process, which sets no event here
        except TimeoutError:
            raise AssertionError(f"{self.account} does not {what}; its last words:\n{self.words[-3000:]}") from None

    async def leads(self) -> None:
        """Wait until it leads."""
        await self.until(lambda: self.has_led, "lead")

    async def stands_by(self) -> None:
        """Wait until it has seen that somebody else leads."""
        await self.until(lambda: "is held by" in self.words, "stand by")

    def writes(self, cluster: ControlPlane) -> Writes:
        """What it has written to the API server, or tried to, but for `ASIDE`."""
        user = f"system:serviceaccount:{self.world.namespace}:{self.account}"
        found: Writes = Counter()
        for line in cluster.audit_log.read_text().splitlines():
            event = json.loads(line)
            at = event.get("objectRef", {})
            if event["user"]["username"] == user and event["verb"] in WRITES and at.get("resource") not in ASIDE:
                found[event["verb"], at.get("resource", ""), event["responseStatus"]["code"]] += 1
        return found


class Candidates:
    """Starts candidates in a world, and ends whichever are left."""

    def __init__(self, world: OperatorWorld) -> None:
        self._world = world
        self._started: list[Candidate] = []
        self._kubeconfigs: dict[str, Path] = {}

    async def start(self, account: str, *program: str, **settings: str) -> Candidate:
        """A process of `python -m perseid_operator`, or of another program that is the operator but for one thing."""
        kubeconfig = await self.admit(account)
        log = self._world.directory / f"{account}-{len(self._started)}.log"
        settings = {
            "KUBECONFIG": str(kubeconfig),
            "PERSEID_LEADER_ELECTION": "true",
            "PERSEID_LEASE_NAMESPACE": self._world.namespace,
            **settings,
        }
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-IS", str(DIE_WITH_PARENT), str(os.getpid())),
                *(sys.executable, *(program or ("-m", "perseid_operator"))),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self._world.environment(**settings)},
            )
        candidate = Candidate(account, self._world, process, log)
        self._started.append(candidate)
        return candidate

    async def admit(self, account: str) -> Path:
        """The kubeconfig of an account that has the rights which manifests/ gives, and no others."""
        if account not in self._kubeconfigs:
            self._kubeconfigs[account] = await asyncio.to_thread(self._admit, account)
        return self._kubeconfigs[account]

    async def close(self) -> None:
        """Kill them, the stopped ones too."""
        for candidate in self._started:
            if candidate.process.returncode is None:
                candidate.process.kill()
            await candidate.process.wait()

    def _admit(self, account: str) -> Path:
        cluster, namespace = self._world.cluster, self._world.namespace
        for file in ("service-account.yaml", "role.yaml", "leader-election.yaml"):
            cluster.kubectl("apply", "-n", namespace, "-f", str(MANIFESTS / "base" / file))
        if account != "perseid-operator":
            cluster.kubectl("create", "serviceaccount", account, "-n", namespace)
            for role in ROLES:
                binding = ("create", "rolebinding", f"{role}-{account}", f"--role={role}")
                cluster.kubectl(*binding, f"--serviceaccount={namespace}:{account}", "-n", namespace)
        self._wait_for_rights(account)
        return cluster.service_account_kubeconfig(namespace, account)

    def _wait_for_rights(self, account: str) -> None:
        """The API server takes a moment to notice a new Role, and refuses until then."""
        whose = f"--as=system:serviceaccount:{self._world.namespace}:{account}"
        for right in ("watch evolutionruns.perseid.dev", f"update leases.coordination.k8s.io/{LEASE}"):
            deadline = time.monotonic() + SECONDS
            while True:
                try:
                    self._world.cluster.kubectl("auth", "can-i", *right.split(), whose, "-n", self._world.namespace)
                    break
                except KubectlError:  # it answers no by its exit code
                    assert time.monotonic() < deadline, f"the Roles do not allow {account} to {right}"
                    time.sleep(0.1)
