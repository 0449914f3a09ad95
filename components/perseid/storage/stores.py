"""Opens a storage URI, the same way for whoever reads or writes.

Credentials and endpoint come from the environment, as in every S3 client: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT or AWS_ENDPOINT_URL; in their absence a pod's web identity or the machine's
role. obstore opens `gs://` and `az://`, too, and they are refused: commits are conditional on ETags, Google's are on
generations, and nobody has tried Azure's.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from typing import Any

from obstore.exceptions import (
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import from_url

from perseid.api.layout import StorageError
from perseid.storage.errors import StorageRefusedError

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_ENDPOINT_URL")
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")
_REFUSALS = {
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}


class Patience(Enum):
    """How long an outage of the storage is waited for before an error: retries of one request, and seconds."""

    LOOK = (2, 10)
    """Somebody waits for the answer, or asks again anyway."""
    WORK = (8, 60)
    """A stage is at work, and would lose its work."""


def open_store(uri: str, patience: Patience = Patience.WORK) -> Any:
    """An obstore store whose root is `uri`. Nothing is asked of it yet. Raises StorageError for what is no storage."""
    if not uri.startswith("s3://"):
        raise StorageError(
            f"{uri} is no object storage that Perseid can use; write s3://bucket/prefix, or the path of a directory"
        )
    retries, seconds = patience.value
    # No limit on a whole request, which may carry gigabytes, but one on silence.
    silence = timedelta(seconds=min(60, 2 * seconds))
    try:
        return from_url(
            uri,
            client_options={
                "allow_http": _plain_http_is_wanted(),
                "connect_timeout": timedelta(seconds=5),
                "read_timeout": silence,
                "timeout": timedelta(days=1),
            },
            retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=seconds)},
        )
    except (BaseError, ValueError) as error:
        raise StorageError(f"{uri} is no storage that can be opened: {_said(error)}") from error


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what obstore raises into a StorageError about `uri`. FileNotFoundError and conflicts pass."""
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise _no_bucket(uri) from error
        raise
    except (BaseError, OSError, ValueError) as error:
        raise _explanation(uri, error) from error


def _explanation(uri: str, error: Exception) -> StorageError:
    text = str(error)
    found = _CODE.search(text)
    code = "" if found is None else found.group(1)
    if code == "NoSuchBucket":
        return _no_bucket(uri)
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or code in _REFUSALS:
        return StorageRefusedError(
            f"the storage {uri} refuses these credentials ({code or 'access denied'}); check AWS_ACCESS_KEY_ID,"
            " AWS_SECRET_ACCESS_KEY and AWS_REGION in this process's environment, and what they may do there: list,"
            " read, write and delete objects"
        )
    if "169.254.169.254" in text:
        return StorageRefusedError(
            f"there are no credentials for the storage {uri}: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor a"
            " web identity is in the environment, and this machine has no role of its own"
        )
    if code in {"NotImplemented", "MethodNotAllowed"}:
        return StorageRefusedError(
            f"the storage {uri} lacks something that is needed ({code}): conditional writes (If-Match, If-None-Match),"
            " multipart uploads, copies"
        )
    return StorageError(
        f"the storage {uri} cannot be used: {_said(error)}; check that it is up, AWS_ENDPOINT (http:// only where it"
        " says so), AWS_REGION, and the network between"
    )


def _no_bucket(uri: str) -> StorageRefusedError:
    bucket = uri.partition("://")[2].partition("/")[0]
    return StorageRefusedError(f"the storage {uri} is not there: no bucket {bucket}; create it, or correct the URI")


def _said(error: Exception) -> str:
    """What a storage said, in one line: an error's text also holds the whole answer and the request's history."""
    text = str(error)
    code, message = _CODE.search(text), _MESSAGE.search(text)
    if code is not None:
        return f"{code.group(1)}: {message.group(1)}" if message is not None else code.group(1)
    return " ".join(text.partition("Debug source:")[0].split())[:300]


def _plain_http_is_wanted() -> bool:
    """Whoever names an endpoint without TLS means it."""
    return any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)
