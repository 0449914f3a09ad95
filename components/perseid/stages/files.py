"""Copying a stage's files without copying what is big."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path


def link_or_copy(source: str, target: str) -> None:
    """Link weights, which are big and never written to again; copy everything else."""
    if Path(source).suffix == ".safetensors":
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)
