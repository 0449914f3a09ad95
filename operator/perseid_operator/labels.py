"""Values that may become labels of metrics: each new one costs Prometheus memory, for ever."""

from __future__ import annotations

import logging
from collections.abc import Collection

log = logging.getLogger(__name__)

OTHER = "other"
"""What is counted together."""


class Closed:
    """A closed set. What is not in it becomes `other`, and the log says so once for each such value."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)
        self._told = Limited(16)

    def __call__(self, value: str) -> str:
        """The label for that value."""
        if value in self._allowed:
            return value
        if self._told.is_new(value):
            log.error("%.80r is no label that the metrics know; it is counted as %s", value, OTHER)
        return OTHER


class Limited:
    """As many values as come first, up to a limit; all later ones become `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """The label for that value."""
        if value in self._known or self.is_new(value):
            return value
        return OTHER

    def is_new(self, value: str) -> bool:
        """Take the value in; whether it was not known and there was room for it."""
        if value in self._known or len(self._known) >= self._limit:
            return False
        self._known.add(value)
        return True
