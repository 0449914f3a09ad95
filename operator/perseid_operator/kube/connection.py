"""The way to the API server: one request at a time, JSON in and out, and what a failure means.

No client library: the operator reads and writes four kinds of objects, and the models of all the others would weigh
half as much as everything else in its process.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from pydantic_core import from_json, to_json

from perseid_operator.kube.protocol import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
    UnavailableError,
)

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
TIMEOUT_SECONDS = 30.0
CONNECT_SECONDS = 5.0
MAX_CONNECTIONS = 32
"""As many requests as the operator has under way at once; others wait for their turn."""
MAX_WORDS = 500
"""How much of an answer goes into a message."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is, and who asks."""

    server: str
    """Its URL."""
    tls: ssl.SSLContext | None = None
    """None for a server without TLS."""
    headers: Callable[[], Mapping[str, str]] = dict
    """Credentials, asked for with each request: a service account's token is renewed in its file."""
    proxy: str | None = None


def path_of(*parts: str) -> str:
    """A path of names. A name is never more than one step, whatever is in it."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


class Connection:
    """Asks the API server. Every call is one request with a time-out; nothing is tried again here."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(
        self,
        what: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
    ) -> Any:
        """The JSON that comes back. `what` says in a message what could not be done.

        Raises KubeErrors and nothing else.
        """
        headers = {"Accept": JSON, "Content-Type": content_type, **self._access.headers()}
        data = None if body is None else to_json(body)
        try:
            async with self._opened().request(
                method,
                self._access.server.rstrip("/") + path,
                params=query,
                data=data,
                headers=headers,
                proxy=self._access.proxy,
                allow_redirects=False,
            ) as response:
                answer = await response.read()
                status, reason, wait = response.status, response.reason, response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(
                f"cannot {what}: the API server does not answer ({type(error).__name__}: {error})"
            ) from error
        if status >= 300:
            raise _failure(what, status, f"{reason}: {answer[:MAX_WORDS].decode(errors='replace')}", wait)
        try:
            # The same names stand in every object: kept once, a thousand objects weigh a third less.
            return from_json(answer, cache_strings="all")
        except ValueError as error:
            raise UnavailableError(f"cannot {what}: the answer is no JSON ({error})") from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._access.tls or True, limit=MAX_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS, sock_connect=CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _failure(what: str, status: int, words: str, wait: str | None) -> KubeError:
    said = f"cannot {what}: {status} {words}"
    match status:
        case 404 | 410:
            return NotFoundError(said)
        case 409:
            return ConflictError(said)
        case 401 | 403:
            return ForbiddenError(said)
        case 400 | 413 | 422:
            return InvalidError(said)
    return UnavailableError(said, float(wait) if wait and wait.isdigit() else None)
