"""A cluster as a user has one: kubectl and helm, and kind to make it.

kind takes docker or podman (`KIND_EXPERIMENTAL_PROVIDER`) and the node image that `PERSEID_KIND_NODE_IMAGE` names;
default: kind's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODE_IMAGE_VARIABLE = "PERSEID_KIND_NODE_IMAGE"
KEPT_CLUSTER_VARIABLE = "PERSEID_E2E_CLUSTER"
"""Names a kind cluster that has the images: for whoever works on these tests, and does not want to wait."""
SPARE = "perseid.dev/spare"
"""Label and taint of the node that a test may kill."""
NODES = f"""
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    kubeadmConfigPatches:
      - |
        kind: InitConfiguration
        nodeRegistration: {{taints: []}}
  - role: worker
    labels: {{{SPARE}: "true"}}
    kubeadmConfigPatches:
      - |
        kind: JoinConfiguration
        nodeRegistration: {{taints: [{{key: {SPARE}, effect: NoSchedule}}]}}
"""
"""Everything runs beside the control plane, as with one node; to the spare one goes only what asks for it."""
KIND_SECONDS = 1800
"""For one command of kind's: loading an image of gigabytes takes minutes."""


class CommandError(RuntimeError):
    """A command failed; the message is what it said."""


@dataclass(frozen=True)
class Cluster:
    """Whatever the kubeconfig leads to."""

    kubeconfig: Path
    kubectl_program: Path
    helm_program: Path
    engine: str | None = None
    """What runs the nodes, where they are containers."""
    name: str | None = None
    """By which kind knows it, where it does."""

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = 120) -> str:
        """Raises CommandError."""
        return _run([str(self.kubectl_program), *arguments], self._environment, stdin, seconds)

    def helm(self, *arguments: str, seconds: float = 300) -> str:
        """Raises CommandError."""
        return _run([str(self.helm_program), *arguments], self._environment, None, seconds)

    def apply(self, *objects: Mapping[str, Any], namespace: str | None = None) -> None:
        """As `kubectl apply -f` does with a file. `namespace`: of objects that name none."""
        text = "\n---\n".join(json.dumps(one) for one in objects)
        where = [] if namespace is None else ["--namespace", namespace]
        self.kubectl("apply", *where, "--filename", "-", stdin=text)

    def get(self, kind: str, *arguments: str, namespace: str = "default") -> dict[str, Any]:
        """One object, or a list. Raises CommandError where it is not there."""
        found: dict[str, Any] = json.loads(
            self.kubectl("get", kind, *arguments, "--namespace", namespace, "--output", "json")
        )
        return found

    def pods(self, selector: str, namespace: str) -> list[dict[str, Any]]:
        """The pods that carry these labels, the oldest first."""
        items: list[dict[str, Any]] = self.get("pods", "--selector", selector, namespace=namespace)["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def spare_node(self) -> str | None:
        """Name of the node that nothing needs; None where there is none."""
        nodes = self.get("nodes", f"--selector={SPARE}=true")["items"]
        return str(nodes[0]["metadata"]["name"]) if nodes and self.engine is not None else None

    def kill_node(self, name: str) -> None:
        """As a cut of the power does: nothing on it ends in order, and nobody tells the API server."""
        assert self.engine is not None
        _run([self.engine, "kill", name], os.environ, None, 60)

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}


def eventually(found: Callable[[], Any], what: str, seconds: float, tell: Callable[[], str] = str) -> Any:
    """What `found` returns as soon as that is true. There is nothing to wait on but the cluster's answers."""
    deadline = time.monotonic() + seconds
    refused = ""
    while True:
        try:
            if answer := found():
                return answer
        except CommandError as error:  # an API server under load refuses now and then
            refused = str(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}\n{refused}\n{tell()}")
        time.sleep(0.5)


def missing_for_kind(engine: str | None) -> str | None:
    """Why no cluster can be made here; None where one can."""
    if engine is None:
        return "neither docker nor podman can be used: start docker, or install podman"
    if shutil.which("kind") is None:
        return "the command kind is missing: https://kind.sigs.k8s.io, or go install sigs.k8s.io/kind@latest"
    image = os.environ.get(NODE_IMAGE_VARIABLE)
    if image and _fails([engine, "image", "inspect", image]):
        return f"{NODE_IMAGE_VARIABLE} names {image}, and {engine} has no such image"
    return None


@contextlib.contextmanager
def kind_cluster(name: str, engine: str, kubectl: Path, helm: Path, kubeconfig: Path) -> Iterator[Cluster]:
    """A new cluster, that is deleted afterwards: a node that has it all, and a spare one."""
    _kind(engine, "delete", "cluster", "--name", name)
    image = os.environ.get(NODE_IMAGE_VARIABLE)
    options = ["--image", image] if image else []
    nodes = kubeconfig.with_name("nodes.yaml")
    nodes.write_text(NODES)
    try:
        _kind(
            engine, "create", "cluster", "--name", name, "--config", str(nodes), "--kubeconfig", str(kubeconfig),
            "--wait", "3m", *options,
        )  # fmt: skip
        yield Cluster(kubeconfig, kubectl, helm, engine, name)
    finally:
        _kind(engine, "delete", "cluster", "--name", name, "--kubeconfig", str(kubeconfig))


def kept_cluster(name: str, engine: str, kubectl: Path, helm: Path, kubeconfig: Path) -> Cluster:
    """One that is there, with the images in it. Raises CommandError where it is not."""
    _kind(engine, "export", "kubeconfig", "--name", name, "--kubeconfig", str(kubeconfig))
    return Cluster(kubeconfig, kubectl, helm, engine, name)


def load_archive(name: str, engine: str, archive: Path, *, spare: bool) -> None:
    """Give the cluster's nodes the images of an archive; the spare one only if that is asked for."""
    nodes = [] if spare else ["--nodes", f"{name}-control-plane"]
    _kind(engine, "load", "image-archive", "--name", name, *nodes, str(archive))


def _kind(engine: str, *arguments: str) -> None:
    environment = {**os.environ, "KIND_EXPERIMENTAL_PROVIDER": engine}
    _run(["kind", *arguments], environment, None, KIND_SECONDS)


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


def _run(command: list[str], environment: Mapping[str, str], stdin: str | None, seconds: float) -> str:
    try:
        done = subprocess.run(
            command, env=dict(environment), input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(command[:4])} did not end within {seconds:g} s") from error
    if done.returncode != 0:
        raise CommandError(f"{' '.join(command)[:300]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
