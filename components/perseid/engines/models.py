"""Model references: from what a spec says to a directory in transformers' format and an identity."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from perseid.api.layout import StorageError, is_remote
from perseid.engines.embedded import EMBEDDED_PREFIX, check_embedded, materialise_embedded
from perseid.engines.errors import (
    ModelAccessError,
    ModelDownloadError,
    ModelIncompleteError,
    ModelNotFoundError,
)
from perseid.engines.identity import content_id, weight_files
from perseid.engines.weights import check_weights
from perseid.storage.errors import StorageRefusedError
from perseid.storage.models import RemoteModel

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_MANIFEST = "perseid-model.json"
_SETTINGS_PATTERNS = ["*.json", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that an engine can load."""

    path: Path
    """Directory in transformers' format."""
    model_id: str
    """Identity of its contents: the same at another path, another after any change."""
    remote: RemoteModel | None = field(default=None, compare=False)
    """Where the weights still lie; None where they are in `path`."""

    def fetch_weights(self) -> None:
        """Make `path` whole; blocks while it does. Raises ModelDownloadError, ModelAccessError or ModelIncompleteError.

        Nothing is fetched twice. What was fetched must have the identity that it was promised to have.
        """
        if self.remote is None:
            return
        with _model_errors(self.remote.uri):
            self.remote.fetch_weights()
        found = content_id(self.path, default_cache_dir())
        if found != self.model_id:
            raise ModelIncompleteError(
                f"model {self.remote.uri!r}: its files are not those that its {_MANIFEST} speaks of (identity {found},"
                f" not {self.model_id}); restore them, or take another model"
            )


def default_cache_dir() -> Path:
    """`$PERSEID_CACHE`, or `~/.cache/perseid`."""
    return Path(os.environ.get("PERSEID_CACHE") or "~/.cache/perseid").expanduser()


def resolve_model(
    ref: str, revision: str | None = None, cache_dir: Path | None = None, *, trust_remote_code: bool = False
) -> ResolvedModel:
    """Find, download or build the model that `ref` names; blocks while it does.

    `ref` is a hub id (`org/name`), a local directory (`./x`, `/x`, `~/x`), a directory in object storage
    (`s3://bucket/x`) or `embedded:<name>`. Of a model that Perseid made and that lies in object storage, the weights
    are left there until `fetch_weights`. Raises ModelNotFoundError, ModelAccessError, ModelDownloadError or
    ModelIncompleteError.
    """
    cache = cache_dir or default_cache_dir()
    if is_remote(ref):
        return _resolve_remote(ref, cache)
    if ref.startswith(EMBEDDED_PREFIX):
        path = materialise_embedded(ref, cache)
    elif (directory := local_directory(ref)) is not None:
        path = directory
    else:
        path = _download(ref, revision, trust_remote_code)
    _check_complete(ref, path)
    return ResolvedModel(path, content_id(path, cache))


def check_reference(ref: str) -> None:
    """Raise ModelNotFoundError or ModelIncompleteError for what is wrong with a reference and shows without a network.

    A local directory must hold a whole model; hub ids and places in object storage must only look like such.
    """
    if is_remote(ref):
        return
    if ref.startswith(EMBEDDED_PREFIX):
        check_embedded(ref)
    elif (directory := local_directory(ref)) is not None:
        _check_complete(ref, directory)
        check_weights(ref, directory)


def check_on_hub(ref: str, revision: str | None = None) -> None:
    """Ask the hub, or the local cache, for the configuration of the model `ref`; nothing else has none.

    A few kilobytes are fetched. Raises ModelNotFoundError, ModelAccessError or ModelDownloadError.
    """
    if is_remote(ref) or ref.startswith(EMBEDDED_PREFIX) or local_directory(ref) is not None:
        return
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import logging as hub_logging

    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.CRITICAL)  # its own words about each try would bury ours
    try:
        with _hub_errors(ref, revision):
            hf_hub_download(ref, "config.json", revision=revision)
    finally:
        hub_logging.set_verbosity(level)


def local_directory(ref: str) -> Path | None:
    """The directory that `ref` names by its beginning; None for a hub id.

    Raises ModelNotFoundError where there is no such directory, or the reference is neither.
    """
    if ref.startswith(("/", "./", "../", "~")) or ref in {".", ".."}:
        path = Path(ref).expanduser().resolve()
        if not path.is_dir():
            raise ModelNotFoundError(f"model {ref!r}: there is no directory {path}; check the path")
        return path
    if _HUB_ID.fullmatch(ref):
        return None
    raise ModelNotFoundError(
        f"model {ref!r} is neither a hub id (org/name), nor a local directory (which starts with ./ or /), "
        f"nor one in object storage (s3://bucket/directory), nor {EMBEDDED_PREFIX}smollm2-135m-instruct"
    )


def _resolve_remote(ref: str, cache: Path) -> ResolvedModel:
    with _model_errors(ref):
        remote = RemoteModel(ref)
        if not remote.names:
            raise ModelNotFoundError(f"model {ref!r}: there is nothing at that place")
        _check_files(ref, ref, remote.names, has_weights=bool(remote.weights))
        remote.fetch_settings()
        model_id = _promised_id(remote.path)
        if model_id is not None:
            return ResolvedModel(remote.path, model_id, remote)
        remote.fetch_weights()
    return ResolvedModel(remote.path, content_id(remote.path, cache))


def _promised_id(path: Path) -> str | None:
    """The identity that a model's own manifest gives; None for a model that Perseid did not make."""
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    promised = manifest.get("model_id") if isinstance(manifest, dict) else None
    return promised if isinstance(promised, str) else None


@contextlib.contextmanager
def _model_errors(ref: str) -> Iterator[None]:
    try:
        yield
    except StorageRefusedError as error:
        raise ModelAccessError(f"model {ref!r}: {error}") from error
    except StorageError as error:
        raise ModelDownloadError(f"model {ref!r}: {error}") from error


def _check_complete(ref: str, path: Path) -> None:
    names = {file.name for file in path.iterdir() if file.is_file()}
    _check_files(ref, str(path), names, has_weights=bool(weight_files(path)))


def _check_files(ref: str, place: str, names: Collection[str], *, has_weights: bool) -> None:
    missing = []
    if "config.json" not in names:
        missing.append("config.json")
    if not has_weights:
        missing.append("weights (*.safetensors)")
    if not any(name in names for name in _TOKENIZERS):
        missing.append("a tokenizer (tokenizer.json)")
    if missing:
        raise ModelIncompleteError(
            f"model {ref!r}: {place} lacks {', '.join(missing)}; it must hold what save_pretrained of model and "
            "tokenizer write"
        )


def _download(ref: str, revision: str | None, trust_remote_code: bool) -> Path:
    from huggingface_hub import snapshot_download

    settings = [*_SETTINGS_PATTERNS, *(["*.py"] if trust_remote_code else [])]
    with _hub_errors(ref, revision):
        path = Path(snapshot_download(ref, revision=revision, allow_patterns=[*settings, "*.safetensors"]))
        if not weight_files(path):
            path = Path(snapshot_download(ref, revision=revision, allow_patterns=[*settings, "*.bin"]))
    return path


@contextlib.contextmanager
def _hub_errors(ref: str, revision: str | None) -> Iterator[None]:
    import httpx
    from huggingface_hub import errors as hub

    where = f"model {ref!r}" + (f" at revision {revision!r}" if revision else "")
    hint = f" (for a local directory write ./{ref})" if Path(ref).is_dir() else ""
    try:
        yield
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
        raise ModelDownloadError(
            f"{where}: the hub answered with an error: {_one_line(error)}; run again to resume"
        ) from error
    except (OSError, httpx.HTTPError) as error:
        raise ModelDownloadError(
            f"{where}: the download was interrupted ({type(error).__name__}: {_one_line(error)}); run again to resume"
            " it"
        ) from error


def _one_line(error: Exception) -> str:
    """What an error says first: clients of HTTP add a paragraph about status codes."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
