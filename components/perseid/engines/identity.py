"""What a model's answers depend on, as one digest that is the same wherever the files lie."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

_WEIGHTS = ("*.safetensors", "*.bin")
_SETTINGS = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "*.safetensors.index.json",
    "*.py",
)


def weight_files(model_path: Path) -> list[Path]:
    """The model's weights: safetensors where there are any, else PyTorch's own format. Sorted by name."""
    for pattern in _WEIGHTS:
        if found := sorted(model_path.glob(pattern)):
            return found
    return []


def content_id(model_path: Path, cache_dir: Path | None = None) -> str:
    """SHA-256 over names and contents of weights, configuration, tokenizer and the model's own code, as 64 hex digits.

    Digests of single files are remembered in `cache_dir`, where there is one, by path, size and modification time,
    because hashing a big model takes longer than starting it.
    """
    settings = {path for pattern in _SETTINGS for path in model_path.glob(pattern)}
    store = None if cache_dir is None else cache_dir / "file-digests.json"
    known = {} if store is None else _load(store)
    digest = hashlib.sha256()
    new: dict[str, str] = {}
    for path in sorted({*settings, *weight_files(model_path)}, key=lambda file: file.name):
        stat = path.stat()
        key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if key not in known:
            known[key] = new[key] = file_sha256(path)
        digest.update(f"{path.name}\0{stat.st_size}\0{known[key]}\n".encode())
    if new and store is not None:
        _save(store, new)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(store: Path) -> dict[str, str]:
    try:
        loaded = json.loads(store.read_text())
    except (FileNotFoundError, ValueError):
        return {}  # only a cache: what is missing or damaged is computed again
    return loaded if isinstance(loaded, dict) else {}


def _save(store: Path, new: dict[str, str]) -> None:
    store.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=store.parent, prefix=store.name)
    with os.fdopen(handle, "w") as file:
        json.dump(_load(store) | new, file)
    Path(temporary).replace(store)
