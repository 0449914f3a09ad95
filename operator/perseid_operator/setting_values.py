"""Reading environment variables: each value is checked, and every mistake is kept until all have been looked at."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CREDENTIALS = re.compile(r"//[^/@\s]*@")
_SHOWN = 120
"""How many characters of a value a message repeats."""


class SettingsError(ValueError):
    """Settings that the operator cannot start with. `mistakes` are (variable, what is wrong and what is allowed)."""

    def __init__(self, mistakes: Sequence[tuple[str, str]]) -> None:
        self.mistakes = tuple(mistakes)
        lines = "".join(f"\n  {variable}: {what}" for variable, what in self.mistakes)
        super().__init__(f"the operator cannot start with these settings (environment variables):{lines}")


class Reader:
    """Reads variables. Where one is mistaken it gives a default and keeps the mistake for `raise_mistakes`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._mistakes: list[tuple[str, str]] = []

    def mistake(self, variable: str, what: str) -> None:
        """Keep a mistake."""
        self._mistakes.append((variable, what))

    def is_mistaken(self, variable: str) -> bool:
        """Whether a mistake of that variable is known."""
        return any(known == variable for known, _ in self._mistakes)

    def raise_mistakes(self) -> None:
        """Raises SettingsError where there was any."""
        if self._mistakes:
            raise SettingsError(self._mistakes)

    def text(self, variable: str) -> str | None:
        """The value without blanks around it; None where there is none."""
        return self._environ.get(variable, "").strip() or None

    def required(self, variable: str, allowed: str) -> str | None:
        """The value; None, and a mistake, where there is none."""
        value = self.text(variable)
        if value is None:
            self.mistake(variable, f"is not set; give {allowed}")
        return value

    def seconds(self, variable: str, default: float, at_most: float) -> float:
        """A time above 0."""
        value = self.optional_seconds(variable, at_most)
        return default if value is None else value

    def optional_seconds(self, variable: str, at_most: float) -> float | None:
        """A time above 0; None where there is none."""
        value = self.text(variable)
        if value is None:
            return None
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0.0 < seconds <= at_most:
            self._refuse(variable, value, f"a number of seconds above 0 and at most {at_most:g}")
            return None
        return seconds

    def port(self, variable: str, default: int) -> int:
        """A TCP port, or 0."""
        value = self.text(variable)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535):
            self._refuse(variable, value, "a port: a whole number from 0 to 65535")
            return default
        return int(value)

    def flag(self, variable: str, default: bool) -> bool:
        """True or False."""
        return self.choice(variable, ("true", "false"), "true" if default else "false") == "true"

    def choice(self, variable: str, allowed: Sequence[str], default: str) -> str:
        """One of a few words, in whatever case."""
        value = self.text(variable)
        if value is None:
            return default
        for word in allowed:
            if value.lower() == word.lower():
                return word
        self._refuse(variable, value, f"one of {', '.join(allowed)}")
        return default

    def namespace(self, variable: str) -> str | None:
        """A namespace's name; None where there is none."""
        value = self.text(variable)
        if value is not None and not _NAMESPACE.fullmatch(value):
            self._refuse(variable, value, "one namespace: lower-case letters, digits and -, at most 63")
            return None
        return value

    def namespaces(self, variable: str) -> tuple[str, ...]:
        """Names of namespaces between commas, each once, in the order given."""
        value = self.text(variable)
        if value is None:
            return ()
        names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
        if not all(_NAMESPACE.fullmatch(name) for name in names):
            self._refuse(variable, value, "namespaces separated by commas, or nothing for the whole cluster")
            return ()
        return names

    def json_list(self, variable: str) -> list[Any]:
        """A list, as JSON. Its value is not repeated in the mistake: whoever errs may have put a secret there."""
        value = self.text(variable)
        if value is None:
            return []
        try:
            found = json.loads(value)
        except ValueError:
            found = None
        if not isinstance(found, list):
            self.mistake(variable, 'is no JSON list; give one such as [{"name": "AWS_REGION", ...}]')
            return []
        return found

    def file(self, variable: str, *, must_exist: bool) -> Path | None:
        """An absolute path of a file; None where there is none."""
        value = self.text(variable)
        if value is None:
            return None
        path = Path(value)
        if not path.is_absolute():
            self._refuse(variable, value, "an absolute path")
            return None
        if must_exist and not path.is_file():
            self._refuse(variable, value, "a file that is there: mount it, or leave the variable out")
            return None
        return path

    def storage(self, variable: str) -> str:
        """A root of files: `s3://bucket/prefix` or an absolute directory; without a slash at its end."""
        allowed = "s3://bucket/prefix, or an absolute directory that the operator and all stages mount"
        value = self.required(variable, allowed)
        if value is None:
            return ""
        if value.startswith("s3://"):
            try:
                parts = urlsplit(value)
                usable = bool(_BUCKET.fullmatch(parts.netloc)) and not parts.query and not parts.fragment
            except ValueError:
                usable = False
        else:
            usable = value.startswith("/") and value.strip("/") != "" and ".." not in Path(value).parts
        if not usable:
            self._refuse(variable, value, allowed)
        return value.rstrip("/")

    def _refuse(self, variable: str, value: str, allowed: str) -> None:
        shown = _CREDENTIALS.sub("//[hidden]@", value)
        shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
        self.mistake(variable, f"is {shown!r}; give {allowed}")
