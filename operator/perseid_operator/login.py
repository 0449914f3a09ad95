"""How the operator proves to Kubernetes who it is: by its pod's account, or by a kubeconfig outside a cluster."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping

import kopf
import yaml

from perseid_operator.kube.connection import Access
from perseid_operator.kube.protocol import KubeError

log = logging.getLogger(__name__)

REFRESH_SECONDS = 60.0
"""How long a token is used before it is read again: the kubelet renews it in its file."""


async def log_in() -> kopf.ConnectionInfo:
    """The pod's own account; outside of a pod the kubeconfig's current context (KUBECONFIG, or kubectl's own file).

    Raises KubeError where there is neither, or the kubeconfig cannot be used.
    """
    settings, logger = kopf.OperatorSettings(), logging.getLogger("kopf.login")
    try:
        info = kopf.login_with_service_account(settings=settings, logger=logger)
        info = info or kopf.login_with_kubeconfig(settings=settings, logger=logger)
        if info is not None and not _has_credentials(info):
            # A command gets them, as with most clouds. The library that can run it weighs 34 MB, which no pod needs, so
            # the operator's start holds it back.
            sys.modules.pop("kubernetes_asyncio", None)
            info = await kopf.login_via_async_client(settings=settings, logger=logger)
    except (kopf.LoginError, yaml.YAMLError, OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        # Kopf does not check what it reads; whatever comes of that means a file that is no kubeconfig.
        raise KubeError(
            f"the kubeconfig cannot be used ({type(error).__name__}: {error}); `kubectl config view` shows it"
        ) from error
    if info is None or not info.server:
        raise KubeError("the operator runs in no pod and finds no kubeconfig that it can use; set KUBECONFIG")
    return info


def _has_credentials(info: kopf.ConnectionInfo) -> bool:
    return bool(info.token or info.username or info.certificate_path or info.certificate_data)


async def access(clock: Callable[[], float] = time.monotonic) -> Access:
    """The way to the API server. Raises KubeError, also for certificates that are none."""
    info = await log_in()
    try:
        tls = info.as_ssl_context() if info.server.startswith("https://") else None
    except (OSError, ValueError) as error:
        raise KubeError(f"the certificates for the API server cannot be used: {error}") from error
    return Access(server=info.server, tls=tls, headers=_Headers(info, clock), proxy=info.proxy_url)


class _Headers:
    """The credentials as headers, with a service account's token as it is now."""

    def __init__(self, info: kopf.ConnectionInfo, clock: Callable[[], float]) -> None:
        self._headers: Mapping[str, str] = info.as_http_headers()
        self._clock = clock
        self._read_at = clock()

    def __call__(self) -> Mapping[str, str]:
        if self._clock() - self._read_at >= REFRESH_SECONDS:
            self._read_at = self._clock()
            try:
                renewed = kopf.login_with_service_account(settings=kopf.OperatorSettings(), logger=log)
            except OSError as error:
                log.warning("the service account's token cannot be read again: %s", error)
            else:
                self._headers = self._headers if renewed is None else renewed.as_http_headers()
        return self._headers
