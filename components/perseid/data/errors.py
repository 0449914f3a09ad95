"""What can be wrong with data: the message names the place and what to do."""

from __future__ import annotations


class DataError(Exception):
    """A file, a record or a selection is not what it should be."""
