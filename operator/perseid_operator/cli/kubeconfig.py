"""Which cluster is meant: the rules of kubectl.

A file that is named wins, then those of the variable KUBECONFIG, then `~/.kube/config`, then the pod's own service
account.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config.config_exception import ConfigException
from kubernetes_asyncio.config.incluster_config import SERVICE_HOST_ENV_NAME

from perseid_operator.cli.errors import ClusterError

HOME_FILE = "~/.kube/config"
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster and who asks it."""

    client: ApiClient
    namespace: str
    """Of the context, where it names one, else `default`."""
    source: str
    """Where it was found, for messages: `context lab in /home/me/.kube/config`."""


async def open_target(kubeconfig: Path | None, context: str | None) -> Target:
    """The cluster that is meant. Raises ClusterError where none is, or the files cannot be used."""
    files = _files(kubeconfig)
    if files:
        return await _from_files(files, context)
    if os.environ.get(SERVICE_HOST_ENV_NAME):
        return _from_pod(context)
    looked = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or HOME_FILE
    raise ClusterError(
        f"there is no kubeconfig: {looked} does not exist, and this is no pod of a cluster. Name the file with"
        " --kubeconfig or the variable KUBECONFIG; the tool of your cluster's provider writes one."
    )


def _files(kubeconfig: Path | None) -> list[Path]:
    if kubeconfig is not None:
        if not kubeconfig.is_file():
            raise ClusterError(f"--kubeconfig is {kubeconfig}, but there is no such file")
        return [kubeconfig]
    named = os.environ.get("KUBECONFIG") or HOME_FILE
    candidates = [Path(one).expanduser() for one in named.split(os.pathsep) if one]
    return [one for one in candidates if one.is_file()]


async def _from_files(files: list[Path], context: str | None) -> Target:
    where = os.pathsep.join(map(str, files))
    contents = [_content(file) for file in files]
    contexts = _contexts(contents)
    # kubectl takes the first file's choice; the client's own merging would take the last one's.
    chosen = context or next((one["current-context"] for one in contents if one.get("current-context")), None)
    if chosen is None:
        raise ClusterError(
            f"{where} has no current-context; choose one with `kubectl config use-context NAME` or --context"
            f" ({_among(contexts)})"
        )
    if chosen not in contexts:
        raise ClusterError(f"{where} has no context {chosen} ({_among(contexts)})")
    configuration = Configuration()
    try:
        await config.load_kube_config(
            config_file=where, context=chosen, client_configuration=configuration, persist_config=True
        )
    except (ConfigException, AssertionError, KeyError, TypeError, ValueError, OSError) as error:
        what = str(error) or type(error).__name__
        raise ClusterError(f"the context {chosen} in {where} cannot be used: {what}") from error
    namespace = contexts[chosen].get("namespace") or "default"
    return Target(ApiClient(configuration=configuration), str(namespace), f"context {chosen} in {where}")


def _content(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClusterError(f"the kubeconfig {file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ClusterError(f"{file} is no kubeconfig: it holds no mapping with clusters, users and contexts")
    return content


def _contexts(contents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for content in contents:
        for entry in content.get("contexts") or []:
            if isinstance(entry, dict) and isinstance(entry.get("context"), dict):
                found.setdefault(str(entry.get("name")), entry["context"])
    return found


def _among(contexts: dict[str, dict[str, Any]]) -> str:
    return f"it has {', '.join(sorted(contexts))}" if contexts else "it has none"


def _from_pod(context: str | None) -> Target:
    if context is not None:
        raise ClusterError(f"--context is {context}, but there is no kubeconfig; leave it out inside a cluster")
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise ClusterError(f"the pod's service account cannot be used: {error}") from error
    namespace = POD_NAMESPACE.read_text().strip() if POD_NAMESPACE.is_file() else "default"
    return Target(ApiClient(configuration=configuration), namespace, "the pod's service account")
