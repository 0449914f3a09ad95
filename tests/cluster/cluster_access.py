"""What tests do with a cluster, whoever runs it: kubectl, a client, identities."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient


class KubectlError(RuntimeError):
    """kubectl refused; the message is what it said."""


class Cluster:
    """A cluster that tests may use as its administrator. `kubeconfig` is for kubectl, kubernetes_asyncio and Kopf."""

    has_controllers = True
    """Whether owned objects and namespaces are collected."""

    def __init__(self, kubeconfig: Path, kubectl: Path, directory: Path) -> None:
        self.kubeconfig = kubeconfig
        self._kubectl = kubectl
        self._directory = directory

    @property
    def url(self) -> str:
        """Where the API server listens, https and without a path."""
        server: str = self._config()["clusters"][0]["cluster"]["server"]
        return server

    def kubectl(self, *arguments: str, input: str | None = None, kubeconfig: Path | None = None) -> str:
        """What kubectl prints, as administrator or as whom another kubeconfig names.

        It blocks: in a coroutine that shares its loop with an operator call it by `asyncio.to_thread`.

        Raises KubectlError.
        """
        environment = {**os.environ, "KUBECACHEDIR": str(self._directory / "kubectl-cache"), "KUBERC": "off"}
        command = [str(self._kubectl), f"--kubeconfig={kubeconfig or self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=input, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}{self._trouble()}")
        return done.stdout

    @contextlib.asynccontextmanager
    async def client(self, kubeconfig: Path | None = None) -> AsyncIterator[ApiClient]:
        """A client for the API classes of kubernetes_asyncio, as administrator or as whom another kubeconfig names."""
        from kubernetes_asyncio import config  # Whoever only builds need not wait a second for it.

        async with await config.new_client_from_config(config_file=str(kubeconfig or self.kubeconfig)) as client:
            yield client

    def service_account_kubeconfig(self, namespace: str, name: str, duration: str = "4h") -> Path:
        """The kubeconfig of a service account that exists, with a fresh token from the TokenRequest API.

        Who uses it may do what the roles bound to the account allow, and its contexts default to `namespace`.
        """
        token = self.kubectl("create", "token", name, "--namespace", namespace, "--duration", duration).strip()
        cluster = self._config()["clusters"][0]["cluster"]
        path = self._directory / f"{namespace}.{name}.{secrets.token_hex(4)}.kubeconfig"
        write_kubeconfig(path, cluster, name, token, namespace)
        return path

    def notice_new_kinds(self) -> None:
        """Have the garbage collector look for new kinds now.

        It looks every 30 s. Until then, what an object of a new custom resource owns outlives it. On somebody else's
        cluster this does nothing, and that must be waited for.
        """

    def _config(self) -> dict[str, Any]:
        printed = self.kubectl("config", "view", "--minify", "--flatten", "--raw", "--output=json")
        config: dict[str, Any] = json.loads(printed)
        return config

    def _trouble(self) -> str:
        """What is known to be wrong with the cluster itself, to be added to an error."""
        return ""


def write_kubeconfig(path: Path, cluster: Mapping[str, Any], user: str, token: str, namespace: str) -> None:
    """Write a kubeconfig with one context; `cluster` is what stands under a cluster's name there."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": dict(cluster)}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": namespace}}],
        "current-context": "test",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))  # JSON is YAML.
