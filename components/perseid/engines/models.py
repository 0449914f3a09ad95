"""Model references: from what a spec says to a directory in transformers' format and an identity."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from perseid.engines.embedded import EMBEDDED_PREFIX, materialise_embedded
from perseid.engines.errors import (
    ModelAccessError,
    ModelDownloadError,
    ModelIncompleteError,
    ModelNotFoundError,
)
from perseid.engines.identity import content_id, weight_files

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_SETTINGS_PATTERNS = ["*.json", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that an engine can load."""

    path: Path
    """Directory in transformers' format."""
    model_id: str
    """Identity of its contents: the same at another path, another after any change."""


def default_cache_dir() -> Path:
    """`$PERSEID_CACHE`, or `~/.cache/perseid`."""
    return Path(os.environ.get("PERSEID_CACHE") or "~/.cache/perseid").expanduser()


def resolve_model(
    ref: str, revision: str | None = None, cache_dir: Path | None = None, *, trust_remote_code: bool = False
) -> ResolvedModel:
    """Find, download or build the model that `ref` names; blocks while it does.

    `ref` is a hub id (`org/name`), a local directory (`./x`, `/x`, `~/x`) or `embedded:<name>`. Raises
    ModelNotFoundError, ModelAccessError, ModelDownloadError or ModelIncompleteError.
    """
    cache = cache_dir or default_cache_dir()
    if ref.startswith(EMBEDDED_PREFIX):
        path = materialise_embedded(ref, cache)
    elif ref.startswith(("/", "./", "../", "~")) or ref in {".", ".."}:
        path = Path(ref).expanduser().resolve()
        if not path.is_dir():
            raise ModelNotFoundError(f"model {ref!r}: there is no directory {path}")
    elif _HUB_ID.fullmatch(ref):
        path = _download(ref, revision, trust_remote_code)
    else:
        raise ModelNotFoundError(
            f"model {ref!r} is neither a hub id (org/name), nor a local directory (which starts with ./ or /), "
            f"nor {EMBEDDED_PREFIX}smollm2-135m-instruct"
        )
    _check_complete(ref, path)
    return ResolvedModel(path, content_id(path, cache))


def _check_complete(ref: str, path: Path) -> None:
    missing = []
    if not (path / "config.json").is_file():
        missing.append("config.json")
    if not weight_files(path):
        missing.append("weights (*.safetensors)")
    if not any((path / name).is_file() for name in _TOKENIZERS):
        missing.append("a tokenizer (tokenizer.json)")
    if missing:
        raise ModelIncompleteError(
            f"model {ref!r}: {path} lacks {', '.join(missing)}; it must hold what save_pretrained of model and "
            "tokenizer write"
        )


def _download(ref: str, revision: str | None, trust_remote_code: bool) -> Path:
    import httpx
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    settings = [*_SETTINGS_PATTERNS, *(["*.py"] if trust_remote_code else [])]
    where = f"model {ref!r}" + (f" at revision {revision!r}" if revision else "")
    hint = f" (for a local directory write ./{ref})" if Path(ref).is_dir() else ""
    try:
        path = Path(snapshot_download(ref, revision=revision, allow_patterns=[*settings, "*.safetensors"]))
        if not weight_files(path):
            path = Path(snapshot_download(ref, revision=revision, allow_patterns=[*settings, "*.bin"]))
    except hub.GatedRepoError as error:
        raise ModelAccessError(
            f"{where} is gated: accept its licence on the hub and log in (`hf auth login`, or the variable HF_TOKEN)"
        ) from error
    except hub.RevisionNotFoundError as error:
        raise ModelNotFoundError(f"{where}: the hub has no such commit, tag or branch") from error
    except hub.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"{where}: the hub has no such model, or it is private and you are not logged in{hint}"
        ) from error
    except hub.HFValidationError as error:
        raise ModelNotFoundError(f"{where} is not a valid hub id: {error}{hint}") from error
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled) as error:
        raise ModelDownloadError(
            f"{where} is not in the local cache and the hub cannot be reached (offline, or HF_HUB_OFFLINE is set); "
            f"download it where there is a network, or name a local directory{hint}"
        ) from error
    except hub.HfHubHTTPError as error:
        raise ModelDownloadError(f"{where}: the hub answered with an error: {error}; run again to resume") from error
    except (OSError, httpx.HTTPError) as error:
        raise ModelDownloadError(
            f"{where}: the download was interrupted ({type(error).__name__}: {error}); run again to resume it"
        ) from error
    return path
