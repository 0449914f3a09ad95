"""The service account token that proves to KFP who asks."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from perseid_operator.kfp.errors import KfpUnauthorizedError


class TokenFile:
    """A token in a file that somebody else renews. Each use looks at the file and reads it where it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._token = ""

    def read(self) -> str:
        """The token as it is now. Raises KfpUnauthorizedError where there is none that could be sent."""
        try:
            # Follows links: the kubelet renews a projected token by turning a link over.
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp != self._stamp:
                self._token = self._path.read_bytes().decode("ascii").strip()
                self._stamp = stamp
        except OSError as error:
            self._stamp = None
            raise KfpUnauthorizedError(
                f"the token file {self._path} cannot be read ({error.strerror}); mount a projected service account"
                " token there"
            ) from None
        except UnicodeDecodeError:
            self._stamp = None
            raise KfpUnauthorizedError(f"the token file {self._path} is not a token: it is not ASCII") from None
        if not self._token or not self._token.isprintable() or " " in self._token:
            self._stamp = None
            raise KfpUnauthorizedError(f"the token file {self._path} is empty or not a single token")
        return self._token

    def describe(self) -> str:
        """Whose token it is and where it lies, for messages; never the token."""
        account = _subject(self._token)
        return f"{'a token of no known account' if account is None else account} (token file {self._path})"

    def redact(self, text: str) -> str:
        """The text without the token in it."""
        return text.replace(self._token, "[token]") if self._token else text


def _subject(token: str) -> str | None:
    """The account that a JWT names. Not verified: it is for messages."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        subject = claims["sub"]
    except (IndexError, ValueError, KeyError, TypeError):
        return None
    return subject if isinstance(subject, str) else None
