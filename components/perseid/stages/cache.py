"""The volume of what stages fetch from the hub (`spec.pipeline.cacheClaim`)."""

from __future__ import annotations

import os
from pathlib import Path

from perseid.api.pipeline import PipelineSpec
from perseid.stages.errors import StageError

VARIABLES = ("HF_HOME", "PERSEID_CACHE")


def prepare_cache(pipeline: PipelineSpec) -> None:
    """Make the volume's directories. Raises StageError where this process may not: whoever asked for a cache should
    not have gigabytes downloaded by every pod in its place. Without a claim there is nothing to do."""
    if pipeline.cache_claim is None:
        return
    for path in (Path(os.environ[name]) for name in VARIABLES if name in os.environ):
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise StageError(
                f"{path}, on the volume of spec.pipeline.cacheClaim {pipeline.cache_claim}, cannot be written by user"
                f" {os.getuid()}: {error.strerror}; give the volume's root directory to that user once, for example by"
                " a Job that runs chown, or leave cacheClaim out"
            ) from error
