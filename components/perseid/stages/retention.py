"""Deletes weights that nothing starts from any more, where `spec.retainModels` says so.

A generation needs the model that it starts from and those of its own newest attempt. Models of other generations were
not promoted, or have been improved on; what earlier attempts of this one have made the newest has taken over. Manifests
stay, and with them what each model was trained on.
"""

from __future__ import annotations

import logging
from pathlib import Path

from perseid.api.layout import GENERATIONS, StorageError, attempt_key
from perseid.stages.context import StageContext
from perseid.stages.lineage import MODEL, WORK
from perseid.training.manifest import MANIFEST_NAME

log = logging.getLogger(__name__)


def delete_superseded_models(context: StageContext) -> None:
    """Delete them, in the run's directory or its storage. What cannot be deleted is told of and costs room, no more."""
    if context.spec.retain_models == "all":
        return
    root, storage = context.layout.root, context.storage
    try:
        if storage is not None:
            keys = [key for key in storage.keys(GENERATIONS) if is_superseded(context, key)]
            storage.delete(keys)
        else:
            files = [path for path in (root / GENERATIONS).rglob("*") if path.is_file() or path.is_symlink()]
            keys = [key for key in map(context.layout.key, files) if is_superseded(context, key)]
            for key in keys:
                (root / key).unlink(missing_ok=True)
    except (OSError, StorageError) as error:
        log.warning("weights that nobody needs any more could not be deleted: %s", error)
        return
    if keys:
        log.info("deleted %d files of models that nothing starts from any more", len(keys))


def is_superseded(context: StageContext, key: str) -> bool:
    """Whether a file below the run's root is of a model, or of a training, that no later stage can start from."""
    parts = key.split("/")
    inside = parts[len(attempt_key(0, 0).split("/")) + 1 :]  # below a stage's directory
    if parts[0] != GENERATIONS or not {MODEL, WORK} & set(inside[:-1]) or inside[-1] == MANIFEST_NAME:
        return False
    generation, attempt = int(parts[1]), int(parts[3])
    if generation == context.attempt.generation:
        return attempt < context.attempt.number
    start = _start_model_key(context)
    return generation < context.attempt.generation and (start is None or not key.startswith(f"{start}/"))


def _start_model_key(context: StageContext) -> str | None:
    """The start model's directory below the run's root; None where it is elsewhere."""
    layout, start = context.layout, context.attempt.start_model
    if layout.uri is not None:
        return start.removeprefix(f"{layout.uri}/") if start.startswith(f"{layout.uri}/") else None
    path = Path(start)
    root = layout.root.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else None
