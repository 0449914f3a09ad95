from __future__ import annotations

from pathlib import Path

import pytest

from perseid.api.engine import EngineSpec, OpenAISpec, TransformersSpec
from perseid.engines.factory import open_endpoint, open_engine
from perseid.engines.models import default_cache_dir
from perseid.engines.protocol import Message, Request, Sampling
from perseid.engines.wrappers import CALL_LOG_VARIABLE


async def test_a_spec_becomes_a_running_engine_with_a_call_log(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CALL_LOG_VARIABLE, str(tmp_path / "log"))
    spec = EngineSpec(type="transformers", transformers=TransformersSpec(batch_size=2, max_model_len=256))
    engine = await open_engine(tiny_model, "identity", spec, "float32")
    assert engine.model_id == "identity"
    answer = await engine.generate(Request((Message("user", "hello"),), Sampling(max_tokens=3)))
    assert 1 <= answer.completions[0].tokens <= 3
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    await engine.close()


async def test_an_endpoint_opens_without_being_asked_anything() -> None:
    engine = open_endpoint(OpenAISpec(base_url="http://127.0.0.1:1/v1", model="big"))
    assert engine.model_id == "http://127.0.0.1:1/v1#big"
    await engine.close()


def test_the_cache_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PERSEID_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("PERSEID_CACHE")
    assert default_cache_dir() == Path.home() / ".cache" / "perseid"
