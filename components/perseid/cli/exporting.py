"""A run's model as a directory that anybody can load, and as a repository on a hub."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from perseid.data.errors import DataError
from perseid.engines.errors import ModelError
from perseid.engines.identity import content_id, weight_files
from perseid.engines.models import ResolvedModel, resolve_model
from perseid.report.card import card_facts, render_card
from perseid.report.models import ChosenModel
from perseid.report.versus import RunFiles
from perseid.runner.errors import RunnerError

CARD = "README.md"


def export(run: RunFiles, model: ChosenModel, directory: Path, licence: str | None, *, name: str | None = None) -> None:
    """Write weights, tokenizer and model card to `directory`, all at once: it is whole or not there.

    Raises RunnerError and DataError.
    """
    if model.generation is None:
        raise RunnerError(
            f"the best model of {run.name} is the one that it started from, {model.ref}: there is nothing to export;"
            " --generation N exports the model of a generation that was not promoted"
        )
    _check_place(directory)
    found = _resolve(run, model)
    card = render_card(card_facts(run, model, found.path, name or directory.resolve().name, licence))
    scratch = directory.absolute().with_name(f".{directory.name}.perseid-export")
    try:
        shutil.rmtree(scratch, ignore_errors=True)  # of an export that was killed
        scratch.mkdir(parents=True)
        for source in sorted(path for path in found.path.iterdir() if path.is_file() and path.name != CARD):
            _copy(source, scratch / source.name)
        (scratch / CARD).write_text(card, encoding="utf-8")
        if content_id(scratch) != found.model_id:
            raise RunnerError(f"the copy of {found.path} is not what was copied: it changed meanwhile; export again")
        scratch.replace(directory)  # onto nothing, or onto an empty directory
    except OSError as error:
        raise RunnerError(f"cannot write {directory}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def is_export_of(directory: Path, model: ChosenModel) -> bool:
    """Whether an export of this very model lies there, whole."""
    return (directory / CARD).is_file() and bool(weight_files(directory)) and content_id(directory) == model.model_id


def push(directory: Path, repository: str, *, public: bool) -> str:
    """Upload an export to the hub as `organisation/name`; returns its address. Pushing again sends what is missing.

    The token is the hub client's own (HF_TOKEN, or what `hf auth login` has stored); it is in no message of ours.
    Raises RunnerError.
    """
    import httpx
    from huggingface_hub import HfApi, errors

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="perseid")
    again = f"{directory} is whole; the same command pushes it again"
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=directory, commit_message="Export a model made with Perseid")
    except errors.HFValidationError as error:
        raise RunnerError(f"--push {repository} is not a valid name for the hub (org/name): {error}") from error
    except errors.LocalTokenNotFoundError as error:
        raise RunnerError(
            f"pushing {repository} needs a token: set HF_TOKEN, or log in with `hf auth login`; {again}"
        ) from error
    except errors.HfHubHTTPError as error:
        status = "" if error.response is None else f" ({error.response.status_code})"
        hint = "is the token one that may write there?" if status in (" (401)", " (403)") else again
        raise RunnerError(f"the hub refused {repository}{status}: {error.server_message or error}; {hint}") from error
    except (OSError, httpx.HTTPError) as error:
        raise RunnerError(f"the hub could not be reached: {type(error).__name__}: {error}; {again}") from error
    return f"{api.endpoint}/{repository}"


def _check_place(directory: Path) -> None:
    if directory.is_dir() and any(directory.iterdir()):
        raise RunnerError(f"{directory} is not empty; name one that is, or that is not there yet")
    if directory.exists() and not directory.is_dir():
        raise RunnerError(f"{directory} is a file; name a directory that is not there yet")


def _resolve(run: RunFiles, model: ChosenModel) -> ResolvedModel:
    try:
        found = resolve_model(model.ref, model.revision, trust_remote_code=run.run.spec.model.trust_remote_code)
        found.fetch_weights()
    except ModelError as error:
        kept = " (spec.retainModels is promoted: weights that are no longer needed are deleted)"
        deleted = kept if run.run.spec.retain_models == "promoted" else ""
        raise RunnerError(f"{model.words} of {run.name} cannot be exported: {error}{deleted}") from error
    if model.model_id is not None and found.model_id != model.model_id:
        raise DataError(
            f"{found.path} is not the model that {run.name} was scored with: its weights have the identity"
            f" {found.model_id}, not {model.model_id}; restore it"
        )
    if (found.path / "adapter_config.json").exists():
        raise DataError(f"{found.path} is an adapter, not a whole model; merge it into its base first")
    return found


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
