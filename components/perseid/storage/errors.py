"""What can be wrong with a storage. All of them are StorageErrors: the message says which, why and what to check."""

from __future__ import annotations

from perseid.api.layout import StorageError


class StorageRefusedError(StorageError):
    """The storage said no (credentials, a bucket that is not there): asking again will not help."""


class ObjectChangedError(StorageError):
    """An object is not the one that was committed, or was written by somebody else in between."""


class OwnershipLostError(StorageError):
    """Another try has taken the stage over: this one must change nothing more."""
