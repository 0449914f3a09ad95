"""A real Kubernetes control plane for tests and benchmarks: etcd, kube-apiserver and kube-controller-manager.

There are no nodes: objects are stored, validated, authorized, watched and garbage collected, and no pod ever runs.

    python tests/cluster/control_plane.py build    # the programs, so that no test waits for them
    python tests/cluster/control_plane.py run      # one to try things on, until Ctrl-C
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

from cluster_access import Cluster, write_kubeconfig
from cluster_binaries import Binaries, NoControlPlaneError, find_kubectl, find_or_build
from cluster_programs import Program, Starter, reserve_port

KUBECONFIG_VARIABLE = "PERSEID_TEST_KUBECONFIG"
REQUEST_SECONDS = 10.0
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
)
"""What runs without nodes and without a pod: the rest would only take memory."""


_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


class ControlPlane(Cluster):
    """A control plane of our own. It ends with `stop`, or with this process, even by SIGKILL."""

    def __init__(self, binaries: Binaries, directory: Path) -> None:
        super().__init__(directory / "admin.kubeconfig", binaries.kubectl, directory)
        self.has_controllers = binaries.kube_controller_manager is not None
        self._token = secrets.token_hex(32)
        self._starter = Starter()
        self._etcd_port, self._port, self._controllers_port = reserve_port(), reserve_port(), reserve_port()
        self._certificates = directory / "certificates"
        self._etcd = self._program(self._etcd_command(binaries.etcd), self._etcd_is_healthy)
        self._api_server = self._program(
            self._api_server_command(binaries.kube_apiserver), lambda: self._answers("/readyz")
        )
        self._controllers = (
            self._program(self._controllers_command(binaries.kube_controller_manager), self._controllers_work)
            if binaries.kube_controller_manager is not None
            else None
        )

    @property
    def url(self) -> str:
        """Where the API server listens, also while it is down."""
        return f"https://{_address(self._port)}"

    @property
    def audit_log(self) -> Path:
        """What service accounts of tests' namespaces have asked of the API server: audit events, a line each."""
        return self._directory / "audit.log"

    @property
    def pids(self) -> dict[str, int]:
        """The processes that run now, by their programs' names."""
        return {program.name: program.pid for program in self._programs() if program.pid is not None}

    def start(self) -> Self:
        """Start everything and wait until it is ready. Raises StartFailedError; nothing runs then."""
        self._directory.joinpath("tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")
        self._directory.joinpath("audit.json").write_text(json.dumps(_AUDIT_POLICY))
        try:
            self._etcd.start()
            self._api_server.start()
            authority = base64.b64encode(self._authority().read_bytes()).decode()
            cluster = {"server": self.url, "certificate-authority-data": authority}
            write_kubeconfig(self.kubeconfig, cluster, "admin", self._token, "default")
            if self._controllers is not None:
                self._controllers.start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End everything at once and throw the data away; the logs stay."""
        for program in reversed(self._programs()):
            program.kill()
        self._starter.close()
        for port in (self._etcd_port, self._port, self._controllers_port):
            port.close()
        shutil.rmtree(self._directory / "etcd", ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def restart_api_server(self) -> None:
        """Stop the API server and start it again: the same address, certificates, tokens and objects."""
        with self.api_server_down():
            pass

    @contextlib.contextmanager
    def api_server_down(self, *, killed: bool = False) -> Iterator[None]:
        """No API server while the block runs: connections are refused, nothing stored is lost. It ends by a signal."""
        if killed:
            self._api_server.kill()
        else:
            self._api_server.stop()
        try:
            yield
        finally:
            self._api_server.start()

    @contextlib.contextmanager
    def api_server_paused(self) -> Iterator[None]:
        """An API server that takes connections and answers nothing while the block runs."""
        with self._api_server.paused():
            yield

    def notice_new_kinds(self) -> None:
        """Have the garbage collector look for new kinds now, by a restart: it looks then, and every 30 s."""
        if self._controllers is not None:
            self._controllers.kill()
            self._controllers.start()

    def _programs(self) -> list[Program]:
        programs = [self._etcd, self._api_server, self._controllers]
        return [program for program in programs if program is not None]

    def _program(self, command: list[str], ready: Callable[[], bool]) -> Program:
        log = self._directory / f"{Path(command[0]).name}.log"
        return Program(command, log, self._starter, ready)

    def _etcd_command(self, path: Path) -> list[str]:
        client = f"http://{_address(self._etcd_port)}"
        return [
            str(path),
            f"--data-dir={self._directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            "--listen-peer-urls=http://127.0.0.1:0",  # It has no peers.
            "--socket-reuse-port",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _api_server_command(self, path: Path) -> list[str]:
        # It makes its certificate itself, unless that is there from the start before, and reads its keys after that.
        key = self._certificates / "apiserver.key"
        return [
            str(path),
            f"--etcd-servers=http://{_address(self._etcd_port)}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # No pod needs to find it, and a loopback address is refused.
            f"--secure-port={_number(self._port)}",
            "--permit-port-sharing",
            f"--cert-dir={self._certificates}",
            f"--token-auth-file={self._directory / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            f"--audit-policy-file={self._directory / 'audit.json'}",
            f"--audit-log-path={self.audit_log}",
            # Without it, SIGTERM ends the API server only after a minute: it waits for its clients' watches.
            "--shutdown-watch-termination-grace-period=2s",
        ]

    def _controllers_command(self, path: Path) -> list[str]:
        return [
            str(path),
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={','.join(CONTROLLERS)}",
            f"--root-ca-file={self._authority()}",
            f"--service-account-private-key-file={self._certificates / 'apiserver.key'}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={_number(self._controllers_port)}",
            "--permit-port-sharing",
            f"--cert-dir={self._certificates}",
            # Namespaces and owned objects should go as fast as tests make them.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ]

    def _authority(self) -> Path:
        return self._certificates / "apiserver.crt"

    def _etcd_is_healthy(self) -> bool:
        return _is_ok(http.client.HTTPConnection(_address(self._etcd_port), timeout=REQUEST_SECONDS), "/health", {})

    def _controllers_work(self) -> bool:
        certificate = self._certificates / "kube-controller-manager.crt"
        healthy = _is_ok_by_https(self._controllers_port, certificate, "/healthz", {})
        return healthy and self._answers("/api/v1/namespaces/default/serviceaccounts/default")

    def _answers(self, path: str) -> bool:
        return _is_ok_by_https(self._port, self._authority(), path, {"Authorization": f"Bearer {self._token}"})

    def _trouble(self) -> str:
        ended = [program for program in self._programs() if program.pid is None]
        return "".join(f"\n{program.name} does not run; {program.end_of_log()}" for program in ended)


def _number(port: socket.socket) -> int:
    number: int = port.getsockname()[1]
    return number


def _address(port: socket.socket) -> str:
    return f"127.0.0.1:{_number(port)}"


def _is_ok_by_https(port: socket.socket, authority: Path, path: str, headers: Mapping[str, str]) -> bool:
    try:
        trust = ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError):
        return False  # The program has not written its certificate yet, or not all of it.
    return _is_ok(http.client.HTTPSConnection(_address(port), timeout=REQUEST_SECONDS, context=trust), path, headers)


def _is_ok(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str]) -> bool:
    try:
        connection.request("GET", path, headers=dict(headers))
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def open_cluster(
    environment: Mapping[str, str], directory: Path, say: Callable[[str], None]
) -> contextlib.AbstractContextManager[Cluster]:
    """The cluster that `environment` names, or a control plane of our own, started when the context is entered.

    Raises NoControlPlaneError where neither can be had, FileNotFoundError for a kubeconfig that is not there, and what
    `find_or_build` raises.
    """
    named = environment.get(KUBECONFIG_VARIABLE)
    if not named:
        return ControlPlane(find_or_build(environment, say), directory)
    if not Path(named).is_file():
        raise FileNotFoundError(f"{KUBECONFIG_VARIABLE} names {named}, which is no file; correct or unset it")
    return contextlib.nullcontext(Cluster(Path(named), find_kubectl(environment), directory))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _build() -> None:
    if os.environ.get(KUBECONFIG_VARIABLE):
        with contextlib.suppress(NoControlPlaneError):
            find_kubectl(os.environ)
            return  # The tests go to that cluster, and need no more than this.
    find_or_build(os.environ, _say)


def _run() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    binaries = find_or_build(os.environ, _say)
    with (
        tempfile.TemporaryDirectory(prefix="perseid-control-plane-") as directory,
        ControlPlane(binaries, Path(directory)) as plane,
        contextlib.suppress(KeyboardInterrupt),
    ):
        print(json.dumps({"url": plane.url, "kubeconfig": str(plane.kubeconfig), "pids": plane.pids}), flush=True)
        signal.pause()


def main() -> None:
    """Build the programs, or run a control plane until a signal."""
    parser = argparse.ArgumentParser(description="A Kubernetes control plane for tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the programs, unless the tests need none or they are there already")
    commands.add_parser("run", help="start one, print its address, kubeconfig and processes as JSON, end it by Ctrl-C")
    arguments = parser.parse_args()
    try:
        if arguments.command == "build":
            _build()
        else:
            _run()
    except NoControlPlaneError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
