"""One HTTP exchange with KFP: headers, time-outs, and what a failure means."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

import aiohttp
from pydantic_core import from_json

from perseid_operator.kfp.errors import (
    KfpRateLimitedError,
    KfpServerError,
    KfpSettingsError,
    KfpUnauthorizedError,
    KfpUnreachableError,
    UnreachableKind,
)
from perseid_operator.kfp.settings import KfpSettings
from perseid_operator.kfp.token import TokenFile

log = logging.getLogger(__name__)

OnRequest = Callable[[str, str, float], None]
"""Told of every exchange: operation, HTTP status or kind of failure, seconds."""

MAX_CONNECTIONS = 16
MAX_WORDS = 600
"""How much of an answer's text goes into a message."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @cached_property
    def data(self) -> Any:
        """The JSON in it; None where it is none."""
        try:
            # Lists are megabytes of pipelines whose names are all the same.
            return from_json(self.body, cache_strings="keys")
        except ValueError:
            return None

    @property
    def code(self) -> int | None:
        """KFP's own error code (gRPC's); None where the answer is not KFP's."""
        data = self.data
        code = data.get("code") if isinstance(data, dict) else None
        return code if isinstance(code, int) else None

    @property
    def text(self) -> str:
        """KFP's own words, or the beginning of whatever came."""
        data = self.data
        if isinstance(data, dict):
            for key in ("message", "error"):
                if isinstance(data.get(key), str) and data[key]:
                    return _clip(data[key])
        return _clip(self.body[: 2 * MAX_WORDS].decode(errors="replace"))


class Transport:
    """Sends requests, each exactly once, and translates whatever is neither an answer nor a refusal of KFP's."""

    def __init__(self, settings: KfpSettings, on_request: OnRequest | None) -> None:
        """Raises KfpSettingsError where the CA file cannot be used."""
        self._settings = settings
        self._on_request = on_request
        self._token = None if settings.token_file is None else TokenFile(settings.token_file)
        self._tls = _tls(settings)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        if settings.insecure:
            log.warning("the certificate of KFP at %s is not checked (insecure)", settings.endpoint)
        if self._token is not None and settings.endpoint.startswith("http://"):
            log.warning("the token for KFP goes to %s unencrypted", settings.endpoint)

    @property
    def where(self) -> str:
        """The server, for messages."""
        return f"KFP at {self._settings.endpoint}"

    async def close(self) -> None:
        """Close the connections."""
        while self._sessions:
            await self._sessions.popitem()[1].close()

    async def send(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        fresh: bool = False,
    ) -> Answer:
        """One exchange. `path` starts behind the API's root and is sent as it is; `body` is JSON; `fresh` makes a
        connection for this exchange alone.

        Raises KfpUnreachableError, KfpUnauthorizedError (401, 403, a redirection to a sign-in page) and
        KfpRateLimitedError (429); every other status is an answer.
        """
        headers = self._headers()
        started, code = time.monotonic(), "cancelled"
        try:
            # No redirection is followed: a sign-in page is no answer, and a POST must not be sent twice.
            async with self._open(fresh).request(
                method,
                self._settings.api_url + path,
                params=query,
                data=body,
                headers=headers,
                allow_redirects=False,
            ) as response:
                answer = Answer(response.status, await response.read(), response.headers)
            code = str(answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            translated = self._unreachable(error)
            code = translated.kind.value
            raise translated from None
        finally:
            if self._on_request is not None:
                self._on_request(operation, code, time.monotonic() - started)
        self._check_access(operation, answer)
        return answer

    def words(self, answer: Answer) -> str:
        """The answer's text, without the token in it."""
        return answer.text if self._token is None else self._token.redact(answer.text)

    def failure(self, operation: str, answer: Answer) -> KfpServerError:
        """An answer that nobody expected."""
        text = self.words(answer)
        if answer.status >= 500:
            advice = "look at the logs of its API server; asking again later may help"
        else:
            advice = "is the endpoint the root of the pipelines' API, and KFP 2.17 or newer?"
        message = f"{self.where} answered {operation} with {answer.status}: {text!r}; {advice}"
        return KfpServerError(message, status=answer.status, text=text)

    def _open(self, fresh: bool) -> aiohttp.ClientSession:
        if fresh not in self._sessions:
            self._sessions[fresh] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls, limit=MAX_CONNECTIONS, force_close=fresh),
                timeout=aiohttp.ClientTimeout(
                    total=self._settings.request_timeout, sock_connect=self._settings.connect_timeout
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._sessions[fresh]

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.read()}"
        if self._settings.user_id is not None:
            headers["kubeflow-userid"] = self._settings.user_id
        return headers

    def _check_access(self, operation: str, answer: Answer) -> None:
        if answer.status == 429:
            wait = _retry_after(answer.headers.get("Retry-After"))
            asked = "" if wait is None else f" for {wait:.0f} s"
            raise KfpRateLimitedError(f"{self.where} refuses requests{asked} (429): {self.words(answer)!r}", wait)
        if 300 <= answer.status < 400:
            raise KfpUnauthorizedError(
                f"{self.where} redirected {operation} to {answer.headers.get('Location', 'nowhere')!r}: that is a"
                f" sign-in page or another URL; it saw {self._identity()}. Give the API's own URL and a token that it"
                " takes"
            )
        if answer.status == 401:
            raise KfpUnauthorizedError(
                f"{self.where} does not know who asks (401 to {operation}): {self.words(answer)!r}; it saw"
                f" {self._identity()}. In multi-user mode the token needs the audience pipelines.kubeflow.org"
            )
        if answer.status == 403:
            namespace = self._settings.namespace
            place = "" if namespace is None else f" in the namespace {namespace}"
            raise KfpUnauthorizedError(
                f"{self.where} does not allow {operation}{place} (403): {self.words(answer)!r}; it saw"
                f" {self._identity()}. Bind a role with the pipelines' verbs to that account"
            )

    def _identity(self) -> str:
        seen = []
        if self._token is not None:
            seen.append(self._token.describe())
        if self._settings.user_id is not None:
            seen.append(f"the user {self._settings.user_id} (header kubeflow-userid)")
        return " and ".join(seen) or "no credentials (no token file is set)"

    def _unreachable(self, error: Exception) -> KfpUnreachableError:
        settings = self._settings
        match error:
            case aiohttp.ClientConnectorDNSError():
                kind, said = UnreachableKind.DNS, "its host name is not known; check the endpoint and the DNS"
            case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | ssl.SSLError():
                kind = UnreachableKind.TLS
                said = (
                    f"TLS failed: {error}; check its certificate and the CA file ({settings.ca_file or 'the system'})"
                )
            case aiohttp.ConnectionTimeoutError():
                kind = UnreachableKind.CONNECT_TIMEOUT
                said = f"no connection within {settings.connect_timeout:g} s; is a network policy in the way?"
            case aiohttp.ClientConnectorError():
                kind = UnreachableKind.REFUSED
                said = f"no connection ({error.strerror or error}); is the API server up, and the port right?"
            case TimeoutError():
                kind = UnreachableKind.TIMEOUT
                said = f"no answer within {settings.request_timeout:g} s; it may still carry out what it was asked"
            case _:
                kind = UnreachableKind.RESET
                said = f"the connection broke ({error or type(error).__name__}); was the API server restarted?"
        return KfpUnreachableError(f"{self.where} cannot be reached: {said}", kind)


def _tls(settings: KfpSettings) -> ssl.SSLContext | bool:
    if settings.insecure:
        return False
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise KfpSettingsError(f"the CA file {settings.ca_file} for KFP cannot be used: {error}") from None


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, from either form of the header."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _clip(text: str) -> str:
    return text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 1] + "…"
