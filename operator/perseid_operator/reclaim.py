"""Deletes the files of a run whose EvolutionRun is being deleted and says `reclaimPolicy: delete`."""

from __future__ import annotations

import asyncio
import shutil

import obstore

from perseid.api.layout import RUN_DIRECTORIES, StorageError, is_remote, local_path
from perseid.storage.stores import Patience, explained, open_store

TIMEOUT_SECONDS = 60.0
"""For one page of objects: to list it and to delete it."""


async def delete_files(root: str) -> None:
    """Delete all that stages have written below a run's root; what is gone already is no error.

    Only the directories that Perseid makes: a root that somebody chose may hold other things. Interrupted, it is done
    again. Raises StorageError.
    """
    if is_remote(root):
        await _delete_objects(root)
    else:
        await asyncio.to_thread(_delete_directories, root)


async def _delete_objects(root: str) -> None:
    store = open_store(root, Patience.LOOK)
    try:
        for directory in RUN_DIRECTORIES:
            pages = obstore.list(store, prefix=directory)
            while True:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    with explained(root):
                        page = await anext(pages, None)
                        if page is None:
                            break
                        await obstore.delete_async(store, [found["path"] for found in page])
    except FileNotFoundError as error:
        # What else was to be deleted may still be there: whoever calls tries again.
        raise StorageError(f"somebody else deletes files below {root} at the same time") from error
    except TimeoutError as error:
        raise StorageError(f"{root} does not answer within {TIMEOUT_SECONDS:.0f} s") from error


def _delete_directories(root: str) -> None:
    for directory in RUN_DIRECTORIES:
        path = local_path(root) / directory
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StorageError(f"{path} cannot be deleted: {error.strerror}; do its rights allow it?") from error
