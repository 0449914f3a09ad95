"""The directory of working copies."""

from __future__ import annotations

import os

from perseid.api.layout import SCRATCH_DIRECTORY, StorageError, scratch_directory


def prepare_scratch() -> None:
    """Make the scratch directory, readable for its owner alone. Raises StorageError where that cannot be."""
    path = scratch_directory()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = path.stat().st_uid
    except OSError as error:
        raise StorageError(
            f"there is no scratch directory {path}: {error.strerror}; set {SCRATCH_DIRECTORY} to a directory that can"
            " be written"
        ) from error
    # Among the temporary files anybody may have made a directory of that name. One that was named was meant.
    if owner != os.getuid() and SCRATCH_DIRECTORY not in os.environ:
        raise StorageError(
            f"the scratch directory {path} belongs to somebody else; remove it, or set {SCRATCH_DIRECTORY} to another"
        )
