"""Whether a model's weights are whole: a copy or a download that broke off is found before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

from perseid.engines.errors import ModelIncompleteError
from perseid.engines.identity import weight_files

_POINTER = b"version https://git-lfs"


def check_weights(ref: str, path: Path) -> None:
    """Read the headers of the safetensors files in `path`, and the index where there is one.

    Raises ModelIncompleteError: a file that is cut off or only a pointer of Git LFS, or one that the index names and
    that is not there.
    """
    from safetensors import SafetensorError, safe_open

    again = "copy or download it again"
    for index in sorted(path.glob("*.safetensors.index.json")):
        missing = sorted(name for name in _named_by(ref, index) if not (path / name).is_file())
        if missing:
            raise ModelIncompleteError(
                f"model {ref!r}: {index} names {len(missing)} file(s) that are not there, for example {missing[0]};"
                f" {again}"
            )
    for file in weight_files(path):
        with file.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                raise ModelIncompleteError(
                    f"model {ref!r}: {file} holds a pointer of Git LFS and no weights; run `git lfs pull` in {path}"
                )
        if file.suffix != ".safetensors":
            continue
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelIncompleteError(
                f"model {ref!r}: {file} ({file.stat().st_size} bytes) is damaged or cut off ({error}); {again}"
            ) from error


def _named_by(ref: str, index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelIncompleteError(
            f"model {ref!r}: {index} is no index of weights ({type(error).__name__}); copy or download it again"
        ) from error


def has_chat_template(path: Path) -> bool:
    """Whether the tokenizer in `path` brings a chat template; what only its own code would make is not seen."""
    if (path / "chat_template.jinja").is_file() or (path / "chat_template.json").is_file():
        return True
    try:
        settings = json.loads((path / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and bool(settings.get("chat_template"))
