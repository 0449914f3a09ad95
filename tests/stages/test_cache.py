from __future__ import annotations

from pathlib import Path

import pytest

from perseid.api.pipeline import PipelineSpec
from perseid.stages.cache import prepare_cache
from perseid.stages.errors import StageError

CLAIM = PipelineSpec(cache_claim="hub")


def test_the_volumes_directories_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "PERSEID_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "cache" / name))
    prepare_cache(CLAIM)
    prepare_cache(CLAIM)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["HF_HOME", "PERSEID_CACHE"]


def test_a_volume_that_cannot_be_written_is_told_with_the_user_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("no directory")
    monkeypatch.setenv("PERSEID_CACHE", str(tmp_path / "cache" / "perseid"))
    with pytest.raises(StageError, match=r"cacheClaim hub, cannot be written by user \d+: .*chown"):
        prepare_cache(CLAIM)


def test_without_a_claim_whoever_set_the_directories_answers_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "nowhere"))
    prepare_cache(PipelineSpec())
    assert not (tmp_path / "nowhere").exists()
